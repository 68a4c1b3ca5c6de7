"""What a saved thing carries, and how it reaches the disk whole or not at all."""
