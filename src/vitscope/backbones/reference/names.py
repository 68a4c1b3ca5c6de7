"""What the reference backbones are called, and which of them come with the package."""

DEFAULT = "scenes-vit"
UNTRAINED = "scenes-vit-untrained"
SIZES = ("scenes-vit-t", "scenes-vit-xs", "scenes-vit-s")
"""The sizes that come with the package, the smallest first."""

SHIPPED = {DEFAULT: SIZES[-1], UNTRAINED: SIZES[-1], **{name: name for name in SIZES}}
"""Name -> the file that comes with the package; the untrained copy takes its sizes alone."""

OTHER_SIZES = ("scenes-vit-m", "scenes-vit-l")
REFERENCES = (*SHIPPED, *OTHER_SIZES)
