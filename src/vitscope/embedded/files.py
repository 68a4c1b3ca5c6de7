"""The small networks that come with the package: what they are called, and where their files lie.

Vision transformers trained on rendered scenes (``backbones/NAME.safetensors``, docs/scenes.md), and
SAEs (``saes/NAME/``, a folder as ``vitscope.load_sae`` takes it): of two of them, and of
``focus-s``, whose own weights are fetched (docs/backbones.md).
"""

from pathlib import Path

from vitscope.errors import SaeError

_FOLDER = Path(__file__).parent

SCENES_VIT = "scenes-vit"
SCENES_VIT_UNTRAINED = "scenes-vit-untrained"
"""The default backbone, which is the largest size that comes with the package, and its copy before
training."""

SCENES_VIT_SIZES = ("scenes-vit-t", "scenes-vit-xs", "scenes-vit-s")
"""The sizes that come with the package, the smallest first."""

SCENES_VIT_OTHER_SIZES = ("scenes-vit-m", "scenes-vit-l")
"""Larger ones, to be trained by ``training/scenes_vit.py``."""

WEIGHT_FILES = {
    name: _FOLDER / "backbones" / f"{size}.safetensors"
    for name, size in [
        (SCENES_VIT, SCENES_VIT_SIZES[-1]),
        (SCENES_VIT_UNTRAINED, SCENES_VIT_SIZES[-1]),
        *((size, size) for size in SCENES_VIT_SIZES),
    ]
}
"""Backbone -> the file that comes with the package; the untrained copy takes its sizes alone."""

REFERENCE_BACKBONES = (*WEIGHT_FILES, *SCENES_VIT_OTHER_SIZES)
"""All names of backbones that are trained on scenes."""

SHIPPED = Path("shipped")
"""What a study writes as ``sae.path`` for the SAE that comes with its backbone."""

_SAE_OF = {
    SCENES_VIT: "scenes-vit",
    SCENES_VIT_SIZES[-1]: "scenes-vit",
    SCENES_VIT_UNTRAINED: "scenes-vit-untrained",
    "focus-s": "focus-s",
}
"""Backbone -> folder of its SAE."""


def shipped_sae(backbone: str) -> Path:
    """Return the folder of the SAE that comes with the package for a backbone.

    Raises:
        SaeError: none comes with the package for it.
    """
    if backbone not in _SAE_OF:
        raise SaeError(
            f"no SAE for '{backbone}' comes with the package, only for "
            f"{', '.join(_SAE_OF)}; give a folder, or leave sae.path out to train one"
        )
    return _FOLDER / "saes" / _SAE_OF[backbone]
