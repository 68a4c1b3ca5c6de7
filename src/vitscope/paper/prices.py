"""What a study costs, before it is run: sums of operations, bytes and distances."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitscope.backbones.planted.spec import PlantedSpec
from vitscope.backbones.zoo import ZOO
from vitscope.errors import ConfigError, VitscopeError
from vitscope.images.sources import is_scene_set, open_image_set
from vitscope.probes.settings import Task
from vitscope.study import Study

IMAGENET_SIZES = (1_281_167, 50_000)
PUBLISHED_SIZES: dict[Task, tuple[int, int]] = {
    "classification": IMAGENET_SIZES,
    "segmentation": (20_210, 2_000),
    "depth": (795, 654),
}
"""Training and validation images of ImageNet-1K, ADE20K and NYUd."""

EMBEDDED_SIZES = {
    "scenes-vit": (80, 8, 128, 8, 7),
    "scenes-vit-untrained": (80, 8, 128, 8, 7),
    "scenes-vit-t": (80, 8, 64, 4, 3),
    "scenes-vit-xs": (80, 8, 96, 6, 5),
    "scenes-vit-s": (80, 8, 128, 8, 7),
    "scenes-vit-m": (112, 8, 192, 12, 11),
    "scenes-vit-l": (112, 8, 256, 12, 11),
}
"""Resolution, patch, width, depth, layer."""

FLOAT_BYTES, HALF_BYTES = 4, 2
HEAD_WIDTH = 64
"""Of every attention head in the zoo but so400m's, whose 72 changes no figure here by much."""

N_VARIANTS = 3
"""Tokens as they are, and without either group; matched controls are variants too."""

N_OUTPUTS = {"classification": 1000, "segmentation": 150}
"""Classes that probes tell apart; depth has its bins."""

TRAINED_COPIES = 4
"""Of the SAE's weights while it trains: themselves, gradients, and two moments of Adam."""

LIVE_ARRAYS = 12
"""Arrays of a token's width that a block holds at once: residual, queries to values, MLP."""


@dataclass(frozen=True)
class Machine:
    """What is assumed of the machine; every figure scales with these.

    Attributes:
        tflops: sustained in fp32: an A100 reaches 60 % of its 19.5 in large products.
        decoded_per_s: photographs decoded and resized a second and core.
        sparse_emd_us: one distance of a feature's two maps on one core (docs/benchmarks.md).
        dense_emd_us: one distance of two attention maps on one core (the same, 15 × 15).
        cores: of the processor beside a GPU.
    """

    tflops: float = 12.0
    decoded_per_s: float = 100.0
    sparse_emd_us: float = 4.0
    dense_emd_us: float = 109.0
    cores: int = 16

    def describe(self) -> str:
        """Return the assumptions in a sentence."""
        return (
            f"Sums, not measurements: {self.tflops:g} TFLOP/s sustained a GPU, {self.cores} cores "
            f"each, {self.decoded_per_s:g} photographs decoded a second and core, distances of "
            f"{self.sparse_emd_us:g} µs (features) and {self.dense_emd_us:g} µs (attention) "
            "on a core."
        )


@dataclass(frozen=True)
class Shape:
    """The sizes of a vision transformer that decide what a pass costs.

    Attributes:
        width: d.
        depth: blocks.
        layer: the designated one, from 1.
        grid: p, patches a side.
    """

    width: int
    depth: int
    layer: int
    grid: int

    @property
    def patches(self) -> int:
        """Patch tokens an image."""
        return self.grid**2

    @property
    def block_parameters(self) -> int:
        """Of one block: 4·d² of attention, 8·d² of the MLP."""
        return 12 * self.width**2

    def pass_flops(self, blocks: int) -> float:
        """Return the operations of one image through so many blocks.

        Two a weight and token, and 4·T²·d of attention; the CLS token and the patch embedding,
        less than a hundredth, are left out.
        """
        per_token = 2 * self.block_parameters + 4 * self.patches * self.width
        return float(blocks) * self.patches * per_token


def shape_of(study: Study) -> Shape:
    """Return the sizes of the study's backbone, without building it.

    Raises:
        ConfigError: it is neither in the zoo nor embedded.
    """
    settings = study.backbone
    if settings.name == "planted":
        spec = PlantedSpec()
        return Shape(spec.width, 0, 0, spec.grid)  # no blocks: tokens are read off the pixels
    if settings.name in ZOO:
        entry = ZOO[settings.name]
        sizes = (entry.resolution, entry.patch, entry.width, entry.depth, entry.layer)
    elif settings.name in EMBEDDED_SIZES:
        sizes = EMBEDDED_SIZES[settings.name]
    else:
        raise ConfigError(f"nothing is known of the sizes of '{settings.name}'; it has no price")
    resolution, patch, width, depth, layer = sizes
    if isinstance(settings.layer, int):
        layer = settings.layer if settings.layer > 0 else depth + 1 + settings.layer
    elif settings.layer == "penultimate":
        layer = depth - 1
    return Shape(width, depth, layer, (settings.resolution or resolution) // patch)


@dataclass(frozen=True)
class ImageCounts:
    """How many images each part of a study reads.

    Attributes:
        train: for the SAE.
        eval: scored.
        tasks: probe -> training and validation images.
        assumed: what was not at hand, so that the data set's published number stands in.
    """

    train: int
    eval: int
    tasks: Mapping[Task, tuple[int, int]]
    assumed: tuple[str, ...]


def count_images(study: Study, *, look: bool = True) -> ImageCounts:
    """Count what a study reads; nothing is decoded.

    Args:
        study: its settings.
        look: whether images at hand are counted; else the published sizes stand for all.
    """
    assumed: list[str] = []

    def count(path: Path, published: int, limit: int | None, task: str = "") -> int:
        # a labelled set holds other files than its images: of these, only scenes are counted
        n = _count(path) if look and (not task or is_scene_set(path)) else None
        if n is None:
            assumed.append(f"{path} ({task})" if task else str(path))
            n = published
        return min(n, limit or n)

    images, tasks = study.images, dict[Task, tuple[int, int]]()
    train = count(images.train, IMAGENET_SIZES[images.eval is None], images.train_limit)
    scored = train
    if images.eval is not None:
        scored = count(images.eval, IMAGENET_SIZES[1], images.eval_limit)
    for task, head in study.probes.heads().items():
        assert head.train is not None
        n_train, n_validation = PUBLISHED_SIZES[task]
        tasks[task] = (
            count(head.train, n_train, head.train_limit, task),
            count(head.validation or head.train, n_validation, head.validation_limit, task),
        )
    return ImageCounts(train, scored, tasks, tuple(assumed))


def _count(path: Path) -> int | None:
    try:
        return len(open_image_set(path))
    except VitscopeError:
        return None


@dataclass(frozen=True)
class StageCost:
    """One stage.

    Attributes:
        flops: on the accelerator.
        core_seconds: on the processor.
        disk: bytes left or cached.
    """

    flops: float = 0.0
    core_seconds: float = 0.0
    disk: float = 0.0


@dataclass(frozen=True)
class Price:
    """A study's cost.

    Attributes:
        stages: each with its cost, in the order of the pipeline.
        memory: bytes on the accelerator at the fullest moment.
        counts: images behind it.
        machine: what it was reckoned for.
    """

    stages: Mapping[str, StageCost]
    memory: float
    counts: ImageCounts
    machine: Machine

    def hours(self, n_gpus: int = 1) -> float:
        """Return hours with so many GPUs: in each stage the slower of both kinds of work."""
        rate, cores = self.machine.tflops * 1e12, self.machine.cores
        seconds = (max(s.flops / rate, s.core_seconds / cores) for s in self.stages.values())
        return sum(seconds) / n_gpus / 3600

    @property
    def disk(self) -> float:
        """Bytes of all stages together."""
        return sum(stage.disk for stage in self.stages.values())


def price_study(
    study: Study,
    stages: Sequence[str],
    machine: Machine | None = None,
    counts: ImageCounts | None = None,
) -> Price:
    """Return what the stages of a study cost together.

    Args:
        study: its settings.
        stages: those that are run.
        machine: what is assumed of it.
        counts: images; by default those at hand.

    Raises:
        ConfigError: nothing is known of the backbone's sizes.
    """
    machine, shape = machine or Machine(), shape_of(study)
    counts = counts or count_images(study)
    costs = _costs(study, shape, counts, machine)
    costs["probe"] = _probes(study, shape, counts, machine)
    known = {name: cost for name, cost in costs.items() if name in stages}
    return Price(known, _memory(study, shape, stages), counts, machine)


def _costs(
    study: Study, shape: Shape, counts: ImageCounts, machine: Machine
) -> dict[str, StageCost]:
    """Return every stage but the probes: images, passes, codes and distances of each."""
    scope, outliers, kept, sae = study.scope, study.outliers, study.activations, study.sae
    m = sae.expansion * shape.width
    trained = 0 if sae.path is not None else counts.train
    compared = min(outliers.images, counts.eval)

    def cost(n: float, passes: float = 0, codes: float = 0, emd_us: float = 0) -> StageCost:
        """Of n images decoded, passed to the designated block, encoded whole; and distances."""
        flops = passes * shape.pass_flops(shape.layer) + codes * _encoding(shape, m)
        return StageCost(n * flops, n / machine.decoded_per_s + emd_us * 1e-6)

    # SAE: encoder forward, and backward to both matrices at most: three products of d × m
    tokens = trained * (kept.tokens_per_image or shape.patches)
    steps = (sae.epochs or 1) * tokens / sae.batch_size
    learned = min(steps, sae.steps or steps) * sae.batch_size * 6.0 * shape.width * m
    stored = min(kept.tokens_per_image or shape.patches, shape.patches) * kept.draws * trained
    # scoring: a feature's exemplars, each against itself and against what it is compared with
    pairs = min(m, scope.sample_features or m) * scope.top_images
    per_pair = 1 + scope.null_draws + scope.cross_null
    # attention: outliers, taken as one in fifty, and drawn tokens, as rows and as columns; two
    # maps of what is received; views are read once for norms and once for attention
    shifts = len({scope.shift, *study.instability.shifts})
    asked = (outliers.tokens_per_image or shape.patches) + shape.patches / 50
    heads = max(shape.width // HEAD_WIDTH, 1)
    maps = compared * shifts * heads * (2 * asked + 2)
    return {
        # the images of training and scoring may be the same ones
        "images": cost(counts.train + (counts.eval if study.images.eval else 0)),
        "extract": StageCost(
            *(cost(trained, 1).flops, cost(trained).core_seconds),
            float(stored * shape.width * HALF_BYTES) if kept.cache else 0.0,
        ),
        "train": StageCost(learned, 0.0, TRAINED_COPIES * _sae_bytes(shape, m) * bool(trained)),
        "outliers": cost(compared, 1),
        "evaluate": cost(counts.eval, 1, 1),
        "score": cost(min(counts.eval, pairs), 2, 2, pairs * per_pair * machine.sparse_emd_us),
        "instability": cost(compared, 4 * shifts, 0, maps * machine.dense_emd_us),
        "awcds": cost(min(study.awcds.images, counts.eval), 1, 1),
    }


def _probes(study: Study, shape: Shape, counts: ImageCounts, machine: Machine) -> StageCost:
    """Return what the heads of every task cost: trials × searches × variants × epochs."""
    flops = seconds = disk = 0.0
    settings = study.probes
    variants = N_VARIANTS + settings.n_controls
    epochs = settings.epochs * variants * settings.trials * settings.seeds
    for task, (n_train, n_validation) in counts.tasks.items():
        head, n, dense = settings.heads()[task], n_train + n_validation, task != "classification"
        outputs = N_OUTPUTS.get(task, settings.depth.bins)
        rows = shape.patches if dense else 1
        width = shape.width * (2 if task == "depth" else 1)  # CLS stands beside every patch
        later = (shape.depth - shape.layer) * variants if head.probe_at == "final" else 0
        passes = shape.pass_flops(shape.layer) + shape.pass_flops(later)
        flops += n * (passes + _encoding(shape, study.sae.expansion * shape.width))
        flops += 4.0 * n_train * rows * width * outputs * epochs
        if dense:  # maps at full resolution: some eight operations a value, both ways
            side = getattr(head, "pixels", None) or shape.grid * 16
            flops += 16.0 * n_train * side**2 * outputs * epochs
        seconds += n / machine.decoded_per_s
        disk += float(variants) * n * rows * shape.width * HALF_BYTES
    return StageCost(flops, seconds, disk)


def _memory(study: Study, shape: Shape, stages: Sequence[str]) -> float:
    """Bytes of the backbone, beside the fullest of a forward pass and of the SAE's training."""
    sae, m = study.sae, study.sae.expansion * shape.width
    tokens = study.backbone.batch_size * shape.patches
    fullest = float(tokens * shape.width * LIVE_ARRAYS * FLOAT_BYTES)
    if "evaluate" in stages:
        fullest += _sae_bytes(shape, m)
    if "train" in stages and sae.path is None:
        codes = 2 * sae.batch_size * m * FLOAT_BYTES
        fullest = max(fullest, TRAINED_COPIES * _sae_bytes(shape, m) + codes)
    return float(shape.depth * shape.block_parameters * FLOAT_BYTES) + fullest


def _encoding(shape: Shape, m: int) -> float:
    """Operations of encoding every patch token of one image with m features."""
    return 2.0 * shape.patches * shape.width * m


def _sae_bytes(shape: Shape, m: int) -> float:
    return 2.0 * m * shape.width * FLOAT_BYTES
