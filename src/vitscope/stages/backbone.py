"""Stage «backbone»: what the backbone is and how it sees images, so that tables need no weights."""

from collections.abc import Mapping
from typing import Any

from vitscope.backbones.backbone import BackboneDescription, describe_backbone
from vitscope.backbones.loading import choose_device, weights_files
from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.zoo import PAPER_ZOO, position_method
from vitscope.sae.storage import check_fits
from vitscope.scope.views import compared_overlaps
from vitscope.stages.stage import Job, Stage
from vitscope.store.stamp import read_stamp

HOW_NOT_WHAT = {"device", "batch_size"}
"""Settings that change how fast tokens come, and nothing about them."""

FILES = "files"


class BackboneStage(Stage[BackboneDescription]):
    """Loads the backbone when its settings or the files of its weights have changed."""

    name = "backbone"
    Result = BackboneDescription

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return what it is and where it is read."""
        study = job.study
        chosen = study.backbone.model_dump(mode="json", exclude=HOW_NOT_WHAT)
        chosen["positions"] = position_method(study.backbone)
        standing = read_stamp(job.run, self.name)
        known = {} if standing is None else standing.settings.get(FILES, {})
        return {**chosen, "resize": study.scope.resize, FILES: _states(study.backbone, known)}

    def run(self, job: Job) -> BackboneDescription:
        """Load it, and refuse what would fail in a later stage before any image is looked at.

        Raises:
            VitscopeError: the device, the backbone, the shift, or the given SAE cannot be used.
        """
        study = job.study
        choose_device(study.backbone.device)
        backbone = job.models.backbone
        compared_overlaps(backbone.site.grid, study.scope.shift, study.instability)
        if study.sae.path is not None:
            check_fits(job.models.given_sae, backbone.site)
        return describe_backbone(backbone)


def _states(settings: BackboneSettings, known: dict[str, str]) -> dict[str, str]:
    """Return path -> size and time of each file of the weights; where one is gone, as last known.

    A run whose weights were deleted or lie on another machine can still be cut, drawn and read.
    """
    found: dict[str, str] = {}
    for path in weights_files(settings):
        try:
            state = path.stat()
        except OSError:
            return known
        found[str(path)] = f"{state.st_size} {state.st_mtime_ns}"
    return found


def is_at_paper_layer(job: Job) -> bool:
    """Whether the backbone is one of the paper's, read at the block that the paper took."""
    name = job.study.backbone.name
    return name in PAPER_ZOO and PAPER_ZOO[name].layer == job.result(BackboneStage).site.layer
