"""Sparse autoencoders: model, batch-top-k selection, training, storage."""
