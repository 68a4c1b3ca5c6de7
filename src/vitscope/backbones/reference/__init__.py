"""The reference backbones: small vision transformers trained on rendered scenes."""
