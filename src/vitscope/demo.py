"""The whole job in a minute on nothing but this package (``vitscope demo``)."""

from pathlib import Path

from vitscope.activations.sampling import ActivationSettings
from vitscope.images.generated import write_generated_images
from vitscope.images.sources import ImageSettings
from vitscope.sae.settings import SaeSettings
from vitscope.scope.awcds import AwcdsSettings
from vitscope.scope.outliers import OutlierSettings
from vitscope.study import Study

N_IMAGES = 160
IMAGE_SIDE = 160

NOTE = (
    "Demonstration: generated pictures through the planted backbone, whose true local and global "
    "atoms are known. It shows the pipeline at work, not a finding about any vision transformer."
)


def demo_study(out: Path, *, seed: int = 0) -> Study:
    """Write the demo's pictures under ``out`` and return its study."""
    pictures = out / "pictures"
    if len(list(pictures.glob("*.png"))) != N_IMAGES:  # else a rerun finds them unchanged
        write_generated_images(pictures, N_IMAGES, seed=seed, side=IMAGE_SIDE)
    return Study(
        name="demo: planted backbone",
        note=NOTE,
        seed=seed,
        images=ImageSettings(train=pictures.resolve()),
        activations=ActivationSettings(tokens_per_image=0),
        sae=SaeSettings(
            expansion=4, k=3, batch_size=512, learning_rate=1e-2, decay_share=0.5, steps=2500
        ),
        outliers=OutlierSettings(images=64),
        awcds=AwcdsSettings(bins=40),
    )
