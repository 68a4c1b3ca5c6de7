"""The reference backbones: small vision transformers trained on scenes, shipped in the package."""
