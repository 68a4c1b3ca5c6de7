"""One probe at a time, written as a tutorial would: torch modules, autograd, torch's own SGD."""

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitscope.probes.features import (
    IMAGE_TOKEN,
    TARGET,
    FeatureCache,
    LabelledFeatures,
    epoch_order,
)
from vitscope.probes.heads import Trial, first_heads
from vitscope.probes.objectives import Depth, Segmentation

CPU = torch.device("cpu")


def cached(arrays: dict[str, np.ndarray]) -> LabelledFeatures:
    """Made-up features in three uneven shards; ``target`` and ``image_token`` keep their names."""
    whole = {name: torch.from_numpy(array) for name, array in arrays.items()}
    n = len(whole[TARGET])
    cuts = (0, n // 4, n // 2 + 1, n)
    shards = [
        {name: tensor[first:last] for name, tensor in whole.items()}
        for first, last in itertools.pairwise(cuts)
    ]
    variants = tuple(name for name in arrays if name not in (TARGET, IMAGE_TOKEN))
    return LabelledFeatures(FeatureCache(shards, ""), variants, CPU, memory_bytes=0)


class OneProbe(nn.Module):
    """Norm, upsampling of the *features*, linear layer: in the order of the description."""

    def __init__(self, trial: Trial, width: int, n_outputs: int, norm: str, task: Any) -> None:
        super().__init__()
        self.norm: nn.Module = {
            "none": nn.Identity(),
            "layer": nn.LayerNorm(width),
            "batch": nn.BatchNorm1d(width),
        }[norm]
        self.linear = nn.Linear(width, n_outputs)
        start = first_heads(
            (trial,), n_variants=1, width=width, n_outputs=n_outputs, scaled=False, device=CPU
        )
        with torch.no_grad():
            self.linear.weight.copy_(start.weight[0, :, 0].T)
            self.linear.bias.zero_()
        self.task = task

    def forward(self, x: Tensor) -> Tensor:
        """[B, P, d] -> [B, C] for P = 1, else [B, C, S, S]."""
        seen = self.norm(x.flatten(0, 1)).view_as(x)
        if x.shape[1] == 1:
            return self.linear(seen[:, 0])
        p, side = self.task.maps.grid, self.task.maps.side
        maps = seen.mT.unflatten(2, (p, p))
        large = nn.functional.interpolate(maps, (side, side), mode="bilinear")
        return self.linear(large.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def loss(self, x: Tensor, target: Tensor) -> Tensor:
        """The task's loss, by torch's own functions where it has them."""
        out = self(x)
        if isinstance(self.task, Depth):
            return depth_loss(out, target, self.task)
        if isinstance(self.task, Segmentation):
            return nn.functional.cross_entropy(out, target - 1, ignore_index=-1)
        return nn.functional.cross_entropy(out, target)


def depth_of(out: Tensor, task: Depth) -> Tensor:
    low, high = task.depth_range
    edges = torch.linspace(low, high, task.n_outputs + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    return (out.softmax(1) * centres.view(1, -1, 1, 1)).sum(1)


def depth_loss(out: Tensor, target: Tensor, task: Depth) -> Tensor:
    losses: list[Tensor] = []
    for guess, truth in zip(depth_of(out, task), target, strict=True):
        valid = (truth >= task.depth_range[0]) & (truth <= task.depth_range[1])
        gap = guess[valid].log() - truth[valid].log()
        losses.append((gap**2).mean() - task.loss_lambda * gap.mean() ** 2)
    return torch.stack(losses).mean()


def train_alone(
    features: LabelledFeatures,
    variant: int,
    trial: Trial,
    task: Any,
    *,
    norm: str,
    epochs: int,
    batch_size: int,
    key: tuple[int | str, ...],
) -> tuple[OneProbe, list[float]]:
    """Train one head; returns it with its mean loss per epoch."""
    probe = OneProbe(trial, features.width, task.n_outputs, norm, task)
    optimiser = torch.optim.SGD(
        probe.parameters(), trial.learning_rate, momentum=0.9, weight_decay=trial.weight_decay
    )
    n_steps = epochs * math.ceil(len(features) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    curve: list[float] = []
    for epoch in range(epochs):
        total = 0.0
        for rows in epoch_order(len(features), batch_size, *key, epoch):
            batch = features.batch(rows)
            loss = probe.loss(batch.features[variant], batch.target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        curve.append(total / len(features))
    return probe.eval(), curve
