"""One small file of every layout, each with the network that it was made from and its timm twin."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, cast

import open_clip
import timm
import torch
from tests.backbones.parity_comparison import randomise
from tests.backbones.plain_vit import MetaShape, chunked, meta_blocks, meta_state
from tests.backbones.transformers_files import HF
from tests.backbones.twins import (
    CLIP_TWIN,
    DEPTH,
    DINOV2_TWIN,
    GATED,
    GATED_TWIN,
    HEADS,
    HIDDEN,
    N_CLASSES,
    PATCH,
    REGISTERS,
    REGISTERS_TWIN,
    SIDE,
    SIGLIP_TWIN,
    WIDTH,
    Case,
    outputs_of,
    state_of,
    timm_blocks,
    twin,
)


def timm_case(changes: dict[str, Any]) -> Case:
    changes = {"num_classes": N_CLASSES, **changes}
    source = twin(**changes)
    randomise(source)
    return Case(
        layout="timm",
        state=state_of(source),
        build=partial(twin, **changes),
        blocks=partial(timm_blocks, source),
        head=source,
    )


def openai_case(*, part: str = "all") -> Case:
    """OpenAI's names as open_clip keeps them; ``part`` "tower" for the image tower's own file."""
    source = open_clip.CLIP(
        embed_dim=N_CLASSES,
        vision_cfg=open_clip.CLIPVisionCfg(
            layers=DEPTH, width=WIDTH, head_width=WIDTH // HEADS, mlp_ratio=HIDDEN / WIDTH,
            patch_size=PATCH, image_size=SIDE,
        ),
        text_cfg=open_clip.CLIPTextCfg(width=16, heads=2, layers=2, vocab_size=50),
        quick_gelu=True,
    ).eval()  # fmt: skip
    randomise(source)
    visual = cast(Any, source.visual)
    return Case(
        layout="OpenAI CLIP" if part == "all" else "OpenAI CLIP's image tower",
        state=state_of(source if part == "all" else visual),
        build=partial(twin, **CLIP_TWIN),
        blocks=lambda x: outputs_of(visual.transformer.resblocks, lambda: visual(x)),
        head=visual,
    )


def open_clip_case(pool: str, projection: str) -> Case:
    n_out = 0 if projection == "none" else N_CLASSES
    source = open_clip.CustomTextCLIP(
        embed_dim=N_CLASSES if n_out else 64,
        vision_cfg=open_clip.CLIPVisionCfg(
            timm_model_name="test_vit", timm_pool=pool, timm_proj=projection, image_size=160
        ),
        text_cfg=open_clip.CLIPTextCfg(width=16, heads=2, layers=2, vocab_size=50),
        init_logit_bias=-10,
    ).eval()
    randomise(source)
    visual = cast(Any, source.visual)
    create = cast(Any, timm.create_model)
    return Case(
        layout="open_clip (timm tower)",
        state=state_of(source),
        build=lambda: create("test_vit", num_classes=n_out, global_pool=pool).eval(),
        blocks=lambda x: timm_blocks(visual.trunk, x),
        head=visual,
        side=160,
    )


def meta_case(shape: MetaShape, changes: dict[str, Any], *, chunks: bool = False) -> Case:
    state = meta_state(shape)
    extra = {"mask_token": torch.randn(1, shape.width)}
    return Case(
        layout="Meta DINOv2",
        state=(chunked(state) if chunks else dict(state)) | extra,
        build=partial(twin, **changes),
        blocks=partial(meta_blocks, state, shape),
    )


def deit3_case() -> Case:
    shape = MetaShape(cls_has_position=False, scales=("gamma_1", "gamma_2"))
    state = meta_state(shape)
    head = {"head.weight": torch.randn(N_CLASSES, WIDTH), "head.bias": torch.randn(N_CLASSES)}
    changes = {"num_classes": N_CLASSES, "no_embed_class": True, **DINOV2_TWIN}
    return Case(
        layout="DeiT3",
        state=state | head,
        build=partial(twin, **changes),
        blocks=partial(meta_blocks, state, shape),
    )


_MAKERS: dict[str, Callable[[], Case]] = {
    "timm plain": lambda: timm_case({}),
    "timm registers": lambda: timm_case(REGISTERS_TWIN),
    "timm map": lambda: timm_case(SIGLIP_TWIN),
    "timm qk-norm, no qkv bias": lambda: timm_case({"qk_norm": True, "qkv_bias": False}),
    "timm mean-pooled": lambda: timm_case({"global_pool": "avg", "class_token": False}),
    "OpenAI": openai_case,
    "OpenAI tower": lambda: openai_case(part="tower"),
    "open_clip SigLIP": lambda: open_clip_case("map", "none"),
    "open_clip projected": lambda: open_clip_case("token", "linear"),
    "Meta DINOv2": lambda: meta_case(MetaShape(), DINOV2_TWIN),
    "Meta DINOv2 giant": lambda: meta_case(MetaShape(gated=True, hidden=GATED), GATED_TWIN),
    "Meta DINOv2 registers": lambda: meta_case(MetaShape(n_registers=REGISTERS), REGISTERS_TWIN),
    "Meta DINOv2 chunked": lambda: meta_case(MetaShape(), DINOV2_TWIN, chunks=True),
    "DeiT3": deit3_case,
    **{f"transformers {kind}": partial(make, kind) for kind, make in HF.items()},
}


@cache
def _made(name: str) -> Case:
    return _MAKERS[name]()


def _copied(name: str) -> Case:
    return replace(_made(name), state=dict(_made(name).state))


CASES: dict[str, Callable[[], Case]] = {name: partial(_copied, name) for name in _MAKERS}
"""Every case by its name; a call returns a state dict that may be changed."""
