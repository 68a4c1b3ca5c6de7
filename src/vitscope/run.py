"""A finished run, or one in progress, opened to be read: the one reader of everything it holds.

No model is loaded until one is asked for. What a stage has found is its record, as
:mod:`vitscope.store.records` saved it; tables are read from their files when first asked.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from vitscope.backbones.backbone import Backbone, BackboneDescription, Site
from vitscope.backbones.user_model import require_trust
from vitscope.errors import ArtifactError
from vitscope.images.sources import ImageRef, open_image
from vitscope.images.verify import VerifiedImages, read_image_table
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.gallery import GalleryChoice, GalleryFeature, GalleryImage, TokenMaps
from vitscope.scope.views import plain_view, shifted_views
from vitscope.stages.awcds import AwcdsResult, AwcdsStage
from vitscope.stages.backbone import BackboneStage
from vitscope.stages.evaluate import EvaluateResult, EvaluateStage
from vitscope.stages.gallery import GalleryStage
from vitscope.stages.images import ImagesStage
from vitscope.stages.instability import InstabilityResult, InstabilityStage
from vitscope.stages.outliers import OutliersResult, OutliersStage
from vitscope.stages.partition import PartitionResult, PartitionStage
from vitscope.stages.probe import ProbesResult, ProbeStage
from vitscope.stages.score import ScoreResult, ScoreStage
from vitscope.stages.stability import StabilityResult, StabilityStage
from vitscope.stages.stage import Models, Stage, not_finished
from vitscope.stages.train import TrainResult, TrainStage
from vitscope.stages.zeroshot import ZeroShotResult, ZeroShotStage
from vitscope.store.records import load_record
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stamp import Stamp, read_stamp, refuse_older
from vitscope.store.tables import Table, tables_of
from vitscope.study import Study, load_study
from vitscope.tokens.encoding import LoaderOptions

R = TypeVar("R")

STAGES_READ: tuple[type[Stage[Any]], ...] = (
    BackboneStage, ImagesStage, TrainStage, OutliersStage, EvaluateStage, ScoreStage,
    PartitionStage, StabilityStage, GalleryStage, InstabilityStage, AwcdsStage, ProbeStage,
    ZeroShotStage,
)  # fmt: skip


class Run:
    """The results of a run directory, read-only.

    Args:
        folder: the run directory.
        run_code: whether a backbone that its study names as Python code may be executed.
        models: those of a run in progress; None loads the study's when they are asked for.

    Raises:
        ArtifactError: ``folder`` is no run, or one that an earlier vitscope has made.
        ConfigError: its ``study.toml`` cannot be read.
    """

    def __init__(
        self, folder: Path | str, *, run_code: bool = False, models: Models | None = None
    ) -> None:
        self.directory = RunDirectory(Path(folder).absolute())
        if not self.directory.study.is_file():
            raise ArtifactError(
                f"{folder} is no run directory: it has no study.toml; give the --out of `vitscope "
                "run`, or runs/demo after `vitscope demo`"
            )
        self.study: Study = load_study(self.directory.study)
        refuse_older(self.directory, tuple(stage.name for stage in STAGES_READ))
        self._run_code, self._models = run_code, models
        self._results: dict[str, Any] = {}

    @property
    def root(self) -> Path:
        """The run directory."""
        return self.directory.root

    @property
    def name(self) -> str:
        """Title of its study."""
        return self.study.name

    def __repr__(self) -> str:
        return f"Run({str(self.root)!r}: {', '.join(self.provenance) or 'no stage has finished'})"

    def refresh(self) -> None:
        """Forget what was read: the run has changed on disk."""
        self._results.clear()
        for name in ("study", "image_refs"):
            self.__dict__.pop(name, None)
        self.study = load_study(self.directory.study)

    # What every stage has left

    @property
    def provenance(self) -> Mapping[str, Stamp]:
        """Stage -> settings, inputs, checksums, seconds and versions; those that have finished."""
        stamps = {path.stem: read_stamp(self.directory, path.stem)
                  for path in sorted(self.directory.stamp("").parent.glob("*.json"))}  # fmt: skip
        return {name: stamp for name, stamp in stamps.items() if stamp is not None}

    def has(self, *stages: str) -> bool:
        """Whether all of ``stages`` have finished."""
        return all(read_stamp(self.directory, stage) is not None for stage in stages)

    def require(self, *stages: str) -> None:
        """Refuse what was not run.

        Raises:
            ArtifactError: one of ``stages`` has not finished; the message says what to run.
        """
        for stage in stages:
            if not self.has(stage):
                raise not_finished(stage, self.directory)

    def stamp(self, stage: str) -> Stamp:
        """Return what a finished stage was made from.

        Raises:
            ArtifactError: it has not finished.
        """
        stamp = read_stamp(self.directory, stage)
        if stamp is None:
            raise not_finished(stage, self.directory)
        return stamp

    def result(self, stage: type[Stage[R]]) -> R:
        """Return what a stage has found.

        Raises:
            ArtifactError: it has not finished, or what it left is not whole.
        """
        if stage.name not in self._results:
            with tables_of(self.root):
                found = load_record(stage.result_type(), self.stamp(stage.name).result, self.root)
            self._results[stage.name] = found
        return self._results[stage.name]

    @property
    def site(self) -> Site:
        """Where activations were read: model, block, width, grid."""
        return self.result(BackboneStage).site

    @property
    def backbone_facts(self) -> BackboneDescription:
        """Site, preprocessing and size of the backbone, without loading it."""
        return self.result(BackboneStage)

    @property
    def training(self) -> TrainResult:
        """How the SAE was trained, or how a given one does."""
        return self.result(TrainStage)

    @property
    def outliers(self) -> OutliersResult:
        """τ, its evidence and the histogram of norms."""
        return self.result(OutliersStage)

    @property
    def reconstruction(self) -> EvaluateResult:
        """FVU, L0, cosine (Table 6), activity and exemplars."""
        return self.result(EvaluateStage)

    @property
    def scoring(self) -> ScoreResult:
        """Distances of every exemplar pair, and D_grid."""
        return self.result(ScoreStage)

    @property
    def partition(self) -> PartitionResult:
        """γ, its evidence, and the groups."""
        return self.result(PartitionStage)

    @property
    def stability(self) -> StabilityResult:
        """The scores held against those of other choices."""
        return self.result(StabilityStage)

    @property
    def instability(self) -> InstabilityResult:
        """How far attention moves (Tables 7 and 9)."""
        found = self.result(InstabilityStage)
        return replace(found, reading=self.study.outliers.attention)

    @property
    def awcds(self) -> AwcdsResult:
        """awCDS over the spectrum of token norms (Figure 7)."""
        return self.result(AwcdsStage)

    @property
    def probes(self) -> ProbesResult:
        """Linear probes with and without each group (Table 8)."""
        return self.result(ProbeStage)

    @property
    def zeroshot(self) -> ZeroShotResult:
        """Predictions by text with and without each group."""
        return self.result(ZeroShotStage)

    @property
    def gallery_choice(self) -> GalleryChoice:
        """The features of the gallery, and the rule they were chosen by."""
        return self.result(GalleryStage).choice

    def gallery(self, features: Collection[int] | None = None) -> tuple[GalleryFeature, ...]:
        """Return features of the gallery on their strongest images, low-CDS first.

        Maps are those of stage «gallery»; photographs are cut anew, no model is loaded.

        Args:
            features: of these; None returns all.

        Raises:
            UnreadableImageError: a photograph is gone.
        """
        table, side = self.result(GalleryStage).maps, self.site.grid
        maps = table["activation"].reshape(-1, 2, side, side)
        rows = {name: table[name][:: 2 * side * side] for name in ("feature", "image", "emd")}
        wanted = self.gallery_choice.features
        found: dict[int, list[GalleryImage]] = {
            j: [] for j in wanted if features is None or j in features
        }
        views: dict[int, NDArray[np.uint8]] = {}
        for j, image, emd, both in zip(*rows.values(), maps, strict=True):
            if int(j) not in found:
                continue
            ref = self.image_refs[int(image)]
            if int(image) not in views:
                views[int(image)] = self._cut(ref, shifted=True)
            found[int(j)].append(GalleryImage(ref.id, views[int(image)], both, float(emd)))
        return tuple(GalleryFeature(j, tuple(images)) for j, images in found.items())

    @property
    def token_maps(self) -> tuple[TokenMaps, ...]:
        """Norms and awCDS of some images, patch by patch; no model is loaded."""
        table, side = self.result(GalleryStage).tokens, self.site.grid
        norms, awcds = (table[name].reshape(-1, side, side) for name in ("norm", "awcds"))
        refs = [self.image_refs[int(image)] for image in table["image"][:: side * side]]
        return tuple(
            TokenMaps(ref.id, self._cut(ref, shifted=False), *maps)
            for ref, *maps in zip(refs, norms, awcds, strict=True)
        )

    def _cut(self, ref: ImageRef, *, shifted: bool) -> NDArray[np.uint8]:
        facts, study = self.backbone_facts, self.study
        image = open_image(ref, max_pixels=study.images.max_pixels)
        if shifted:
            views = shifted_views(image, facts.site, study.scope.shift, stretch=study.stretch)
        else:
            views = plain_view(image, facts.site, facts.preprocessing, stretch=study.stretch)
        return views.numpy()

    @property
    def training_log(self) -> tuple[Mapping[str, float], ...]:
        """Lines of the log of a training; none for an SAE brought along."""
        path = self.directory.training_log
        if self.training.training is None or not path.is_file():
            return ()
        with tables_of(self.root):
            return tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())

    # Tables

    @property
    def features(self) -> Table:
        """One row a feature: CDS, its error, support, nulls, activity, group."""
        return self.partition.features

    @property
    def exemplars(self) -> Table:
        """One row a (feature, rank): image and activation."""
        return self.reconstruction.exemplars

    @property
    def pairs(self) -> Table:
        """One row a (feature, exemplar): distance between both views' maps, nulls, active cells."""
        return self.scoring.pairs

    @property
    def images(self) -> Table:
        """One row an evaluation image: id, path, label, size, checksum; in the pairs' order."""
        self.require("images")
        return Table.at(self._images_path("eval"))

    def verified(self, split: str = "eval") -> VerifiedImages:
        """Return the usable and the skipped images of ``train`` or ``eval``."""
        self.require("images")
        with tables_of(self.root):
            return read_image_table(self._images_path(split))

    @cached_property
    def image_refs(self) -> tuple[ImageRef, ...]:
        """The evaluation images, in the order that tables count."""
        return tuple(self.verified("eval").usable)

    def _images_path(self, split: str) -> Path:
        shared = split == "eval" and self.study.images.eval is None
        return self.directory.images("train" if shared else split)

    # Models, loaded when first asked for

    @cached_property
    def models(self) -> Models:
        """What computes, by the study.

        Raises:
            BackboneError: the backbone is Python code that may not be executed.
        """
        if self._models is not None:  # whoever hands them over has loaded, or trusts, the code
            return self._models
        require_trust(self.study.backbone.name, self.root, self._run_code)
        return Models(self.study, self.directory)

    @property
    def backbone(self) -> Backbone:
        """The backbone, with its weights."""
        return self.models.backbone

    @property
    def sae(self) -> SparseAutoencoder:
        """The run's SAE, where the backbone's tokens lie."""
        return self.models.sae

    @property
    def plain_view(self) -> Callable[[Image], Tensor]:
        """Prepares an image as the backbone takes it: bytes [3, H, W]."""
        return self.models.plain_view

    @property
    def shifted_views(self) -> Callable[[Image], Tensor]:
        """Prepares the two views of an image that the run compared: bytes [2, 3, H, W]."""
        return self.models.shifted_views

    @property
    def options(self) -> LoaderOptions:
        """How images are read for a forward pass."""
        images = self.study.images
        return LoaderOptions(self.study.backbone.batch_size, images.workers, images.max_pixels)
