"""What every stage is handed: the study, its run directory, and what earlier stages left."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from vitscope.backbones.backbone import Backbone
from vitscope.backbones.loading import PLANTED, choose_device, load_backbone
from vitscope.distributed import current_ranks
from vitscope.errors import ArtifactError
from vitscope.images.sources import ImageRef
from vitscope.images.verify import VerifiedImages, read_image_table
from vitscope.sae.formats.load import load_sae as load_any_sae
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import check_fits, load_saved_sae
from vitscope.scope.instability_settings import compared_overlaps
from vitscope.scope.views import plain_view, shifted_views
from vitscope.stages.joined import announce_end, announced, joined_stage
from vitscope.store.checksum import fingerprint
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import StageBody, Stamp, outputs_digest, read_stamp, run_stage
from vitscope.study import Study
from vitscope.tokens.encoding import LoaderOptions


@dataclass(frozen=True)
class StageOutcome:
    """How a stage ended.

    Attributes:
        stamp: its record.
        skipped: nothing had changed, and the earlier result stands.
    """

    stamp: Stamp
    skipped: bool


@dataclass(frozen=True)
class Context:
    """A study in progress; the run directory is locked by the caller.

    Attributes:
        study: the settings.
        run: where everything lies.
        only: the stages that may work; another that is not up to date is an error. None: all may.
    """

    study: Study
    run: RunDirectory
    only: frozenset[str] | None = None

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone, loaded once per process."""
        return load_backbone(self.study.backbone)

    @cached_property
    def sae(self) -> SparseAutoencoder:
        """The run's SAE, on the backbone's terms."""
        sae = load_saved_sae(self.run.sae)
        check_fits(sae, self.backbone.site)
        return sae.to(self.device)

    @cached_property
    def given_sae(self) -> SparseAutoencoder:
        """The SAE that the study brings along, read (or fetched) once per process."""
        source = self.study.sae.path
        assert source is not None
        return load_any_sae(source)

    @property
    def device(self) -> torch.device:
        """Where the backbone's tokens lie, and the SAE with them; `planted` is on the CPU."""
        if self.study.backbone.name == PLANTED:
            return torch.device("cpu")
        return choose_device(self.study.backbone.device)

    def require_consistent(self) -> None:
        """Refuse what would fail in a later stage, before any image is looked at.

        Raises:
            VitscopeError: the device, the backbone, the shift, or the given SAE cannot be used.
        """
        choose_device(self.study.backbone.device)
        site = self.backbone.site
        compared_overlaps(site.grid, self.study.scope.shift, self.study.instability)
        if self.study.sae.path is not None:
            check_fits(self.given_sae, site)

    @property
    def reading(self) -> LoaderOptions:
        """How images are read for a forward pass."""
        images = self.study.images
        return LoaderOptions(self.study.backbone.batch_size, images.workers, images.max_pixels)

    @property
    def stretch(self) -> bool:
        """Whether images are stretched to the square rather than cropped."""
        return self.study.scope.resize == "stretch"

    @property
    def plain_view(self) -> Callable[[Image], Tensor]:
        """Prepares an image as the backbone takes it, unshifted."""
        backbone = self.backbone
        return partial(
            plain_view,
            site=backbone.site,
            preprocessing=backbone.preprocessing,
            stretch=self.stretch,
        )

    @property
    def shifted_views(self) -> Callable[[Image], Tensor]:
        """Prepares the two views of an image that the study compares."""
        return partial(
            shifted_views,
            site=self.backbone.site,
            shift=self.study.scope.shift,
            stretch=self.stretch,
        )

    @property
    def backbone_digest(self) -> str:
        """Hash of what the backbone is and how it sees images."""
        parts = asdict(self.backbone.site) | {"sees": asdict(self.backbone.preprocessing)}
        return fingerprint(parts | {"resize": self.study.scope.resize})

    def images(self, split: str) -> VerifiedImages:
        """Return the verified images of ``train`` or ``eval``."""
        shared = split == "eval" and self.study.images.eval is None
        return read_image_table(self.run.images("train" if shared else split))

    def eval_refs(self) -> Sequence[ImageRef]:
        """Return the usable evaluation images."""
        return self.images("eval").usable

    @cached_property
    def eval_positions(self) -> dict[str, int]:
        """Position of each evaluation image in its set, by id."""
        return {ref.id: index for index, ref in enumerate(self.eval_refs())}

    def done(self, stage: str) -> Stamp:
        """Return the stamp of a stage that must have finished.

        Raises:
            ArtifactError: it has not; the message says what to run.
        """
        stamp = read_stamp(self.run, stage)
        if stamp is None:
            raise ArtifactError(
                f"stage '{stage}' has not finished in {self.run.root}; run `vitscope run` on the "
                f"same study, or `vitscope {stage}` first"
            )
        return stamp

    def finish(
        self,
        stage: str,
        *,
        settings: Mapping[str, Any],
        after: Sequence[str],
        body: StageBody,
        extra_inputs: Mapping[str, str] | None = None,
        shared: bool = False,
    ) -> StageOutcome:
        """Run ``body`` unless the stage stands; its inputs are the outputs of ``after``.

        In a job of several ranks, rank 0 runs the body and the others wait; with ``shared``, all
        of them run it, and rank 0 alone writes.
        """
        inputs = {name: outputs_digest(self.done(name)) for name in after}
        may_work = self.only is None or stage in self.only
        if current_ranks().rank != 0:
            return StageOutcome(*joined_stage(body))
        stamp, skipped = run_stage(
            self.run,
            stage,
            settings={"seed": self.study.seed, **settings},
            inputs={**inputs, **(extra_inputs or {})},
            body=(announced(body) if shared else body) if may_work else None,
        )
        announce_end(stamp, skipped)
        return StageOutcome(stamp, skipped)
