"""The mistakes that the selfcheck must see: patch, stages, red checks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pytest import MonkeyPatch
from torch import Tensor

from vitscope.backbones.planted.planted import WrittenAttention
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope import instability, pairs
from vitscope.scope.cds import FeatureScores
from vitscope.scope.exemplars import TopImages
from vitscope.scope.outliers import OutlierThreshold
from vitscope.scope.pairs import PairScores
from vitscope.scope.views import Overlap
from vitscope.stages import evaluate, outliers, partition

MAPS = "feature maps, largest error of a cell"


def _first_off_by_one_row(patch: MonkeyPatch) -> None:
    honest_first: Any = Overlap.first.fget
    patch.setattr(Overlap, "first", property(lambda self: honest_first(self) - self.grid))


def _second_view_transposed(patch: MonkeyPatch) -> None:
    honest_maps = pairs.feature_maps

    def maps(*arguments: Any) -> Any:
        first, second = honest_maps(*arguments)
        return first, second.swapaxes(1, 2)

    patch.setattr(pairs, "feature_maps", maps)


def _both_views_transposed(patch: MonkeyPatch) -> None:
    def positions(self: Overlap, start: int) -> Any:
        along = np.arange(start, start + self.side)
        return (along[None, :] * self.grid + along[:, None]).ravel()

    patch.setattr(Overlap, "_positions", positions)


def _mass_not_normalised(patch: MonkeyPatch) -> None:
    honest_emd = pairs.emd

    def unscaled(a: Any, b: Any, **options: Any) -> Any:
        # a sparse batch is [N, H·W]
        return honest_emd(a, b, **options) * a.sum(1 if a.ndim == 2 else (1, 2))

    for module in (pairs, instability):
        patch.setattr(module, "emd", unscaled)


def _exemplars_shuffled(patch: MonkeyPatch) -> None:
    honest_merge = evaluate._merge

    def merge(job: Any, *arguments: Any) -> Any:
        top, *others = honest_merge(job, *arguments)
        n = len(job.eval_refs)
        image = torch.where(top.image >= 0, (top.image + 1) % n, top.image)
        top = TopImages.of(top.activation, image)
        return top, *others

    patch.setattr(evaluate, "_merge", merge)


def _tau_times(factor: float) -> Callable[[MonkeyPatch], None]:
    honest_tau = outliers.propose_tau

    def propose(norms: Any, *arguments: Any, **options: Any) -> OutlierThreshold:
        found = honest_tau(norms, *arguments, **options)
        tau = found.tau * factor
        return replace(found, tau=tau, share=float((norms > tau).mean()))

    return lambda patch: patch.setattr(outliers, "propose_tau", propose)


def _prefix_key_kept(patch: MonkeyPatch) -> None:
    patch.setattr(WrittenAttention, "n_prefix", property(lambda _: 0))


def _diameter_of_the_whole_grid(patch: MonkeyPatch) -> None:
    patch.setattr(Overlap, "diameter", property(lambda self: np.sqrt(2) * (self.grid - 1)))


def _summaries(change: Callable[..., FeatureScores]) -> Callable[[MonkeyPatch], None]:
    return lambda patch: patch.setattr(partition, "summarise_pairs", change)


honest_summary = partition.summarise_pairs


def _cds_over_the_whole_grid(
    pairs: PairScores, n: int, _: float, missing: Any, *others: Any
) -> FeatureScores:
    return honest_summary(pairs, n, np.sqrt(2) * 13, missing, *others)


def _misses_count_zero(
    pairs: PairScores, n: int, diameter: float, _: Any, *others: Any
) -> FeatureScores:
    return honest_summary(pairs, n, diameter, "zero", *others)


def _misses_dropped(
    pairs: PairScores, n: int, diameter: float, _: Any, *others: Any
) -> FeatureScores:
    return honest_summary(pairs, n, diameter, "drop", *others)


def _bias_not_subtracted(patch: MonkeyPatch) -> None:
    def pre_activations(self: SparseAutoencoder, x: Tensor, features: Any = None) -> Tensor:
        chosen = slice(None) if features is None else features
        return torch.addmm(self.b_enc[chosen], x, self.w_enc[:, chosen])

    patch.setattr(SparseAutoencoder, "pre_activations", pre_activations)


def _bias_not_added_back(patch: MonkeyPatch) -> None:
    def decode(self: SparseAutoencoder, codes: Tensor, like: Any = None) -> Tensor:
        return codes @ self.w_dec

    patch.setattr(SparseAutoencoder, "decode", decode)


def _decoder_rows_shifted(patch: MonkeyPatch) -> None:
    def decode(self: SparseAutoencoder, codes: Tensor, like: Any = None) -> Tensor:
        return torch.addmm(self.b_dec, codes, self.w_dec.roll(1, 0))

    patch.setattr(SparseAutoencoder, "decode", decode)


@dataclass(frozen=True)
class Mistake:
    """One mistake, the stages that it touches, and the checks that must be red."""

    name: str
    make: Callable[[MonkeyPatch], None]
    redo: tuple[str, ...]
    red: frozenset[str]


def mistake(name: str, make: Callable[[MonkeyPatch], None], redo: str, *red: str) -> Mistake:
    return Mistake(name, make, tuple(redo.split()), frozenset(red))


SCORES = "score partition awcds"

MISTAKES = [
    mistake(
        "overlap offset off by one row", _first_off_by_one_row, SCORES,
        "mean CDS, local", "CDS relative to the null, local", "awCDS, other tokens", MAPS,
        "share of local pairs that survive",
    ),
    mistake(
        "grid transposed in one view", _second_view_transposed, SCORES,
        "mean CDS, local", "AUROC, local against global", "CDS relative to the null, local",
        "awCDS, other tokens",
    ),
    mistake("grid transposed in both views", _both_views_transposed, SCORES, MAPS),
    mistake(
        "maps not normalised", _mass_not_normalised, SCORES + " instability",
        "mean CDS, local", "mean CDS, global", "mean CDS, border", "relocation null, global",
        "D̄_out under «query», patches", "D̄_out under «received», patches",
        "D̄_out under «key», patches",
    ),
    mistake(
        "exemplars shuffled", _exemplars_shuffled, "evaluate",
        "exemplars as the truth ranks them",
    ),
    mistake(
        "τ too low", _tau_times(0.5), "outliers evaluate",
        "share of tokens above τ", "FVU of outlier tokens",
    ),
    mistake(
        "τ too high", _tau_times(2.0), "outliers evaluate instability",
        "share of tokens above τ", "FVU of outlier tokens", "D̄_non under «query», patches",
    ),
    mistake(
        "prefix key not dropped", _prefix_key_kept, "instability",
        "D̄_out under «query», patches", "D̄_non under «query», patches",
        "D̄_non under «received», patches", "D̄_out under «key», patches",
        "D̄_non under «key», patches",
    ),
    mistake(
        "D_grid of the view everywhere", _diameter_of_the_whole_grid, "score partition instability",
        "D_grid, patches", "mean CDS, global", "mean CDS, border", "relocation null, global",
    ),
    mistake(
        "D_grid of the view for the CDS", _summaries(_cds_over_the_whole_grid), "partition",
        "mean CDS, global", "mean CDS, border",
    ),
    mistake(
        "misses counted zero", _summaries(_misses_count_zero), "partition awcds",
        "mean CDS, global", "mean CDS, border", "awCDS, outlier tokens",
    ),
    mistake(
        "misses dropped", _summaries(_misses_dropped), "partition",
        "mean CDS, global", "n_pairs as counted in pairs",
    ),
    mistake(
        "b_dec not subtracted before the encoder", _bias_not_subtracted, "evaluate",
        "FVU of all tokens", "FVU of outlier tokens", MAPS,
    ),
    mistake(
        "b_dec not added after the decoder", _bias_not_added_back, "evaluate",
        "FVU of all tokens", "FVU of outlier tokens",
    ),
    mistake(
        "decoder rows of other features", _decoder_rows_shifted, "evaluate",
        "FVU of all tokens", "FVU of outlier tokens",
    ),
]  # fmt: skip
