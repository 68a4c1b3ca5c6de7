"""Image folders with stable ids, robust decoding, the skip report."""
