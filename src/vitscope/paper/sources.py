"""Where a reproduction's images lie, and how many of them are taken."""

from dataclasses import dataclass
from pathlib import Path

from vitscope.probes.settings import Task


@dataclass(frozen=True)
class Sources:
    """Data sets by their usual names below one folder, or images of one's own.

    Attributes:
        root: folder that holds ``imagenet/``, ``ADEChallengeData2016/`` and ``nyud/``.
        images: other images than ImageNet, for training and scoring alike.
        weights: a local checkpoint of the model.
        sae: an SAE brought along; None trains one.
        limit: at most so many images to train on, and as many to score.
    """

    root: Path = Path("data")
    images: Path | None = None
    weights: Path | None = None
    sae: Path | None = None
    limit: int | None = None

    @property
    def imagenet(self) -> Path:
        """Root of ImageNet-1K, with ``train`` and ``val``."""
        return self.root / "imagenet"

    def of_task(self, task: Task) -> Path:
        """Return the root of the data set of a probe."""
        names: dict[Task, str] = {
            "classification": "imagenet",
            "segmentation": "ADEChallengeData2016",
            "depth": "nyud/nyu_depth_v2_labeled.mat",
        }
        return self.root / names[task]


SIDES = {"planted": 120, "scenes-vit-m": 120, "scenes-vit-l": 120}
SCENES_SIDE = 88
"""Pixels a side: one patch more than the model's input, so that every view is cut unscaled."""


def side_of(model: str) -> int:
    """Return the side at which scenes are rendered for an embedded model."""
    return SIDES.get(model, SCENES_SIDE)


def scenes(n: int, seed: int, side: int) -> Path:
    """Return the address of ``n`` rendered scenes."""
    return Path(f"scenes:{n}?seed={seed}&side={side}")
