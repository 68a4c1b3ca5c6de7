"""The SAEs that come with the package, one for each embedded backbone."""

from pathlib import Path

from vitscope.errors import SaeError

SHIPPED = Path("shipped")
"""What a study writes as ``sae.path`` for the SAE of its embedded backbone."""

_OF_BACKBONE = {
    "scenes-vit": "scenes-vit",
    "scenes-vit-s": "scenes-vit",
    "scenes-vit-untrained": "scenes-vit-untrained",
}


def shipped_sae(backbone: str) -> Path:
    """Return the folder of the SAE that was trained on an embedded backbone's tokens.

    Raises:
        SaeError: none comes with the package for it.
    """
    if backbone not in _OF_BACKBONE:
        raise SaeError(
            f"no SAE for '{backbone}' comes with the package, only for "
            f"{', '.join(_OF_BACKBONE)}; give a folder, or leave sae.path out to train one"
        )
    return Path(__file__).with_name("reference") / _OF_BACKBONE[backbone]
