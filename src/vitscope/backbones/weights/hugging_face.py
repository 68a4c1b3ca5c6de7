"""Names that transformers gives vision towers: in files of the hub (4.x) and in memory (5.x)."""

from vitscope.backbones.weights.renaming import Layout

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
