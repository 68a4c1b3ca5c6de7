"""The study of each model of the paper, from the zoo and the protocol; and those on scenes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.zoo import PAPER_ZOO, ZOO, nearest_name
from vitscope.embedded.files import (
    REFERENCE_BACKBONES,
    SCENES_VIT,
    SCENES_VIT_UNTRAINED,
    shipped_sae,
)
from vitscope.errors import BackboneError
from vitscope.images.sources import ImageSettings
from vitscope.paper.prices import count_images, price_study, shape_of
from vitscope.paper.targets import SHIFTS, TARGETS, Target, stages_of, tasks_of
from vitscope.probes.settings import ProbeSettings, Task
from vitscope.sae.settings import SaeSettings
from vitscope.scope.settings import (
    AwcdsSettings,
    InstabilitySettings,
    OutlierSettings,
    ScopeSettings,
)
from vitscope.store.atomic import write_text
from vitscope.study import Study, without_none
from vitscope.tokens.sampling import ActivationSettings

PLANTED_MODEL = "planted"

SAE_EPOCHS = 8
"""Passes of the SAE over ImageNet, each with four new tokens an image: 41 million tokens. The paper
does not say how long its SAEs were trained."""

GPU_BATCH = 256
"""Images per forward pass on a GPU of 80 GB."""

N_SEARCHES = 3
"""Whole searches of the probes: the paper has one, which gives no interval."""

PAPER_NOTE = (
    "Settings of the paper's supplement; what it leaves open is listed in docs/protocol.md as [A]."
)

SCENES_NOTE = (
    "Rendered scenes and an embedded model: the proof that the pipeline makes every table and "
    "figure. No number here reproduces one of the paper, or says anything about CLIP, DINOv2, "
    "DeiT3 or SigLIP2."
)

PLANTED_NOTE = (
    "The planted backbone, whose features, scopes and attention are stated: what came out stands "
    "beside the truth. No number here reproduces one of the paper."
)


@dataclass(frozen=True)
class Sources:
    """Where a reproduction's images lie, and how many of them are taken.

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


def paper_models(targets: Sequence[Target]) -> tuple[str, ...]:
    """Return the models of these targets, in the zoo's order."""
    wanted = {model for target in targets for model in target.models}
    return tuple(name for name in PAPER_ZOO if name in wanted)


def targets_of(model: str) -> tuple[Target, ...]:
    """Return the targets for which the paper shows this model."""
    return tuple(target for target in TARGETS.values() if model in target.models)


def paper_study(model: str, targets: Sequence[Target], sources: Sources) -> Study:
    """Return the study of one model of the paper; images lie where ``sources`` says.

    Raises:
        BackboneError: the zoo has no such model.
    """
    if model in ZOO and model not in PAPER_ZOO:
        raise BackboneError(
            f"'{model}' is not among the paper's twelve models, so that there is nothing of it to "
            "reproduce; `vitscope reproduce all --study FILE` judges any study by the paper's "
            "claims"
        )
    if model not in PAPER_ZOO:
        raise nearest_name(model, [PLANTED_MODEL, *REFERENCE_BACKBONES])
    # of all its targets, so that no later request finds fewer
    shifts = tuple(dict.fromkeys(s for target in targets_of(model) for s in target.shifts))
    tasks = () if sources.images is not None else tasks_of(targets)
    limits = {"train_limit": sources.limit, "validation_limit": sources.limit}
    heads = {task: {"train": sources.of_task(task), **limits} for task in tasks}
    return Study(
        name=model,
        note=PAPER_NOTE,
        images=_images(sources, with_sae="train" in stages_of(targets)),
        backbone=BackboneSettings(name=model, weights=sources.weights, batch_size=GPU_BATCH),
        activations=ActivationSettings(draws=SAE_EPOCHS),
        sae=SaeSettings(path=sources.sae, epochs=SAE_EPOCHS),
        scope=ScopeSettings(unscored="low"),  # in Table 4 both groups add up to the dictionary
        instability=InstabilitySettings(shifts=shifts),
        probes=_probe_settings({"seeds": N_SEARCHES, **heads}),
    )


def _images(sources: Sources, *, with_sae: bool) -> ImageSettings:
    limit = sources.limit
    if sources.images is not None:
        return ImageSettings(train=sources.images, train_limit=limit)
    if not with_sae:  # norms and attention need no image to train on
        return ImageSettings(train=sources.imagenet / "val", train_limit=limit)
    train, scored = sources.imagenet / "train", sources.imagenet / "val"
    return ImageSettings(train=train, eval=scored, train_limit=limit, eval_limit=limit)


def _probe_settings(values: dict[str, Any]) -> ProbeSettings:
    return ProbeSettings.parse(values, source="the recipe of probes")


STUDIES_DATA = Path("../data")
"""Where the study files look for data sets, from their own folder."""


def study_file(model: str) -> str:
    """Return the text of a model's study file, for all the targets that the paper shows it in.

    What is left out is the default, as docs/protocol.md lists it; the comment on top has its price.

    Raises:
        BackboneError: the zoo has no such model.
    """
    targets = targets_of(model)
    study = paper_study(model, targets, Sources(root=STUDIES_DATA))
    values = without_none(study.model_dump(mode="json", exclude_defaults=True))
    shape = shape_of(study)
    price = price_study(study, stages_of(targets), counts=count_images(study, look=False))
    m = study.sae.expansion * shape.width
    header = (
        f"{study.name}: {PAPER_ZOO[study.name].timm_name}, output of block {shape.layer} of "
        f"{shape.depth}; {m:,} features, K = {study.sae.k}.",
        f"For {', '.join(target.name for target in targets)}. Written by "
        "`vitscope reproduce --studies studies`; not to be edited here.",
        f"About {price.hours():.0f} hours on one GPU of 80 GB, {price.hours(8):.1f} on 8 that "
        f"share the work evenly; {price.memory / 1e9:.0f} GB of memory, "
        f"{price.disk / 1e9:.0f} GB of disk.",
        price.machine.describe(),
    )
    return "".join(f"# {line}\n" for line in header) + "\n" + tomli_w.dumps(values)


def write_study_files(folder: Path) -> tuple[Path, ...]:
    """Write the study of every model of the paper into ``folder``."""
    paths = tuple(folder / f"{model}.toml" for model in PAPER_ZOO)
    for path in paths:
        write_text(path, study_file(path.stem))
    return paths


@dataclass(frozen=True)
class SceneSize:
    """How much is done on rendered scenes; by default every target in half an hour on two cores.

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


TINY = SceneSize(32, 6, 2, 2, 2, (24, 12), (8, 6), (8, 6), sae_images=64, sae_steps=20)
"""For tests: every target in seconds."""

SCORED, SAE_TRAINED, PROBE_TRAINED, PROBE_VALIDATED = 1, 2, 3, 4
"""Seeds of the scenes, one for each use: no scene serves two."""

SCENE_SIDES = {PLANTED_MODEL: 120, "scenes-vit-m": 120, "scenes-vit-l": 120}
SCENE_SIDE = 88
"""Pixels a side: one patch more than the model's input, so that every view is cut unscaled."""

SCENE_DEPTHS = (1e-3, 41.0)
"""Metres: outdoor scenes reach 40."""


def is_scenes_model(model: str) -> bool:
    """Whether a model is studied on rendered scenes: the embedded ones and their sizes."""
    return model in REFERENCE_BACKBONES or model == PLANTED_MODEL


def scenes_study(
    model: str, targets: Sequence[Target], sources: Sources, size: SceneSize | None = None
) -> Study:
    """Return the study of an embedded model on rendered scenes."""
    size, side = size or SceneSize(), SCENE_SIDES.get(model, SCENE_SIDE)
    n = min(size.images, sources.limit or size.images)
    scored = _scenes(n, SCORED, side)
    sae, train = SaeSettings(path=sources.sae), scored
    if sources.sae is None and model in (SCENES_VIT, SCENES_VIT_UNTRAINED):
        sae = SaeSettings(path=shipped_sae(model))
    elif sources.sae is None and model != PLANTED_MODEL:
        sae = SaeSettings(learning_rate=1e-3, batch_size=2048, steps=size.sae_steps)
        train = _scenes(size.sae_images, SAE_TRAINED, side)
    is_planted = model == PLANTED_MODEL
    return Study(
        name=model,
        note=PLANTED_NOTE if is_planted else SCENES_NOTE,
        images=ImageSettings(train=train, eval=None if train == scored else scored),
        backbone=BackboneSettings(name=model, weights=sources.weights),
        activations=ActivationSettings(tokens_per_image=0),
        sae=sae,
        scope=ScopeSettings(top_images=size.top_images),
        outliers=OutlierSettings(images=size.instability_images),
        instability=InstabilitySettings(shifts=SHIFTS),
        awcds=AwcdsSettings(images=min(n, 1000)),
        probes=_scene_probes(() if is_planted else tasks_of(targets), side, size),
    )


def _scene_probes(tasks: Sequence[Task], side: int, size: SceneSize) -> ProbeSettings:
    own: dict[Task, dict[str, Any]] = {
        "classification": {"batch_size": 16},  # 1,024 would be one step an epoch
        "segmentation": {"batch_size": 32, "pixels": side // 2},
        "depth": {"pixels": side // 2, "bins": 64, "depth_range": SCENE_DEPTHS},
    }
    heads: dict[str, Any] = {}
    for task in tasks:
        n_train, n_validation = getattr(size, task)
        train = _scenes(n_train, PROBE_TRAINED, side)
        validation = _scenes(n_validation, PROBE_VALIDATED, side)
        heads[task] = {"train": train, "validation": validation, **own[task]}
    common = {"seeds": N_SEARCHES, "epochs": size.epochs, "trials": size.trials, "n_controls": 1}
    return _probe_settings({**common, **heads})


def _scenes(n: int, seed: int, side: int) -> Path:
    """Return the address of ``n`` rendered scenes."""
    return Path(f"scenes:{n}?seed={seed}&side={side}")
