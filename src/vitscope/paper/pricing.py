"""What a study costs, before it is run: sums of operations, bytes and distances."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitscope.paper.counts import ImageCounts, count_images
from vitscope.paper.shape import Shape, shape_of
from vitscope.study import Study

GIGA = 1e9
FLOAT, HALF = 4, 2
"""Bytes."""

N_VARIANTS = 3
"""Tokens as they are, and without either group; matched controls are variants too."""

PROBE_OUTPUTS = {"classification": 1000, "segmentation": 150}
"""Classes; depth has its bins."""

TRAINED_COPIES = 4
"""Of the SAE's weights while it trains: themselves, gradients, and two moments of Adam."""

HIDDEN = 12
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

    def assumptions(self) -> str:
        """Return the assumptions in a sentence."""
        return (
            f"Sums, not measurements: {self.tflops:g} TFLOP/s sustained a GPU, {self.cores} cores "
            f"each, {self.decoded_per_s:g} photographs decoded a second and core, distances of "
            f"{self.sparse_emd_us:g} µs (features) and {self.dense_emd_us:g} µs (attention) "
            "on a core."
        )


@dataclass(frozen=True)
class StageCost:
    """One stage.

    Attributes:
        stage: its name.
        flops: on the accelerator.
        core_seconds: on the processor.
        disk: bytes left or cached.
    """

    stage: str
    flops: float = 0.0
    core_seconds: float = 0.0
    disk: float = 0.0


@dataclass(frozen=True)
class Price:
    """A study's cost.

    Attributes:
        model: the backbone.
        stages: each with its cost, in the order of the pipeline.
        memory: bytes on the accelerator at the fullest moment.
        counts: images behind it.
        machine: what it was reckoned for.
    """

    model: str
    stages: tuple[StageCost, ...]
    memory: float
    counts: ImageCounts
    machine: Machine

    def hours(self, n_gpus: int = 1) -> float:
        """Return hours with so many GPUs: in each stage the slower of both kinds of work."""
        rate = self.machine.tflops * 1e12
        seconds = sum(max(s.flops / rate, s.core_seconds / self.machine.cores) for s in self.stages)
        return seconds / n_gpus / 3600

    @property
    def disk(self) -> float:
        """Bytes of all stages together."""
        return sum(stage.disk for stage in self.stages)


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
    machine = machine or Machine()
    work = _Work(study, shape_of(study), counts or count_images(study), machine)
    known: dict[str, Callable[[], StageCost]] = {
        "images": work.images,
        "extract": work.extract,
        "train": work.train,
        "outliers": work.outliers,
        "evaluate": work.evaluate,
        "score": work.score,
        "instability": work.instability,
        "awcds": work.awcds,
        "probe": work.probe,
    }
    rows = tuple(cost() for name, cost in known.items() if name in stages)
    return Price(study.backbone.name, rows, work.memory(stages), work.counts, machine)


@dataclass(frozen=True)
class _Work:
    study: Study
    shape: Shape
    counts: ImageCounts
    machine: Machine

    @property
    def m(self) -> int:
        return self.study.sae.expansion * self.shape.width

    @property
    def encode(self) -> float:
        """Operations of encoding every patch token of one image."""
        return 2.0 * self.shape.patches * self.shape.width * self.m

    def read(self, n_images: float, times: float = 1.0) -> float:
        """Operations of passes of images up to the designated block."""
        return n_images * times * self.shape.pass_flops(self.shape.layer)

    def decoded(self, n_images: float) -> float:
        return n_images / self.machine.decoded_per_s

    @property
    def n_trained(self) -> int:
        return 0 if self.study.sae.path is not None else self.counts.train

    def images(self) -> StageCost:
        # the images of training and scoring may be the same ones
        same = self.study.images.eval is None
        n = self.counts.train + (0 if same else self.counts.eval)
        return StageCost("images", core_seconds=self.decoded(n))

    def extract(self) -> StageCost:
        n, kept = self.n_trained, self.study.activations
        tokens = min(kept.tokens_per_image or self.shape.patches, self.shape.patches)
        disk = n * tokens * kept.draws * self.shape.width * HALF
        return StageCost("extract", self.read(n), self.decoded(n), disk if kept.cache else 0.0)

    def train(self) -> StageCost:
        if not self.n_trained:
            return StageCost("train")
        settings, kept = self.study.sae, self.study.activations
        tokens = self.n_trained * (kept.tokens_per_image or self.shape.patches)
        steps = (settings.epochs or 1) * tokens / settings.batch_size
        steps = min(steps, settings.steps or steps)
        # encoder forward, and backward to both matrices at most: three products of d × m
        flops = steps * settings.batch_size * 6.0 * self.shape.width * self.m
        return StageCost("train", flops, disk=TRAINED_COPIES * self.sae_bytes)

    @property
    def sae_bytes(self) -> float:
        return 2.0 * self.m * self.shape.width * FLOAT

    def outliers(self) -> StageCost:
        n = min(self.study.outliers.images, self.counts.eval)
        return StageCost("outliers", self.read(n), self.decoded(n))

    def evaluate(self) -> StageCost:
        n = self.counts.eval
        return StageCost("evaluate", self.read(n) + n * self.encode, self.decoded(n))

    def score(self) -> StageCost:
        scope, m = self.study.scope, self.m
        scored = min(m, scope.sample_features or m)
        pairs = scored * scope.top_images
        n = min(self.counts.eval, pairs)
        distances = pairs * (1 + scope.null_draws + scope.cross_null)
        seconds = distances * self.machine.sparse_emd_us * 1e-6
        return StageCost("score", self.read(n, 2) + 2 * n * self.encode, self.decoded(n) + seconds)

    def instability(self) -> StageCost:
        settings = self.study.outliers
        n = min(settings.images, self.counts.eval)
        shifts = len({self.study.scope.shift, *self.study.instability.shifts})
        # outliers, taken as one in fifty, and drawn tokens: as rows and columns; two maps received
        compared = (settings.tokens_per_image or self.shape.patches) + self.shape.patches / 50
        distances = n * shifts * self.shape.heads * (2 * compared + 2)
        seconds = distances * self.machine.dense_emd_us * 1e-6
        # views are read once for norms and once for attention
        return StageCost("instability", self.read(n, 4 * shifts), self.decoded(n) + seconds)

    def awcds(self) -> StageCost:
        n = min(self.study.awcds.images, self.counts.eval)
        return StageCost("awcds", self.read(n) + n * self.encode, self.decoded(n))

    def probe(self) -> StageCost:
        flops = seconds = disk = 0.0
        settings, shape = self.study.probes, self.shape
        variants = N_VARIANTS + settings.n_controls
        heads = variants * settings.trials * settings.seeds
        for task, (n_train, n_validation) in self.counts.tasks.items():
            n, dense = n_train + n_validation, task != "classification"
            depth_bins = settings.depth.bins
            outputs = PROBE_OUTPUTS.get(task, depth_bins)
            rows = shape.patches if dense else 1
            width = shape.width * (2 if task == "depth" else 1)
            at_end = settings.heads()[task].probe_at == "final"
            later = shape.pass_flops(shape.depth - shape.layer) * variants if at_end else 0.0
            flops += self.read(n) + n * (self.encode + later)
            flops += 4.0 * n_train * rows * width * outputs * settings.epochs * heads
            if dense:  # maps at full resolution: some eight operations a value, both ways
                side = getattr(settings.heads()[task], "pixels", None) or shape.grid * 16
                flops += 16.0 * n_train * side**2 * outputs * settings.epochs * heads
            seconds += self.decoded(n)
            disk += float(variants) * n * rows * shape.width * HALF
        return StageCost("probe", flops, seconds, disk)

    def memory(self, stages: Sequence[str]) -> float:
        """Bytes of the backbone, beside the fullest of a forward pass and of the SAE's training."""
        shape, batch = self.shape, self.study.backbone.batch_size
        weights = float(shape.depth * shape.block_parameters * FLOAT)
        tokens = batch * shape.patches
        forward = float(tokens * shape.width * HIDDEN * FLOAT)
        training = 0.0
        if "train" in stages and self.n_trained:
            codes = 2 * self.study.sae.batch_size * self.m * FLOAT
            training = TRAINED_COPIES * self.sae_bytes + codes
        encoding = self.sae_bytes + forward if "evaluate" in stages else forward
        return weights + max(encoding, training)
