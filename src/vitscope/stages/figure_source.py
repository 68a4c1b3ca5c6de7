"""What the figures of a run are drawn from: its tables, and its views and maps computed anew."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

from vitscope.backbones.user_model import require_trust
from vitscope.errors import VitscopeError
from vitscope.images.sources import ImageRef
from vitscope.report.beside import RunFigures
from vitscope.report.instability import InstabilityView, instability_view
from vitscope.scope.cds import FeatureScores
from vitscope.scope.exemplar_views import GalleryFeature, exemplar_views
from vitscope.scope.gallery import choose_gallery, minimum_pairs
from vitscope.scope.outliers import OutlierThreshold
from vitscope.scope.partition import Partition, partition_features
from vitscope.scope.token_maps import TokenMaps, token_maps
from vitscope.stages.beside import read_run_figures
from vitscope.stages.context import Context
from vitscope.stages.instability_table import read_instability
from vitscope.stages.run_tables import read_threshold
from vitscope.stages.score import read_pairs
from vitscope.store.atomic import read_json
from vitscope.store.foreign import tables_of
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import read_stamp
from vitscope.store.tables import read_table

IMAGES_SHOWN = 4
"""Images of the maps of norms and awCDS."""


class NotInRunError(VitscopeError):
    """A run does not hold what a figure is drawn from; the message says what to run first."""


@dataclass(frozen=True)
class FigureSource:
    """One run, read as its figures need it; each part once.

    Attributes:
        context: the study and its run directory.
        per_group: features of each gallery.
        run_code: whether a backbone that the study names as Python code is executed.
    """

    context: Context
    per_group: int
    run_code: bool = False

    @property
    def run(self) -> RunDirectory:
        """Where everything lies."""
        return self.context.run

    def need(self, *stages: str) -> None:
        """Refuse what was not run.

        Raises:
            NotInRunError: one of ``stages`` has not finished.
        """
        for stage in stages:
            if read_stamp(self.run, stage) is None:
                raise NotInRunError(f"stage '{stage}' has not finished: `vitscope {stage}` first")

    @cached_property
    def scores(self) -> FeatureScores:
        """Every figure per feature, as the run's table has it: no backbone is needed."""
        with tables_of(self.run.root):
            table = read_table(self.run.features)
            return FeatureScores(**{f.name: table[f.name] for f in fields(FeatureScores)})

    @cached_property
    def partition(self) -> Partition:
        """The groups and γ."""
        scope = self.context.study.scope
        return partition_features(self.scores.cds, gamma=scope.gamma, unscored=scope.unscored)

    @property
    def tau(self) -> OutlierThreshold:
        """The outlier threshold."""
        with tables_of(self.run.root):
            return read_threshold(self.run)

    @cached_property
    def instability(self) -> InstabilityView:
        """Rows of every shift and reading."""
        study = self.context.study
        with tables_of(self.run.root):
            rows = read_instability(self.run.table("instability")).rows
        return instability_view(rows, study.scope, study.outliers)

    @property
    def diameter(self) -> float:
        """D_grid at the study's own shift, in patches."""
        with tables_of(self.run.root):
            return float(read_json(self.run.table("instability"))["diameter"])

    @cached_property
    def figures(self) -> RunFigures:
        """What stands beside other runs."""
        with tables_of(self.run.root):
            return read_run_figures(self.run, self.context.study)

    @cached_property
    def gallery(self) -> dict[str, tuple[GalleryFeature, ...]]:
        """Features of both groups on their strongest images: group -> features, CDS ascending."""
        least = minimum_pairs(self.context.study.scope.top_images)
        choice = choose_gallery(self.scores, self.partition, least, self.per_group)
        shown = show_features(self._with_models(), choice.features)
        return {"low": shown[: len(choice.low)], "high": shown[len(choice.low) :]}

    @cached_property
    def token_maps(self) -> tuple[TokenMaps, ...]:
        """Norms and awCDS of some images."""
        return show_tokens(self._with_models(), self.scores)

    def _with_models(self) -> Context:
        """Return the context, whose backbone is loaded when it is asked for.

        Raises:
            BackboneError: the backbone is Python code that may not be executed.
        """
        require_trust(self.context.study.backbone.name, self.run.root, self.run_code)
        return self.context


def show_features(context: Context, features: Sequence[int]) -> tuple[GalleryFeature, ...]:
    """Encode both views of the strongest images of ``features`` anew."""
    return exemplar_views(
        context.backbone,
        context.sae,
        context.eval_refs(),
        read_pairs(context.run.pairs),
        features,
        shift=context.study.scope.shift,
        stretch=context.stretch,
        reading=context.reading,
    )


def show_tokens(context: Context, scores: FeatureScores) -> tuple[TokenMaps, ...]:
    """Encode evenly spread evaluation images anew."""
    return token_maps(
        context.backbone,
        context.sae,
        spread_images(context.eval_refs(), IMAGES_SHOWN),
        scores.cds,
        stretch=context.stretch,
        reading=context.reading,
    )


def spread_images(refs: Sequence[ImageRef], n: int) -> tuple[ImageRef, ...]:
    """Return ``n`` of ``refs``, evenly spread over their order; all when there are fewer."""
    kept = min(n, len(refs))
    return tuple(refs[place * len(refs) // kept] for place in range(kept))
