"""Every layout that can be loaded, how to tell them apart, and the way of each to timm's names."""

from vitscope.backbones.weights.assembly import assembled
from vitscope.backbones.weights.hugging_face import HF_CLIP, HF_DINOV2, HF_SIGLIP, HF_VIT
from vitscope.backbones.weights.renaming import Layout, State, some_of
from vitscope.errors import BackboneError

_AS_IT_IS = (r"(.*)", r"\1")
_LANGUAGE = r"text\..*|logit_scale|logit_bias"
_SELF_DISTILLATION = r"(?:backbone\.)?mask_token|(?:dino|ibot)_head\..*"

TIMM = Layout(
    name="timm",
    marks=r"(?P<tower>)(?:patch_embed\.proj\.weight|blocks\.\d+\.(?:norm1|attn\.qkv)\.weight)",
    renames=(_AS_IT_IS,),
    passengers=r"pre_logits\..*",
)

OPEN_CLIP = Layout(
    name="open_clip (timm tower)",
    marks=r"(?P<tower>visual\.trunk\.)(?:patch_embed\.proj\.weight|blocks\.\d+\.norm1\.weight)",
    renames=(_AS_IT_IS,),
    beside=((r"visual\.head\.proj\.weight", r"head.projection"),),
    passengers=_LANGUAGE,
)

_OPENAI_TOWER = (
    (r"class_embedding", r"cls_token"),
    (r"positional_embedding", r"pos_embed"),
    (r"conv1\.weight", r"patch_embed.proj.weight"),
    (r"ln_pre\.(\w+)", r"norm_pre.\1"),
    (r"ln_post\.(\w+)", r"norm.\1"),
    (r"proj", r"head.projection_t"),
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"transformer\.resblocks\.(\d+)\.ls_([12])\.gamma", r"blocks.\1.ls\2.gamma"),
)

OPENAI = Layout(
    name="OpenAI CLIP",
    marks=r"(?P<tower>visual\.)(?:class_embedding|ln_pre\.\w+|transformer\.resblocks\..*)",
    renames=_OPENAI_TOWER,
    passengers=_LANGUAGE + r"|transformer\..*|token_embedding\.weight|positional_embedding"
    r"|ln_final\.\w+|text_projection(?:\.\w+)?|attn_mask|input_resolution|context_length|vocab_size",
)

# a bare `transformer.resblocks` alone is a text tower
OPENAI_TOWER = Layout(
    name="OpenAI CLIP's image tower",
    marks=r"(?P<tower>)(?:class_embedding|ln_pre\.\w+)",
    renames=_OPENAI_TOWER,
    passengers="",
)

META_DINOV2 = Layout(
    name="Meta DINOv2",
    marks=r"(?P<tower>(?:backbone\.)?)"
    r"(?:mask_token|register_tokens|blocks\.\d+\.mlp\.w12\..*|blocks\.\d+\.\d+\..*)",
    renames=(
        # blocks may be kept in chunks; a block's number within its chunk counts from the first
        (r"blocks\.(?:\d+\.)?(\d+)\.mlp\.w12\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
        (r"blocks\.(?:\d+\.)?(\d+)\.mlp\.w3\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
        (r"blocks\.(?:\d+\.)?(\d+)\.(.*)", r"blocks.\1.\2"),
        (r"register_tokens", r"reg_token"),
        _AS_IT_IS,
    ),
    passengers=_SELF_DISTILLATION,
    cls_has_position=True,
)

DEIT3 = Layout(
    name="DeiT3",
    marks=r"(?P<tower>)blocks\.\d+\.gamma_[12]",
    renames=((r"blocks\.(\d+)\.gamma_([12])", r"blocks.\1.ls\2.gamma"), _AS_IT_IS),
    passengers=r"pre_logits\..*",
)

LAYOUTS = (
    *(OPENAI, OPENAI_TOWER, OPEN_CLIP, META_DINOV2, DEIT3, TIMM),
    *(HF_CLIP, HF_DINOV2, HF_VIT, HF_SIGLIP),
)
"""In the order in which they are tried: timm's names are a part of others' names."""


def layout_of(state: State) -> Layout:
    """Tell a state dict's layout by its names.

    Raises:
        BackboneError: none that is known, naming some of its names and the layouts.
    """
    for layout in LAYOUTS:
        if layout.tower_in(state) is not None:
            return layout
    if any(name.endswith("token_embedding.weight") for name in state):
        raise BackboneError("it holds a text tower and no image tower")
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise BackboneError(
        f"its names are of no known layout: {some_of(set(state))}; known are {known}"
    )


def to_timm(state: State) -> State:
    """Return the image tower under timm's names; ``state`` is emptied on the way.

    Nothing is resampled. The head of a CLIP is its projection, with a zero bias.

    Raises:
        BackboneError: an unknown layout, or names that its layout does not have.
    """
    layout = layout_of(state)
    if layout is HF_SIGLIP:
        _refuse_flexible(state)
    # timm gives positions to patches alone where there are registers, DINOv2 to CLS too
    return assembled(layout.renamed(state), fold_cls_position=layout.cls_has_position)


def _refuse_flexible(state: State) -> None:
    for name, value in state.items():
        if name.endswith("embeddings.patch_embedding.weight") and value.ndim == 2:
            raise BackboneError(
                "it is a NaFlex SigLIP2, which takes images of any aspect; give the weights of a "
                "fixed resolution"
            )
