"""Weights of every published layout into timm models, strictly: nothing random, nothing resized."""
