"""What is trained on which tokens, and how the heads' hyper-parameters are searched."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from vitscope.images.nyud import DepthUnit
from vitscope.settings import Settings

Norm = Literal["none", "layer", "batch"]
ReadAt = Literal["designated", "final"]
ImageToken = Literal["pooled", "mean", "none"]
DepthCrop = Literal["whole", "eigen"]
Task = Literal["classification", "segmentation", "depth"]
CacheType = Literal["float16", "float32"]
Search = Literal["log", "linear"]
PromptSet = Literal["imagenet", "scenes"]

Range = tuple[float, float]


class HeadSettings(Settings):
    """How the heads of one task are trained; its subclasses have the task's own defaults."""

    train: Path | None = None
    """What heads learn from: rendered scenes, ``scenes:N?seed=S&side=PIXELS``, or the root of the
    task's data set, whose training split is taken. None: the task is not run."""

    validation: Path | None = None
    """What they are scored on: other scenes, or another root, whose validation split is taken.
    None takes that of ``train``, which scenes do not have."""

    train_limit: int | None = Field(default=None, ge=1)
    """At most so many training images, evenly spread over their order."""

    validation_limit: int | None = Field(default=None, ge=1)
    """At most so many validation images, evenly spread over their order."""

    probe_at: ReadAt = "designated"
    """Tokens of the designated block, or of the last one after removal at the designated block."""

    norm: Norm = "none"
    """What comes before the linear layer: nothing, a norm over each token, or batch norm; both
    norms have learned gains and shifts."""

    batch_size: int = Field(default=1024, ge=1)
    """Images per step."""

    learning_rate: Range = (1e-3, 1e-2)
    """Between what the learning rate is drawn."""

    weight_decay: Range = (1e-5, 1e-4)
    """Between what the weight decay is drawn."""

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> Self:
        for name in ("learning_rate", "weight_decay"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} = [{low}, {high}] must be positive and ascending")
        return self


class ClassificationSettings(HeadSettings):
    """Mean over patch tokens, then a linear layer; of ImageNet's layout, or scenes."""

    label: str = "place"
    """Which label of scenes; ImageNet has one."""


class SegmentationSettings(HeadSettings):
    """A linear layer on every patch token, its logits upsampled; of ADE20K, or scenes."""

    norm: Norm = "batch"
    """As for every task; batch norm follows DINOv2's linear segmentation."""

    batch_size: int = Field(default=64, ge=1)
    """Images per step."""

    pixels: int | None = Field(default=None, ge=1)
    """Side at which masks are compared; None is the input's."""


class DepthSettings(HeadSettings):
    """Patch tokens beside the image's own token, to depth as a mean over bins; NYUd, or scenes."""

    probe_at: ReadAt = "final"
    """As for every task; the paper reads depth from the last block."""

    batch_size: int = Field(default=8, ge=1)
    """Images per step."""

    learning_rate: Range = (1e-1, 1.0)
    """Between what the learning rate is drawn."""

    pixels: int | None = Field(default=None, ge=1)
    """Side at which depths are compared; None is the input's."""

    image_token: ImageToken = "pooled"
    """Set beside every patch token, of the unmodified pass: the pooled output (CLS, or SigLIP's
    attention pooling), the mean of the patch tokens, or nothing."""

    bins: int = Field(default=256, ge=2)
    """Uniform depth bins."""

    depth_range: Range = (1e-3, 10.0)
    """Metres between which the bins lie; pixels beyond are left out of loss and error."""

    loss_lambda: float = Field(default=0.5, ge=0, le=1)
    """λ of the scale-invariant loss: 0 is a plain squared log error, 1 forgives any scale."""

    crop: DepthCrop = "whole"
    """Pixels that count in the error: the whole map, or Eigen's crop of it."""

    splits: Path | None = None
    """NYUd's ``splits.mat``, where ``train`` is its ``.mat``; None looks beside it."""

    unit: DepthUnit = "millimetres"
    """Of depth files in folders; the ``.mat`` and scenes are in metres."""

    @model_validator(mode="after")
    def _range_holds_depths(self) -> Self:
        if not 0 < self.depth_range[0] < self.depth_range[1]:
            raise ValueError(f"depth_range = {list(self.depth_range)} must be positive, ascending")
        return self


class ZeroShotSettings(Settings):
    """Predictions by text, with and without groups of features."""

    images: Path | None = None
    """Labelled images: scenes, or ImageNet's root, whose validation split is taken. None:
    zero-shot is not run."""

    limit: int | None = Field(default=None, ge=1)
    """At most so many of them, evenly spread over their order."""

    prompts: PromptSet | Path | None = None
    """A TOML file with ``classes`` and ``templates``, or ``imagenet`` or ``scenes``, which are
    built in; None takes the built-in ones of the images."""

    tower: str | None = None
    """open_clip's name of the model whose text tower is used; None takes the backbone's own."""

    tower_weights: str | None = None
    """open_clip's tag of its weights, or a file; None takes the release's."""

    bins: int = Field(default=15, ge=1)
    """Of the reliability diagram, behind the expected calibration error."""


class ProbeSettings(Settings):
    """Linear probes and zero-shot on tokens with and without groups of features."""

    epochs: int = Field(default=100, ge=1)
    """Passes over the training images."""

    trials: int = Field(default=5, ge=1)
    """Draws of learning rate and weight decay per variant; the best on validation is reported."""

    seeds: int = Field(default=1, ge=1)
    """Whole searches, each with draws and first weights of its own: for intervals."""

    search: Search = "log"
    """Whether rates are drawn evenly on a logarithmic or on a linear axis."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of SGD."""

    memory_mb: int = Field(default=2048, ge=64)
    """Bound on the largest working arrays of a step, and on features kept in memory."""

    cache: CacheType = "float16"
    """Type of features on disk."""

    keep_features: bool = False
    """Whether features stay on disk, below ``probe_features``, when the probes are done."""

    keep_error: bool = True
    """Whether the SAE's reconstruction error stays in the tokens."""

    n_controls: int = Field(default=3, ge=0)
    """Random groups drawn to match each of the two groups; those that match are removed too."""

    classification: ClassificationSettings = ClassificationSettings()
    segmentation: SegmentationSettings = SegmentationSettings()
    depth: DepthSettings = DepthSettings()
    zeroshot: ZeroShotSettings = ZeroShotSettings()

    def heads(self) -> dict[Task, HeadSettings]:
        """Return the settings of the tasks that are run, in order."""
        every: dict[Task, HeadSettings] = {
            "classification": self.classification,
            "segmentation": self.segmentation,
            "depth": self.depth,
        }
        return {task: head for task, head in every.items() if head.train is not None}
