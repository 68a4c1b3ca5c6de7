"""A newcomer's photographs, taken apart with what is at hand: a first part, then all of them.

The stages are those of any study. A first part of the photographs runs through them in
``OUT/first``, with fewer features scored, and leaves a page of pictures within a minute; then all
of them run in ``OUT``, which the explorer opens.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitscope.backbones.fetching import download_size, fetch, is_fetched
from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.zoo import ZOO
from vitscope.embedded.files import shipped_sae
from vitscope.errors import BackboneError, ConfigError, ImageSetError, SaeError, VitscopeError
from vitscope.images.copies import make_copies
from vitscope.images.duplicates import near_duplicates
from vitscope.images.sources import ImageSettings, open_image_set
from vitscope.images.verify import VerifiedImages
from vitscope.look.first_page import write_first_page
from vitscope.pipeline import OnStage, run_study
from vitscope.run import Run
from vitscope.sae.formats.hub import is_hub_address
from vitscope.sae.settings import SaeSettings
from vitscope.scope.settings import OutlierSettings, ScopeSettings
from vitscope.stages.stage import Models
from vitscope.store.run_directory import RunDirectory
from vitscope.study import Study, folder_name, resolve_paths

LOOKED = (
    *("backbone", "images", "train", "outliers", "evaluate", "score", "partition", "stability"),
)
"""What the explorer and the words at the end are made from."""

FIRST = (*LOOKED, "gallery")

SCORED_FROM = 4
"""Exemplar pairs that a feature needs for a score; with fewer a mean says next to nothing."""

FEWEST_PHOTOGRAPHS = SCORED_FROM
"""With fewer photographs no feature can have as many pairs."""

MOST_PHOTOGRAPHS = 1000
"""Taken unless more are asked for: evenly spread over the order of the names."""

FIRST_PHOTOGRAPHS, FIRST_FROM = 32, 100
"""Photographs of the first part, and how many there must be for one."""

FIRST_FEATURES = 300
"""Features that the first part scores, drawn at random."""

OUTLIER_IMAGES = 40
"""Photographs for τ, which has no use here but a line on the pages."""

WIDE = 2.0
"""A photograph longer than so many of its shorter sides loses half of itself to the centre crop."""

LOOK_NOTE = (
    "Photographs looked at with an SAE that was trained on others. So few of them say little about "
    "any one feature: docs/look.md."
)


@dataclass(frozen=True)
class Looking:
    """What is to be done.

    Attributes:
        photographs: the folder.
        n_files: pictures in it, readable or not.
        study: of all photographs, through their copies.
        out: its run directory; the first part lies in ``out/first``.
        most: at most so many photographs.
    """

    photographs: Path
    n_files: int
    study: Study
    out: Path
    most: int

    @property
    def copies(self) -> Path:
        """Folder of smaller copies and links, which the run reads."""
        return self.study.images.train

    @property
    def first(self) -> Path:
        """Run directory of the first part."""
        return self.out / "first"

    @property
    def has_finished(self) -> bool:
        """Whether all were scored before; what changed since is redone all the same."""
        return RunDirectory(self.out).study.is_file() and Run(self.out).has("partition")


@dataclass(frozen=True)
class FolderContents:
    """What is in the folder.

    Attributes:
        n_used: photographs that are looked at.
        skipped: reason -> how many files are left out for it.
        n_wide: photographs of which the centre crop shows less than half.
        n_alike: photographs that look nearly like another one.
        n_groups: groups of such.
    """

    n_used: int
    skipped: dict[str, int]
    n_wide: int
    n_alike: int
    n_groups: int


def plan_look(
    photographs: Path,
    model: str,
    sae: Path | None = None,
    out: Path | None = None,
    most: int = MOST_PHOTOGRAPHS,
) -> Looking:
    """Return what is to be done; nothing is opened but names, and nothing fetched.

    Args:
        photographs: a folder.
        model: the backbone.
        sae: folder of its SAE; None takes the one that comes with the package.
        out: run directory; None takes ``runs/NAME``.
        most: at most so many photographs, evenly spread.

    Raises:
        ImageSetError: no folder, or too few pictures in it.
        SaeError: no SAE comes with the package for this model, or ``sae`` is not there.
        ConfigError: the run directory would lie among the photographs.
    """
    if photographs.is_file():
        raise ImageSetError(f"{photographs} is a file; give the folder of the photographs")
    if sae is not None and not (is_hub_address(sae) or sae.expanduser().exists()):
        raise SaeError(f"--sae {sae} does not exist; give the folder of an SAE")
    n_files = len(open_image_set(photographs, limit=most))
    if n_files < FEWEST_PHOTOGRAPHS:
        raise _too_few(photographs, n_files)
    study = resolve_paths(
        Study(
            name=photographs.resolve().name or "photographs",
            note=LOOK_NOTE,
            images=ImageSettings(train=photographs, duplicates="once", max_skipped=1.0),
            backbone=BackboneSettings(name=model),
            sae=SaeSettings(path=shipped_sae(model) if sae is None else sae),
            scope=ScopeSettings(min_pairs=SCORED_FROM),
            outliers=OutlierSettings(images=OUTLIER_IMAGES),
        ),
        Path.cwd(),
    )
    out = (out or Path("runs") / folder_name(study)).absolute()
    if out.resolve().is_relative_to(photographs.resolve()):
        raise ConfigError(
            f"the run would lie among the photographs, in {out}; give another folder with --out"
        )
    images = study.images.model_copy(update={"train": out / "photographs"})
    return Looking(photographs, n_files, study.model_copy(update={"images": images}), out, most)


def download_bytes(model: str) -> int | None:
    """Return how much :func:`fetch_model` will download, 0 where all is there, None if unknown."""
    return download_size(model) if model in ZOO else 0


def fetch_model(model: str) -> None:
    """Fetch the weights of a backbone that has a name here, unless they are there.

    Raises:
        BackboneError: they cannot be fetched; the message says what runs without.
    """
    if model not in ZOO or is_fetched(model):
        return
    try:
        fetch(model)
    except VitscopeError as error:
        raise BackboneError(
            f"{error}. Without any network, `vitscope demo` shows the whole job on rendered scenes"
        ) from None


def _too_few(folder: Path, n: int, skipped: str = "") -> ImageSetError:
    found = "1 photograph" if n == 1 else f"{n} photographs"
    return ImageSetError(
        f"{folder} has {found} to look at{skipped}; a feature gets a score from {SCORED_FROM} or "
        f"more: give {FEWEST_PHOTOGRAPHS} at least, better some hundred"
    )


def read_photographs(looking: Looking, on_stage: OnStage | None = None) -> FolderContents:
    """Copy and verify the photographs, and say what is in the folder.

    Raises:
        ImageSetError: fewer of them can be used than a score takes.
    """
    images = looking.study.images
    refs = open_image_set(looking.photographs, limit=looking.most).refs
    make_copies(refs, looking.copies, workers=images.workers, max_pixels=images.max_pixels)
    run_study(looking.study, looking.out, only=["images"], on_stage=on_stage)
    found = Run(looking.out).verified()
    if len(found.usable) < FEWEST_PHOTOGRAPHS:
        why = f" ({len(found.skipped)} files left out: {looking.out / 'skipped.csv'})"
        raise _too_few(looking.photographs, len(found.usable), why if found.skipped else "")
    groups = near_duplicates(found.usable, workers=images.workers, max_pixels=images.max_pixels)
    return FolderContents(
        n_used=len(found.usable),
        skipped=_reasons(found),
        n_wide=sum(max(size) > WIDE * min(size) for size in found.sizes),
        n_alike=sum(map(len, groups)),
        n_groups=len(groups),
    )


def _reasons(found: VerifiedImages) -> dict[str, int]:
    same = "the same file as another"
    counted = Counter(
        same if image.reason.startswith("the same file as") else image.reason
        for image in found.skipped
    )
    return dict(counted.most_common())


def look(
    looking: Looking,
    photographs: FolderContents,
    *,
    on_stage: OnStage | None = None,
    on_first: Callable[[Path, int], None] | None = None,
) -> Run:
    """Run the stages, the first part before all where there are many; return the run.

    Args:
        looking: what is to be done.
        photographs: what :func:`read_photographs` has found.
        on_stage: called after each stage.
        on_first: called with the first part's page, and how many photographs it shows.

    Raises:
        VitscopeError: naming what was wrong; what had finished stays finished.
    """
    models: Models | None = None
    if photographs.n_used >= FIRST_FROM and not looking.has_finished:
        models = _first_part(looking, on_stage)
        page = write_first_page(looking.first, photographs.n_used)
        if on_first is not None:
            on_first(page, FIRST_PHOTOGRAPHS)
    backbone = None if models is None else models.backbone
    own = Models(looking.study, RunDirectory(looking.out), backbone)
    run_study(looking.study, looking.out, only=LOOKED, on_stage=on_stage, models=own)
    return Run(looking.out)


def _first_part(looking: Looking, on_stage: OnStage | None) -> Models:
    whole = looking.study
    images = whole.images.model_copy(update={"train_limit": FIRST_PHOTOGRAPHS})
    scope = whole.scope.model_copy(
        update={
            "top_images": 8,
            "null_draws": 0,
            "cross_null": False,
            "sample_features": FIRST_FEATURES,
        }
    )
    outliers = OutlierSettings(images=8)
    study = whole.model_copy(update={"images": images, "scope": scope, "outliers": outliers})
    models = Models(study, RunDirectory(looking.first))
    run_study(study, looking.first, only=FIRST, on_stage=on_stage, models=models)
    return models
