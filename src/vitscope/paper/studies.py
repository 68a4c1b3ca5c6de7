"""The study of each model of the paper, from the zoo and the protocol; and those on scenes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.zoo import ZOO, nearest_name
from vitscope.embedded.files import (
    REFERENCE_BACKBONES,
    SCENES_VIT,
    SCENES_VIT_UNTRAINED,
    shipped_sae,
)
from vitscope.images.sources import ImageSettings
from vitscope.paper.sources import Sources, scenes, side_of
from vitscope.paper.targets import SHIFTS, TARGETS, Target, stages_of, tasks_of
from vitscope.probes.settings import ProbeSettings, Task
from vitscope.sae.settings import SaeSettings
from vitscope.scope.awcds import AwcdsSettings
from vitscope.scope.instability_settings import InstabilitySettings
from vitscope.scope.outliers import OutlierSettings
from vitscope.scope.settings import ScopeSettings
from vitscope.study import Study
from vitscope.tokens.sampling import ActivationSettings

PLANTED = "planted"

EPOCHS = 8
"""Passes of the SAE over ImageNet, each with four new tokens an image: 41 million tokens. The paper
does not say how long its SAEs were trained."""

BATCH = 256
"""Images per forward pass on a GPU of 80 GB."""

SEARCHES = 3
"""Whole searches of the probes: the paper has one, which gives no interval."""

NOTE = (
    "Settings of the paper's supplement; what it leaves open is listed in docs/protocol.md as [A]."
)


def paper_models(targets: Sequence[Target]) -> tuple[str, ...]:
    """Return the models of these targets, in the zoo's order."""
    wanted = {model for target in targets for model in target.models}
    return tuple(name for name in ZOO if name in wanted)


def targets_of(model: str) -> tuple[Target, ...]:
    """Return the targets for which the paper shows this model."""
    return tuple(target for target in TARGETS.values() if model in target.models)


def paper_study(model: str, targets: Sequence[Target], sources: Sources) -> Study:
    """Return the study of one model of the paper; images lie where ``sources`` says.

    Raises:
        BackboneError: the zoo has no such model.
    """
    if model not in ZOO:
        raise nearest_name(model, [PLANTED, *REFERENCE_BACKBONES])
    own = sources.images is not None
    # of all its targets, so that no later request finds fewer
    shifts = tuple(dict.fromkeys(s for target in targets_of(model) for s in target.shifts))
    return Study(
        name=model,
        note=NOTE,
        images=_images(sources, with_sae="train" in stages_of(targets)),
        backbone=BackboneSettings(name=model, weights=sources.weights, batch_size=BATCH),
        activations=ActivationSettings(draws=EPOCHS),
        sae=SaeSettings(path=sources.sae, epochs=EPOCHS),
        scope=ScopeSettings(unscored="low"),  # in Table 4 both groups add up to the dictionary
        instability=InstabilitySettings(shifts=shifts),
        probes=_probes(() if own else tasks_of(targets), sources),
    )


def _images(sources: Sources, *, with_sae: bool) -> ImageSettings:
    limit = sources.limit
    if sources.images is not None:
        return ImageSettings(train=sources.images, train_limit=limit)
    if not with_sae:  # norms and attention need no image to train on
        return ImageSettings(train=sources.imagenet / "val", train_limit=limit)
    return ImageSettings(
        train=sources.imagenet / "train",
        eval=sources.imagenet / "val",
        train_limit=limit,
        eval_limit=limit,
    )


def _probes(tasks: Sequence[Task], sources: Sources) -> ProbeSettings:
    heads: dict[str, Any] = {
        task: {
            "train": sources.of_task(task),
            "train_limit": sources.limit,
            "validation_limit": sources.limit,
        }
        for task in tasks
    }
    return ProbeSettings.parse({"seeds": SEARCHES, **heads}, source="the recipe of probes")


@dataclass(frozen=True)
class SceneSize:
    """How much is done on rendered scenes.

    Attributes:
        images: scenes scored.
        instability_images: scenes whose attention is compared.
        top_images: exemplars per feature.
        epochs: of the probes.
        trials: of each search.
        classification: training and validation scenes.
        segmentation: the same.
        depth: the same.
        sae_images: scenes that an SAE is trained on, where none comes with the model.
        sae_steps: its steps.
    """

    images: int = 1000
    instability_images: int = 200
    top_images: int = 16
    epochs: int = 30
    trials: int = 5
    classification: tuple[int, int] = (1000, 500)
    segmentation: tuple[int, int] = (96, 64)
    depth: tuple[int, int] = (48, 32)
    sae_images: int = 1500
    sae_steps: int = 600


FULL = SceneSize()
"""Every target in under half an hour on two cores."""

TINY = SceneSize(
    images=32,
    instability_images=6,
    top_images=2,
    epochs=2,
    trials=2,
    classification=(24, 12),
    segmentation=(8, 6),
    depth=(8, 6),
    sae_images=64,
    sae_steps=20,
)
"""For tests: every target in seconds."""

SCENES_NOTE = (
    "Rendered scenes and an embedded model: the proof that the pipeline makes every table and "
    "figure. No number here reproduces one of the paper, or says anything about CLIP, DINOv2, "
    "DeiT3 or SigLIP2."
)

PLANTED_NOTE = (
    "The planted backbone, whose features, scopes and attention are stated: what came out stands "
    "beside the truth. No number here reproduces one of the paper."
)

SCORED, SAE_TRAINED, PROBE_TRAINED, PROBE_VALIDATED = 1, 2, 3, 4
"""Seeds of the scenes, one for each use: no scene serves two."""

SCENES_DEPTH = (1e-3, 41.0)
"""Metres: outdoor scenes reach 40."""


def is_scenes_model(model: str) -> bool:
    """Whether a model is studied on rendered scenes: the embedded ones and their sizes."""
    return model in REFERENCE_BACKBONES or model == PLANTED


def scenes_study(
    model: str, targets: Sequence[Target], sources: Sources, size: SceneSize = FULL
) -> Study:
    """Return the study of an embedded model on rendered scenes."""
    side = side_of(model)
    n = min(size.images, sources.limit or size.images)
    scored = scenes(n, SCORED, side)
    sae, train = SaeSettings(path=sources.sae), scored
    if sources.sae is None and model in (SCENES_VIT, SCENES_VIT_UNTRAINED):
        sae = SaeSettings(path=shipped_sae(model))
    elif sources.sae is None and model != PLANTED:
        sae = SaeSettings(learning_rate=1e-3, batch_size=2048, steps=size.sae_steps)
        train = scenes(size.sae_images, SAE_TRAINED, side)
    return Study(
        name=model,
        note=PLANTED_NOTE if model == PLANTED else SCENES_NOTE,
        images=ImageSettings(train=train, eval=None if train == scored else scored),
        backbone=BackboneSettings(name=model, weights=sources.weights),
        activations=ActivationSettings(tokens_per_image=0),
        sae=sae,
        scope=ScopeSettings(top_images=size.top_images),
        outliers=OutlierSettings(images=size.instability_images),
        instability=InstabilitySettings(shifts=SHIFTS),
        awcds=AwcdsSettings(images=min(n, 1000)),
        probes=_scene_probes(() if model == PLANTED else tasks_of(targets), side, size),
    )


def _scene_probes(tasks: Sequence[Task], side: int, size: SceneSize) -> ProbeSettings:
    pixels = side // 2
    own: dict[Task, dict[str, Any]] = {
        "classification": {"batch_size": 16},  # 1,024 would be one step an epoch
        "segmentation": {"batch_size": 32, "pixels": pixels},
        "depth": {"pixels": pixels, "bins": 64, "depth_range": SCENES_DEPTH},
    }
    heads: dict[str, Any] = {}
    for task in tasks:
        n_train, n_validation = getattr(size, task)
        heads[task] = {
            "train": scenes(n_train, PROBE_TRAINED, side),
            "validation": scenes(n_validation, PROBE_VALIDATED, side),
            **own[task],
        }
    values = {"seeds": SEARCHES, "epochs": size.epochs, "trials": size.trials, "n_controls": 1}
    return ProbeSettings.parse({**values, **heads}, source="the recipe of probes")
