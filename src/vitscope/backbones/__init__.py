"""Vision transformers seen from one block, and the planted backbone whose truth is known."""
