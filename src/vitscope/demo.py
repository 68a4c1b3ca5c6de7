"""The whole job in minutes on nothing but this package (``vitscope demo``)."""

from dataclasses import dataclass
from pathlib import Path

from vitscope.backbones.settings import BackboneSettings
from vitscope.embedded.files import SCENES_VIT, SCENES_VIT_UNTRAINED, shipped_sae
from vitscope.images.sources import ImageSettings
from vitscope.probes.settings import ClassificationSettings, ProbeSettings, ZeroShotSettings
from vitscope.sae.settings import SaeSettings
from vitscope.scope.settings import AwcdsSettings, OutlierSettings, ScopeSettings, StabilitySettings
from vitscope.study import BesideSettings, Study
from vitscope.tokens.sampling import ActivationSettings

SIDE = 88
"""Pixels a side: one patch more than the backbone's input, so that every view is cut unscaled."""

HELD_OUT_SEED = 1
"""Of the scenes that are scored: neither backbone nor SAE has seen one of them."""

SAE_SEED = 2
"""Of the scenes that SAEs are trained on."""

PROBE_SEED, PROBE_VALIDATION_SEED = 3, 4
"""Of the scenes that probes learn from, and of those that they and zero-shot are scored on."""

PROBE_BATCH = 64
"""Scenes per step: the paper's 1,024 would leave heads a step an epoch on so few."""

MIN_PAIRS = 8
"""Of 16 exemplars: on a thousand scenes a rare feature has few that last through a shift."""

NOTE = (
    "Demonstration on rendered scenes with scenes-vit, a small vision transformer that was trained "
    "on such scenes and comes with this package. Its features are learned, its scale is not that "
    "of the paper: no figure here says anything about CLIP, DINOv2, DeiT3 or SigLIP2."
)

CONTROL_NOTE = (
    "Control: the same network with random weights, and an SAE trained on its tokens in the same "
    "way. What this page shares with the demonstration owes nothing to learning."
)

LIVE_NOTE = (
    "A short training on the spot, to be seen at work; the shipped SAE was trained by the same "
    "command for longer (training/README.md)."
)


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does.

    Attributes:
        images: scenes scored.
        live_images: scenes that the live SAE is trained on; 0 leaves it out.
        live_steps: its optimiser steps.
        instability_images: scenes whose attention is compared.
        probe_images: scenes that probes of the place learn from.
        probe_validation: scenes that they are scored on, and zero-shot.
        probe_seeds: searches of five trials.
        probe_controls: draws of random features in place of either group.
    """

    images: int
    live_images: int
    live_steps: int
    instability_images: int
    probe_images: int
    probe_validation: int
    probe_seeds: int
    probe_controls: int


FULL = DemoSize(
    images=1000,
    live_images=1500,
    live_steps=300,
    instability_images=200,
    probe_images=600,
    probe_validation=400,
    probe_seeds=3,
    probe_controls=3,
)
QUICK = DemoSize(
    images=160,
    live_images=0,
    live_steps=0,
    instability_images=32,
    probe_images=160,
    probe_validation=100,
    probe_seeds=1,
    probe_controls=1,
)


@dataclass(frozen=True)
class DemoRun:
    """One run of the demo.

    Attributes:
        title: said before it starts.
        study: what is run.
        out: where.
    """

    title: str
    study: Study
    out: Path


def demo_runs(out: Path, size: DemoSize = FULL, *, seed: int = 0) -> tuple[DemoRun, ...]:
    """Return the demo's runs in order; the last, in ``out`` itself, shows the others beside it."""
    live, control = out / "live", out / "untrained"
    runs = [DemoRun("an untrained copy, as control", _control(size, seed), control)]
    if size.live_images:
        runs.insert(0, DemoRun("an SAE trained on the spot", _live(size, seed), live))
    others = tuple(run.out.absolute() for run in runs)
    study = _study("demo: scenes", NOTE, SCENES_VIT, _scored(size), size, seed).model_copy(
        update={
            "sae": SaeSettings(path=shipped_sae(SCENES_VIT)),
            "beside": BesideSettings(runs=others[::-1]),
            "stability": StabilitySettings(against=others[:-1]),
            "probes": _probes(size),
        }
    )
    return (*runs, DemoRun("the demonstration", study, out))


def _probes(size: DemoSize) -> ProbeSettings:
    """Return probes of the place and zero-shot; masks and depth take longer than a demo may."""
    validation = _scenes(size.probe_validation, PROBE_VALIDATION_SEED)
    return ProbeSettings(
        seeds=size.probe_seeds,
        n_controls=size.probe_controls,
        classification=ClassificationSettings(
            train=_scenes(size.probe_images, PROBE_SEED),
            validation=validation,
            batch_size=PROBE_BATCH,
        ),
        zeroshot=ZeroShotSettings(images=validation),
    )


def _control(size: DemoSize, seed: int) -> Study:
    study = _study("untrained copy", CONTROL_NOTE, SCENES_VIT_UNTRAINED, _scored(size), size, seed)
    return study.model_copy(update={"sae": SaeSettings(path=shipped_sae(SCENES_VIT_UNTRAINED))})


def _live(size: DemoSize, seed: int) -> Study:
    images = _scored(size).model_copy(
        update={
            "train": _scenes(size.live_images, SAE_SEED),
            "eval": _scenes(size.images, HELD_OUT_SEED),
        }
    )
    study = _study("SAE trained live", LIVE_NOTE, SCENES_VIT, images, size, seed)
    return study.model_copy(
        update={
            "activations": ActivationSettings(tokens_per_image=0),
            "sae": SaeSettings(learning_rate=1e-3, batch_size=2048, steps=size.live_steps),
        }
    )


def _study(
    name: str, note: str, backbone: str, images: ImageSettings, size: DemoSize, seed: int
) -> Study:
    return Study(
        name=name,
        note=note,
        seed=seed,
        images=images,
        backbone=BackboneSettings(name=backbone),
        scope=ScopeSettings(min_pairs=MIN_PAIRS),
        outliers=OutlierSettings(images=size.instability_images),
        awcds=AwcdsSettings(bins=50),
    )


def _scored(size: DemoSize) -> ImageSettings:
    return ImageSettings(train=_scenes(size.images, HELD_OUT_SEED))


def _scenes(n: int, seed: int) -> Path:
    return Path(f"scenes:{n}?seed={seed}&side={SIDE}")
