"""What the networks are taught: captions, labels, and, mostly early on, their patches."""

import math

import torch
from batches import NOT_ASKED, Batch
from networks import Outputs
from torch import Tensor
from torch.nn import functional

LABEL_WEIGHT = 0.3
"""Of each label's cross-entropy, beside 1 for the captions' loss."""

DENSE_FIRST, DENSE_LAST, DENSE_UNTIL = 2.0, 0.15, 0.6
"""Weight of the patch losses at the start, and from this share of the images on.

They teach shapes, textures and surfaces quickly; later patch tokens are left nearly free, so that
whatever a global objective makes of them can show."""

DEPTH_WEIGHT, OBJECT_WEIGHT = 0.5, 0.3


def dense_weight(share: float) -> float:
    """Return the weight of the patch losses after ``share`` of all images (a half cosine)."""
    phase = min(share / DENSE_UNTIL, 1.0)
    return DENSE_LAST + (DENSE_FIRST - DENSE_LAST) * 0.5 * (1 + math.cos(math.pi * phase))


def caption_loss(image: Tensor, text: Tensor, scale: Tensor, true: Tensor) -> Tensor:
    """InfoNCE in both directions, its target spread evenly over all true pairs.

    Args:
        image, text: unit rows [B, d].
        scale: factor of the cosines.
        true: whether caption j holds in image i, [B, B]; the diagonal is 1.
    """
    logits = scale * image @ text.T
    to_text = -(true / true.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    to_image = -(true / true.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (to_text + to_image) / 2


def losses(out: Outputs, text: Tensor, scale: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Return the three parts of the loss: ``captions``, ``labels`` and ``dense``."""
    labels = [functional.cross_entropy(out.labels[k], v) for k, v in batch.labels.items()]
    mask = -(batch.mask * out.mask.log_softmax(-1)).sum(-1).mean()
    depth = functional.smooth_l1_loss(out.depth, batch.log_depth)
    return {
        "captions": caption_loss(out.image, text, scale, batch.true),
        "labels": LABEL_WEIGHT * torch.stack(labels).sum(),
        "dense": mask
        + DEPTH_WEIGHT * depth
        + OBJECT_WEIGHT * (_asked(out.texture, batch.texture) + _asked(out.colour, batch.colour)),
    }


def _asked(logits: Tensor, target: Tensor) -> Tensor:
    flat = target.flatten()
    total = functional.cross_entropy(
        logits.flatten(0, 1), flat, ignore_index=NOT_ASKED, reduction="sum"
    )
    return total / (flat != NOT_ASKED).sum().clamp(min=1)
