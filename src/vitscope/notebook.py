"""A run as a person holds it in a notebook or a script: opened, drawn, looked at, scored."""

import io
import shutil
import weakref
from collections.abc import Mapping
from html import escape
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from vitscope.backbones.backbone import Backbone
from vitscope.backbones.settings import BackboneSettings
from vitscope.errors import ConfigError
from vitscope.figures.catalogue import FIGURES, draw_figure
from vitscope.images.sources import ImageSet, ImageSettings, open_image_set
from vitscope.pipeline import run_study, set_gamma
from vitscope.run import Run
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.settings import SaeSettings
from vitscope.sae.storage import check_fits, save_sae
from vitscope.stages.stage import Models
from vitscope.store.run_directory import RunDirectory
from vitscope.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORED = ("images", "train", "outliers", "evaluate", "score", "partition", "gallery")
"""The stages behind a score, and what its pictures are drawn from."""

EXEMPLARS_SHOWN = 4


class OpenRun(Run):
    """A run that also draws: what :func:`open_run` and :func:`score` return."""

    def figure(self, name: str) -> "Figure":
        """Return a figure as the report draws it.

        Args:
            name: ``cds``, ``awcds``, ``norms``, ``gallery-low``, …: those of `vitscope figures`.

        Raises:
            ConfigError: there is no such figure.
            ArtifactError: a stage that it is drawn from has not run.
        """
        return draw_figure(self, name)

    @property
    def figures(self) -> Mapping[str, str]:
        """Name -> what it shows."""
        return {name: one.shows for name, one in FIGURES.items()}

    def show(
        self, feature: int, *, images: int = EXEMPLARS_SHOWN, path: Path | str | None = None
    ) -> "FeaturePicture":
        """Return a feature's strongest images in both views, with its activation over them.

        A notebook displays it; ``path`` saves it as a picture too.

        Args:
            feature: index in the dictionary.
            images: how many of its exemplars.
            path: where to save it; the suffix decides the format.

        Raises:
            ConfigError: there is no such feature.
        """
        from vitscope.figures.catalogue import draw_feature

        m = self.training.n_features
        if not 0 <= feature < m:
            raise ConfigError(f"there is no feature {feature}; they go from 0 to {m - 1}")
        row = {name: values[feature] for name, values in self.features.items()}
        picture = FeaturePicture(feature, row, draw_feature(self, feature, images))
        if path is not None:
            picture.save(Path(path))
        return picture

    def set_gamma(self, gamma: float | None) -> None:
        """Cut the dictionary at another γ, on disk, as the explorer does; None finds it anew.

        Raises:
            ConfigError: γ is no number between 0 and 1.
            RunLockedError: another process works in the run.
        """
        set_gamma(self.root, gamma)
        self.refresh()


class FeaturePicture:
    """A feature's exemplars: HTML in a notebook, a matplotlib figure, or a file."""

    def __init__(self, feature: int, row: Mapping[str, Any], figure: "Figure") -> None:
        self.feature, self.row, self.figure = feature, row, figure

    def save(self, path: Path) -> None:
        """Write it as a picture; the suffix decides the format."""
        self.figure.savefig(path)

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.figure.savefig(data, format="png")
        return data.getvalue()

    def _repr_html_(self) -> str:
        from vitscope.figures.files import inline_svg

        told = ", ".join(
            f"{name} {escape(f'{value:.3g}' if isinstance(value, float) else str(value))}"
            for name, value in self.row.items()
            if name in ("cds", "cds_se", "support", "density", "group")
        )
        picture = inline_svg(self.figure, f"feature-{self.feature}", f"feature {self.feature}")
        return f"<p><b>feature {self.feature}</b>: {told}</p>{picture}"


def open_run(folder: Path | str, *, run_code: bool = False) -> OpenRun:
    """Open a run directory to be read; no model is loaded.

    Args:
        folder: the run directory.
        run_code: whether a backbone that its study names as Python code may be executed, once it is
            asked for.

    Raises:
        ArtifactError: it is no run, or one that an earlier vitscope has made.
    """
    return OpenRun(folder, run_code=run_code)


def score(
    backbone: Backbone,
    sae: SparseAutoencoder,
    images: ImageSet | Path | str,
    *,
    out: Path | str | None = None,
    **options: Any,
) -> OpenRun:
    """Score every feature of ``sae`` on ``images`` (protocol, sections 4 to 6).

    The stages of a study run, over a folder that lives as long as the run returned, or ``out``.

    Args:
        backbone: read at its designated block.
        sae: trained there.
        images: a set, or a folder, list or scenes; unusable files are left out.
        out: keep the run there.
        options: whatever a study takes: ``seed=1``, or groups of settings such as
            ``scope={"shift": 2, "top_images": 8}`` or ``outliers={"images": 200}``.

    Raises:
        SaeError: the SAE is of another width, model or block.
        ImageSetError: there are no images, or too many of them cannot be used.
        ConfigError: an option that does not exist or is out of range.
    """
    check_fits(sae, backbone.site)
    found = images if isinstance(images, ImageSet) else open_image_set(Path(images))
    folder = Path(mkdtemp(prefix="vitscope-") if out is None else out).absolute()
    save_sae(folder / "given", sae)
    own = {"images", "backbone", "sae"} & options.keys()
    if own:
        raise ConfigError(f"score: {min(own)} is given as an object already")
    study = Study.parse(
        {
            "name": "score",
            "images": ImageSettings(train=found.root).model_dump(),
            "backbone": BackboneSettings(name=backbone.site.model).model_dump(),
            "sae": SaeSettings(path=folder / "given").model_dump(),
            **options,
        },
        source="score",
    )
    models = Models(study, RunDirectory(folder), backbone, found)
    run_study(study, folder, only=SCORED, models=models)
    run = OpenRun(folder, models=models)
    if out is None:
        weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run
