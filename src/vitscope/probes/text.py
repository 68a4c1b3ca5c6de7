"""Towers that put sentences beside images: what zero-shot asks for, and open_clip's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vitscope.axes import Float
from vitscope.errors import ConfigError
from vitscope.probes.prompts import Prompts, open_clip_module

TEXTS_AT_ONCE = 256


class TextTower(Protocol):
    """Sentences and pooled outputs of a backbone in their common space.

    ``vitscope.backbones.reference`` has one for its own backbones.
    """

    @property
    def scale(self) -> float:
        """What cosines are multiplied by to become logits."""
        ...

    def embed(self, texts: list[str]) -> Float[Tensor, "N e"]:
        """Return unit rows of sentences."""
        ...

    def project(self, pooled: Float[Tensor, "B d"]) -> Float[Tensor, "B e"]:
        """Return unit rows of images, from the backbone's pooled output."""
        ...


@dataclass(frozen=True, eq=False)
class OpenClipTower:
    """The text side of an open_clip model, and its projection of images.

    The images come from our own backbone (the same weights); open_clip's vision tower lends only
    the projection after pooling. SigLIP has none: its pooled output is in the common space.

    Attributes:
        model: open_clip's, in evaluation mode.
        tokenize: of that model.
        name: as open_clip has it, for messages.
    """

    model: Any
    tokenize: Callable[[list[str]], Tensor]
    name: str = "of open_clip"

    @property
    def scale(self) -> float:
        """The learned inverse temperature."""
        return float(self.model.logit_scale.detach().exp())

    @torch.inference_mode()
    def embed(self, texts: list[str]) -> Float[Tensor, "N e"]:
        """Return unit rows of sentences."""
        device = self.model.logit_scale.device
        rows = [
            self.model.encode_text(self.tokenize(texts[i : i + TEXTS_AT_ONCE]).to(device))
            for i in range(0, len(texts), TEXTS_AT_ONCE)
        ]
        return normalize(torch.cat(rows).float(), dim=-1)

    @torch.inference_mode()
    def project(self, pooled: Float[Tensor, "B d"]) -> Float[Tensor, "B e"]:
        """Return unit rows of images."""
        visual = self.model.visual
        projection = getattr(visual, "proj", None)
        if projection is not None:  # CLIP's own tower
            projected = pooled @ projection.to(pooled.dtype)
        else:  # a timm tower keeps what follows the pooling in ``head``
            projected = cast(Any, getattr(visual, "head", torch.nn.Identity()))(pooled)
        return normalize(projected.float(), dim=-1)


def load_open_clip(name: str, pretrained: str | None, device: torch.device) -> OpenClipTower:
    """Load a text tower, such as ``ViT-B-16-quickgelu`` with ``openai``.

    Raises:
        ConfigError: open_clip is not installed, or has no such model or weights.
    """
    open_clip = open_clip_module()
    try:
        model = open_clip.create_model(name, pretrained=pretrained, device=device)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # anything from an unknown name to a hub out of reach
        raise ConfigError(
            f"open_clip cannot load '{name}' with weights '{pretrained}': {error}; "
            "`open_clip.list_pretrained()` lists what it has"
        ) from None
    weights = f" ({pretrained})" if pretrained else ""
    return OpenClipTower(model.eval(), tokenizer, f"'{name}'{weights}")


def class_embeddings(tower: TextTower, prompts: Prompts) -> Float[Tensor, "C e"]:
    """Return one unit row per class: the mean over templates of unit rows, made unit again."""
    rows = [tower.embed(prompts.sentences(label)).mean(0) for label in range(len(prompts.classes))]
    return normalize(torch.stack(rows), dim=-1)
