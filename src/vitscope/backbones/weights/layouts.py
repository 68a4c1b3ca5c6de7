"""How published checkpoints name the parts of an image tower, and the way of each to timm's names.

timm's own ``checkpoint_filter_fn`` knows some of these layouts. It is not used here: it drops
names that it does not know and resizes embeddings without a word, where nothing may be lost
unnoticed. The tests compare the two.
"""

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitscope.backbones.weights.reading import some_of
from vitscope.errors import BackboneError

State = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """One way of naming the weights of a vision transformer.

    Attributes:
        name: for people, and for :class:`LoadedWeights`.
        marks: pattern of names by which a file is known to be of this layout, even with parts
            missing; its group ``tower`` is what stands before all names of the image tower.
        renames: (pattern, replacement), first match wins: names below the tower to timm's, or to
            the parts that :func:`assembled` puts together.
        beside: the same for names outside the tower: the classifier or projection.
        passengers: pattern of whole names that may ride along and are left: text tower,
            temperature, mask token, training heads.
        cls_has_position: the first position embedding is that of CLS even beside registers.
    """

    name: str
    marks: str
    renames: tuple[tuple[str, str], ...]
    passengers: str
    beside: tuple[tuple[str, str], ...] = ()
    cls_has_position: bool = False

    def tower_in(self, state: State) -> str | None:
        """Return the prefix of the image tower, None where the file is not of this layout."""
        marks = re.compile(self.marks)
        for name in state:
            if found := marks.fullmatch(name):
                return found["tower"]
        return None

    def renamed(self, state: State) -> State:
        """Return the image tower under new names; ``state`` is emptied, so nothing is held twice.

        Raises:
            BackboneError: a name that this layout does not have, or has twice.
        """
        tower = self.tower_in(state)
        assert tower is not None, "not a file of this layout"
        inside = [(re.escape(tower) + pattern, new) for pattern, new in self.renames]
        rules = [(re.compile(pattern), new) for pattern, new in (*inside, *self.beside)]
        passengers = re.compile(self.passengers)
        out: State = {}
        strangers: list[str] = []
        for name in list(state):
            value = state.pop(name)
            if passengers.fullmatch(name):
                continue
            matches = ((pattern.fullmatch(name), new) for pattern, new in rules)
            new = next((found.expand(new) for found, new in matches if found), None)
            if new is None or new in out:
                strangers.append(name)
            else:
                out[new] = value
        if strangers:
            raise BackboneError(f"unexpected: {some_of(strangers)}")
        return out


_AS_IT_IS = (r"(.*)", r"\1")
_LANGUAGE = r"text\..*|logit_scale|logit_bias"
_SELF_DISTILLATION = r"(?:backbone\.)?mask_token|(?:dino|ibot)_head\..*"

TIMM = Layout(
    name="timm",
    marks=r"(?P<tower>)(?:patch_embed\.proj\.weight|blocks\.\d+\.(?:norm1|attn\.qkv)\.weight)",
    renames=(_AS_IT_IS,),
    passengers=r"pre_logits\..*",
)

OPEN_CLIP_TIMM = Layout(
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
OPENAI_TOWER = replace(
    OPENAI,
    name="OpenAI CLIP's image tower",
    marks=r"(?P<tower>)(?:class_embedding|ln_pre\.\w+)",
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

# transformers: files of the hub have the names of 4.x, models in memory those of 5.x
_CLIP_BLOCKS = (
    (r"encoder\.layers\.(\d+)\.layer_norm([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.(\d+)\.mlp\.fc([12])\.(\w+)", r"blocks.\1.mlp.fc\2.\3"),
    (r"embeddings\.patch_embedding\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"embeddings\.position_embedding\.weight", r"pos_embed"),
    (r"post_layernorm\.(\w+)", r"norm.\1"),
)
_TEXT = (
    r"text_model\..*|text_projection\..*|logit_scale|logit_bias"
    r"|(?:vision_model\.)?embeddings\.position_ids|classifier\..*"
)

HF_CLIP = Layout(
    name="Hugging Face CLIP",
    marks=r"(?P<tower>(?:vision_model\.)?)(?:embeddings\.class_embedding|pre_layrnorm\.\w+)",
    renames=(
        (r"embeddings\.class_embedding", r"cls_token"),
        (r"pre_layrnorm\.(\w+)", r"norm_pre.\1"),  # misspelt so in every released file
        *_CLIP_BLOCKS,
    ),
    beside=((r"visual_projection\.weight", r"head.projection"),),
    passengers=_TEXT,
)

HF_SIGLIP = Layout(
    name="Hugging Face SigLIP",
    marks=r"(?P<tower>(?:vision_model\.)?)"
    r"(?:embeddings\.patch_embedding\.bias|head\.probe|head\.attention\.in_proj_weight)",
    renames=(
        (r"head\.probe", r"attn_pool.latent"),
        (r"head\.attention\.in_proj_(weight|bias)", r"attn_pool.in_proj.\1"),
        (r"head\.attention\.out_proj\.(\w+)", r"attn_pool.proj.\1"),
        (r"head\.layernorm\.(\w+)", r"attn_pool.norm.\1"),
        (r"head\.mlp\.fc([12])\.(\w+)", r"attn_pool.mlp.fc\1.\2"),
        *_CLIP_BLOCKS,
    ),
    passengers=_TEXT,
)

_LAYER = r"(?:encoder\.layer|layers)\.(\d+)"
_VIT_BLOCKS = (
    (r"embeddings\.cls_token", r"cls_token"),
    (r"embeddings\.register_tokens", r"reg_token"),
    (r"embeddings\.position_embeddings", r"pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    # query, key and value of 4.x, q_proj, k_proj and v_proj of 5.x
    (_LAYER + r"\.attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.(\w+)",
     r"blocks.\1.attn.\2.\3"),
    (_LAYER + r"\.attention\.(?:output\.dense|o_proj)\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"\.mlp\.fc([12])\.(\w+)", r"blocks.\1.mlp.fc\2.\3"),
    (r"layernorm\.(\w+)", r"norm.\1"),
)  # fmt: skip

HF_DINOV2 = Layout(
    name="Hugging Face DINOv2",
    marks=r"(?P<tower>(?:dinov2\.|dinov2_with_registers\.)?)" + _LAYER + r"\.layer_scale[12]\..*",
    renames=(
        (_LAYER + r"\.norm([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
        (_LAYER + r"\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
        (_LAYER + r"\.mlp\.weights_in\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
        (_LAYER + r"\.mlp\.(?:weights_out|down_proj)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
        (_LAYER + r"\.mlp\.(gate|up)_proj\.(\w+)", r"blocks.\1.mlp.\2.\3"),
        *_VIT_BLOCKS,
    ),
    # the classifier of DINOv2 reads the CLS token beside the mean patch: no part of the backbone
    passengers=r"(?:\w+\.)?embeddings\.mask_token|classifier\..*",
    cls_has_position=True,
)

HF_VIT = Layout(
    name="Hugging Face ViT",
    marks=r"(?P<tower>(?:vit\.|deit\.)?)" + _LAYER + r"\.layernorm_(?:before|after)\..*",
    renames=(
        (_LAYER + r"\.layernorm_before\.(\w+)", r"blocks.\1.norm1.\2"),
        (_LAYER + r"\.layernorm_after\.(\w+)", r"blocks.\1.norm2.\2"),
        (_LAYER + r"\.intermediate\.dense\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
        (_LAYER + r"\.output\.dense\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
        *_VIT_BLOCKS,
    ),
    beside=((r"classifier\.(\w+)", r"head.\1"),),
    passengers=r"(?:\w+\.)?embeddings\.mask_token|(?:\w+\.)?pooler\.dense\..*",
)

LAYOUTS = (
    *(OPENAI, OPENAI_TOWER, OPEN_CLIP_TIMM, META_DINOV2, DEIT3, TIMM),
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


MERGED = (
    (re.compile(r"(blocks\.\d+\.attn\.)q\.(weight|bias)"), ("q", "k", "v"), "qkv"),
    # the gate comes first in timm's SwiGLUPacked, as in Meta's w12
    (re.compile(r"(blocks\.\d+\.mlp\.)gate\.(weight|bias)"), ("gate", "up"), "fc1"),
)


def assembled(state: State, *, fold_cls_position: bool) -> State:
    """Merge, split, transpose and reshape in place what :class:`Layout` could only rename.

    What lacks its other parts stays as it is: it is found missing, and named, later.

    Args:
        state: as :meth:`Layout.renamed` returns it.
        fold_cls_position: where there are registers, add the position of CLS to CLS itself.
    """
    for first in list(state):
        for pattern, parts, whole in MERGED:
            if found := pattern.fullmatch(first):
                names = [f"{found[1]}{part}.{found[2]}" for part in parts]
                _merge(state, names, f"{found[1]}{whole}.{found[2]}")
    _split_pooling(state)
    _place_projection(state)
    for name, n_dims in (("cls_token", 3), ("pos_embed", 3)):
        value = state.get(name)
        if value is not None and value.ndim < n_dims:
            state[name] = value[(None,) * (n_dims - value.ndim)]
    if fold_cls_position:
        _fold_cls_position(state)
    return state


def _merge(state: State, names: list[str], whole: str) -> None:
    found = [state[name] for name in names if name in state]
    if len(found) == len(names) and len({part.shape for part in found}) == 1 and found[0].ndim:
        state[whole] = torch.cat(found)
        for name in names:
            del state[name]


def _split_pooling(state: State) -> None:
    """Split the joint projection of attention pooling into its query and its keys and values.

    ``in_proj`` [3d, d] stacks query, key and value; timm has q [d, d] and kv [2d, d].
    """
    for kind in ("weight", "bias"):
        joint = state.get(f"attn_pool.in_proj.{kind}")
        if joint is not None and joint.ndim and len(joint) % 3 == 0:
            width = len(joint) // 3
            # copies: a view would keep the whole matrix in memory
            state[f"attn_pool.q.{kind}"] = joint[:width].clone()
            state[f"attn_pool.kv.{kind}"] = joint[width:].clone()
            del state[f"attn_pool.in_proj.{kind}"]


def _place_projection(state: State) -> None:
    """Make timm's head of CLIP's projection, which has no bias and may be stored transposed."""
    for name in ("head.projection", "head.projection_t"):
        if name in state and state[name].ndim == 2:
            projection = state.pop(name)
            projection = projection.T.contiguous() if name.endswith("_t") else projection
            state["head.weight"] = projection
            state["head.bias"] = torch.zeros(len(projection))


def _fold_cls_position(state: State) -> None:
    """Add the position of CLS to CLS, so that the rest are the patches' alone."""
    cls, positions = state.get("cls_token"), state.get("pos_embed")
    if "reg_token" not in state or cls is None or positions is None:
        return
    if cls.shape == positions[:, :1].shape:
        state["cls_token"] = cls + positions[:, :1]
        state["pos_embed"] = positions[:, 1:]
