"""Somebody's own vision transformer: a plain module that knows nothing of vitscope."""

import torch
from torch import Tensor, nn


class MyBlock(nn.Module):
    """Pre-norm attention and an MLP with ReLU."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, n_heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 96), nn.ReLU(), nn.Linear(96, width)
        )

    def qkv(self, z: Tensor) -> Tensor:
        """Queries, keys and values, each [B, A, T, h]."""
        attend = self.attend
        projected = nn.functional.linear(z, attend.in_proj_weight, attend.in_proj_bias)
        return projected.unflatten(-1, (3, attend.num_heads, attend.head_dim)).permute(
            2, 0, 3, 1, 4
        )

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(x)
        x = x + self.attend(z, z, z, need_weights=False)[0]
        return x + self.mlp(x)


class MyViT(nn.Module):
    """6x6 patches of 8 pixels, width 48, 4 blocks of 3 heads, no CLS; pooled by the mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, 48, 8, 8)
        self.position = nn.Parameter(torch.randn(1, 36, 48))
        self.blocks = nn.Sequential(*(MyBlock(48, 3) for _ in range(4)))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embed(pixels).flatten(2).transpose(1, 2) + self.position
        return self.blocks(x).mean(1)
