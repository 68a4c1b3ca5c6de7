"""What a group of features contributes to tokens, and tokens without it."""
