"""Held-out figures, the interval of θ, early stop, messages that name images, several SAEs."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.sae.planted_codes import mixtures, unit_atoms
from torch import Tensor

from vitscope.errors import SaeError
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.plan import plan_training
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TensorSource
from vitscope.sae.step import EarlyStop
from vitscope.sae.threshold import (
    evaluate_held_out,
    fit_threshold,
    fit_with_interval,
    running_threshold,
)
from vitscope.sae.training import TrainingJob, train_sae, train_saes
from vitscope.tokens.sampling import HeldOut

SETTINGS = SaeSettings(
    expansion=4, k=3, batch_size=100, learning_rate=3e-3, steps=40, evaluate_every=8,
    evaluation_tokens=300, threshold_tokens=400, checkpoint_every=7, log_every=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def source() -> TensorSource:
    tokens = mixtures(unit_atoms(32, 16, seed=0), 3000, 3, noise=0.05, seed=1)
    return TensorSource(tokens[500:], apart=tokens[:500])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_held_out_figures_are_those_of_the_finished_sae(
    source: TensorSource, tmp_path: Path
) -> None:
    trained = train_sae(source, SETTINGS, seed=0, log=tmp_path / "log")
    written = lines(tmp_path / "log")
    assert [line["step"] for line in written if "held_out_fvu" in line] == [8, 16, 24, 32, 40]
    assert [line["step"] for line in written] == [5, 8, 10, 15, 16, 20, 24, 25, 30, 32, 35, 40]
    assert source.apart is not None
    sae, x = trained.sae, source.apart[:400]
    codes = sae.encode(x)
    error = (x - sae.decode(codes)).double().square().sum()
    spread = (x.double() - x.double().mean(0)).square().sum()
    info = sae.info
    assert info["held_out_fvu"] == pytest.approx(float(error / spread), rel=1e-5)
    assert info["held_out_l0"] == pytest.approx(3, abs=0.01)
    assert info["held_out_silent_share"] == float(((codes > 0).sum(0) == 0).double().mean())
    assert (info["held_out"], info["threshold_images"]) == ("images", 400)
    low, high = float(info["threshold_low"]), float(info["threshold_high"])
    assert low < sae.threshold < high
    # the last evaluation: the same SAE at the running θ, which is near the fitted one
    last = written[-1]
    theta = last["running_threshold"] / float(info["input_scale"])
    there = evaluate_held_out(replace(sae, threshold=theta), source.apart[:300])
    assert last["held_out_fvu"] == pytest.approx(there.fvu, rel=1e-4)
    assert last["held_out_l0"] == pytest.approx(there.l0, rel=1e-3)
    assert theta == pytest.approx(sae.threshold, rel=0.25)


def test_evaluating_changes_no_weight(source: TensorSource) -> None:
    often, never = (
        train_sae(source, SETTINGS.model_copy(update={"evaluate_every": every}), seed=0).sae
        for every in (3, 0)
    )
    assert torch.equal(often.w_enc, never.w_enc)
    assert often.threshold == never.threshold


def test_an_identity_has_fvu_0_and_a_constant_1() -> None:
    x = torch.rand(50, 6) + 1
    eye, zero = torch.eye(6), torch.zeros(6)
    identity = SparseAutoencoder(eye, zero, eye, zero, 0.0, 6)
    assert evaluate_held_out(identity, x).fvu == pytest.approx(0, abs=1e-12)
    constant = SparseAutoencoder(eye, zero - 1e3, eye, x.mean(0), 0.0, 6)
    found = evaluate_held_out(constant, x)
    assert found.fvu == pytest.approx(1, rel=1e-6)
    assert (found.l0, found.silent_share, found.n_tokens) == (0, 1, 50)


def one_feature_sae(n: int) -> SparseAutoencoder:
    eye = torch.eye(n)
    return SparseAutoencoder(eye, torch.zeros(n), eye, torch.zeros(n), 0.0, 1)


def test_the_interval_has_the_spread_of_fits_on_fresh_images() -> None:
    g = torch.Generator().manual_seed(0)

    def images(n: int) -> HeldOut:
        level = torch.rand(n, 1, 1, generator=g) * 2  # an image's tokens are alike
        tokens = (level + torch.rand(n, 10, 4, generator=g)).flatten(0, 1)
        return HeldOut(tokens, torch.arange(n).repeat_interleave(10), "images")

    sae = one_feature_sae(4)
    fits = torch.tensor([fit_threshold(sae, images(60).tokens) for _ in range(200)])
    widths = [
        (fit.high - fit.low, fit.low <= float(fits.mean()) <= fit.high)
        for fit in (fit_with_interval(sae, images(60), seed=seed) for seed in range(30))
    ]
    expected = float(fits.quantile(0.975) - fits.quantile(0.025))
    mean_width = sum(width for width, _ in widths) / len(widths)
    assert mean_width == pytest.approx(expected, rel=0.2)
    assert sum(covers for _, covers in widths) >= 25
    # tokens taken for independent would give a far narrower one
    shuffled = images(60)
    alone = replace(shuffled, images=torch.arange(600))
    narrow = fit_with_interval(sae, alone, seed=0)
    assert narrow.high - narrow.low < 0.6 * mean_width


def test_one_image_has_no_interval() -> None:
    held = HeldOut(torch.rand(20, 4), torch.zeros(20, dtype=torch.int64), "images")
    fit = fit_with_interval(one_feature_sae(4), held, seed=0)
    assert fit.low != fit.low
    assert fit.value == fit_threshold(one_feature_sae(4), held.tokens)


def test_running_threshold_and_early_stop() -> None:
    first = running_threshold(None, 2.0)
    assert first == 2
    assert running_threshold(first, 3.0) == pytest.approx(0.9 * 2 + 0.1 * 3)
    stop = EarlyStop().after(0.5).after(0.6).after(0.5)
    assert (stop.best, stop.n_since_best) == (0.5, 2)
    assert stop.after(0.4).n_since_best == 0


def test_early_stop_falls_to_zero_first_and_resumes(source: TensorSource, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(
        update={"steps": 400, "patience": 1, "evaluate_every": 5, "learning_rate": 0.03}
    )
    log, checkpoint = tmp_path / "log", tmp_path / "checkpoint"
    whole = train_sae(source, settings, seed=0, log=log, checkpoint=checkpoint)
    written = lines(log)
    looked = [line for line in written if "held_out_fvu" in line]
    first_worse = next(
        b["step"] for a, b in pairwise(looked)
        if b["held_out_fvu"] >= a["held_out_fvu"]
    )  # fmt: skip
    plan = plan_training(settings, source, seed=0, fingerprint="")
    end = plan.end_after_fall(first_worse)
    assert whole.n_steps == end == first_worse + 80 < 400
    assert written[-1]["step"] == end
    assert written[-1]["learning_rate"] == pytest.approx(settings.learning_rate / 80)
    assert (whole.sae.info["steps"], whole.sae.info["steps_planned"]) == (end, 400)
    again = train_sae(source, settings, seed=0, log=log, checkpoint=checkpoint)
    assert again.resumed_from == end
    assert again.tokens_per_second != again.tokens_per_second
    assert torch.equal(again.sae.w_enc, whole.sae.w_enc)
    assert plan.learning_rate(end - 1, end) == written[-1]["learning_rate"]


class Spoiled(TensorSource):
    """Rows of one batch are NaN."""

    rows: tuple[int, ...] = (2, 7)

    def epoch_batches(self, epoch: int, batch_size: int, skip: int = 0) -> Any:
        for number, batch in enumerate(super().epoch_batches(epoch, batch_size, skip), skip):
            if (epoch, number) == (1, 3):
                batch[list(self.rows), 1] = float("nan")
            yield batch


def test_bad_activations_name_step_batch_and_images(source: TensorSource) -> None:
    spoiled = Spoiled(source.tokens)
    named = spoiled.images_of(1, 100, 3)
    with pytest.raises(
        SaeError,
        match=rf"^step 29: .* \(batch 3 of epoch 1, images {named[2]}, {named[7]}\)$",
    ):
        train_sae(spoiled, SETTINGS, seed=0)


def test_divergence_names_the_batch(source: TensorSource) -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1e38})
    with pytest.raises(SaeError, match=r"diverged at step \d+: .*epoch 0, images row .* and 97 mo"):
        train_sae(source, settings, seed=0)


def jobs(folder: Path) -> list[TrainingJob]:
    changed: list[tuple[int, dict[str, Any]]] = [
        (0, {}),
        (1, {}),
        (0, {"k": 2}),
        (0, {"expansion": 2, "learning_rate": 1e-2}),
        (0, {"method": "topk"}),
        (0, {"steps": 40, "patience": 1, "evaluate_every": 3, "decay_share": 0.1}),
    ]
    return [
        TrainingJob(
            SETTINGS.model_copy(update=update),
            seed,
            folder / f"{number}.safetensors",
            folder / f"{number}.jsonl",
        )
        for number, (seed, update) in enumerate(changed)
    ]


@pytest.mark.parametrize("stop", [None, 10, 33])
def test_each_sae_of_a_pass_equals_one_trained_alone(
    stop: int | None, source: TensorSource, tmp_path: Path
) -> None:
    if stop is not None:
        with pytest.raises(_StopError):
            train_saes(_Stopping(source.tokens, apart=source.apart, stop=stop), jobs(tmp_path))
        # as if killed while the checkpoints were written: one is gone
        (tmp_path / "1.safetensors").unlink()
    together = train_saes(source, jobs(tmp_path))
    for number, job in enumerate(jobs(tmp_path)):
        log = tmp_path / "alone.jsonl"
        alone = train_sae(source, job.settings, seed=job.seed, log=log)
        found = together[number]
        for name in ("w_enc", "b_enc", "w_dec", "b_dec"):
            assert torch.equal(getattr(found.sae, name), getattr(alone.sae, name)), (number, name)
        assert found.sae.info == alone.sae.info
        assert found.n_steps == alone.n_steps
        assert (tmp_path / f"{number}.jsonl").read_text() == log.read_text()


class _StopError(Exception):
    pass


class _Stopping(TensorSource):
    def __init__(self, tokens: Tensor, *, apart: Tensor | None, stop: int) -> None:
        super().__init__(tokens, 0, apart)
        object.__setattr__(self, "stop", stop)

    def epoch_batches(self, epoch: int, batch_size: int, skip: int = 0) -> Any:
        per_epoch = self.n_tokens // batch_size
        for number, batch in enumerate(super().epoch_batches(epoch, batch_size, skip), skip):
            if epoch * per_epoch + number == self.stop:  # type: ignore[attr-defined]
                raise _StopError
            yield batch


def test_saes_of_one_pass_share_batches_and_steps(source: TensorSource) -> None:
    other = SETTINGS.model_copy(update={"steps": 41})
    with pytest.raises(SaeError, match="must share batch_size, epochs and steps"):
        train_saes(source, [TrainingJob(SETTINGS, 0), TrainingJob(other, 0)])
