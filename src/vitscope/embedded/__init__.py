"""What ships with the package: rendered scenes, and small networks trained on them."""
