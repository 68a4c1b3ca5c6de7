"""All heads at once against one probe after another: the same curves, the same scores."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.probes.probe_reference import LabelledFeatures, cached, depth_of, train_alone

from vitscope.probes import training as checkpoint_module
from vitscope.probes.features import epoch_order
from vitscope.probes.heads import HeadInput, Heads, Trial, draw_trials
from vitscope.probes.objectives import (
    Classification,
    Depth,
    Segmentation,
)
from vitscope.probes.pixels.maps import PixelMaps
from vitscope.probes.settings import (
    ClassificationSettings,
    DepthSettings,
    HeadSettings,
    ProbeSettings,
    SegmentationSettings,
)
from vitscope.probes.training import Checkpoint, TrainedHeads, score_heads, train_heads

N, P, D, SIDE, CLASSES = 22, 9, 6, 10, 4
EPOCHS, BATCH = 6, 8
KEY = ("test", 0)

MEMORY = 3 * 4 * SIDE * SIDE * 16 * 7
"""Bytes for seven depth maps at a time: the batch is cut in uneven pieces."""


def tokens(seed: int, *shape: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) * 1.5 + 0.4).astype(np.float16)


def classification() -> tuple[LabelledFeatures, Any]:
    labels = np.random.default_rng(9).integers(0, CLASSES, N)
    arrays = {"a": tokens(0, N, D), "b": tokens(1, N, D), "target": labels}
    return cached(arrays), Classification(CLASSES)


def segmentation() -> tuple[LabelledFeatures, Any]:
    masks = np.random.default_rng(9).integers(0, CLASSES + 1, (N, SIDE, SIDE)).astype(np.uint8)
    arrays = {"a": tokens(0, N, P, D), "b": tokens(1, N, P, D), "target": masks}
    return cached(arrays), Segmentation(CLASSES, PixelMaps(3, SIDE, MEMORY))


def depth() -> tuple[LabelledFeatures, Any]:
    maps = np.random.default_rng(9).uniform(0, 12, (N, SIDE, SIDE)).astype(np.float32)
    arrays = {
        "a": tokens(0, N, P, D),
        "b": tokens(1, N, P, D),
        "image_token": tokens(2, N, 3),
        "target": maps,
    }
    return cached(arrays), Depth(16, (0.001, 10.0), 0.5, PixelMaps(3, SIDE, MEMORY))


CASES = {
    "classification": (classification, ClassificationSettings()),
    "classification, layer": (classification, ClassificationSettings(norm="layer")),
    "classification, batch": (classification, ClassificationSettings(norm="batch")),
    "segmentation": (segmentation, SegmentationSettings()),
    "segmentation, none": (segmentation, SegmentationSettings(norm="none")),
    "depth": (depth, DepthSettings()),
    "depth, batch": (depth, DepthSettings(norm="batch")),
}


def train_together(
    features: LabelledFeatures, task: Any, head: HeadSettings, trials: tuple[Trial, ...]
) -> TrainedHeads:
    settings = ProbeSettings(epochs=EPOCHS)
    small = head.model_copy(update={"batch_size": BATCH})
    return train_heads(features, task, trials, small, settings, key=KEY)


@pytest.mark.parametrize(("make", "head"), CASES.values(), ids=CASES.keys())
def test_every_head_has_the_curve_and_the_outputs_of_a_probe_alone(make, head) -> None:
    features, task = make()
    trials = draw_trials("x", head, n=3, seeds=range(1), search="log")
    together = train_together(features, task, head, trials)
    assert not together.diverged.any() and together.losses.shape == (EPOCHS, 2, 3)
    batch = features.batch(torch.arange(N))
    logits = together.logits(batch)
    curves: list[list[float]] = []
    for variant in range(2):
        for column, trial in enumerate(trials):
            probe, curve = train_alone(
                features,
                variant,
                trial,
                task,
                norm=head.norm,
                epochs=EPOCHS,
                batch_size=BATCH,
                key=KEY,
            )
            curves.append(curve)
            found = together.losses[:, variant, column].tolist()
            assert found == pytest.approx(curve, rel=1e-4, abs=1e-4)
            with torch.no_grad():
                alone = probe(batch.features[variant])
            mine = logits[variant, :, :, column]
            if mine.shape[1] > 1:
                mine = task.maps.upsampled(mine.unflatten(1, (3, 3))).permute(0, 3, 1, 2)
            torch.testing.assert_close(mine.reshape(alone.shape), alone, rtol=1e-3, atol=1e-4)
    # no two heads do the same, and all learn: the comparison is between different curves
    assert np.unique(np.round(curves, 6), axis=0).shape[0] == 6
    assert (together.losses[-1] < together.losses[0]).all()


@pytest.mark.parametrize("make", [segmentation, depth])
def test_scores_are_those_of_the_pixels(make: Any) -> None:
    features, task = make()
    head = SegmentationSettings() if isinstance(task, Segmentation) else DepthSettings()
    trials = draw_trials("x", head, n=2, seeds=range(1), search="log")
    trained = train_together(features, task, head, trials)
    found = score_heads(trained, features, task, batch_size=5)
    batch = features.batch(torch.arange(N))
    logits = trained.logits(batch)
    for variant in range(2):
        for column in range(2):
            maps = logits[variant, :, :, column].mT.unflatten(2, (3, 3))
            pixels = torch.nn.functional.interpolate(maps, (SIDE, SIDE), mode="bilinear")
            values = {name: float(value[variant, column]) for name, value in found.items()}
            if isinstance(task, Depth):
                error = (depth_of(pixels, task) - batch.target)[task.counted(batch.target)]
                assert values["rmse"] == pytest.approx(float((error**2).mean().sqrt()), rel=1e-5)
                continue
            guess, truth = pixels.argmax(1) + 1, batch.target
            ious: list[float] = []
            for label in range(1, CLASSES + 1):
                one, other = (guess == label) & (truth > 0), truth == label
                ious.append(int((one & other).sum()) / int((one | other).sum()))
            assert values["miou"] == pytest.approx(np.mean(ious), rel=1e-9)


def test_a_head_that_gives_one_depth_everywhere_has_no_score() -> None:
    task = Depth(16, (0.001, 10.0), 0.5, PixelMaps(3, SIDE, MEMORY))
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 4, 9, 2, 16, generator=g)
    logits[..., 1, :] = 0
    logits[..., 1, 5] = 80  # every softmax in one bin, whatever the tokens
    target = 9 * torch.rand(4, SIDE, SIDE, generator=g) + 0.5
    score = task.score(1, 2)
    score.update(logits, target)
    for value in score.metrics().values():
        assert value.isnan().tolist() == [[False, True]]


def test_top_1_and_top_5_count_images() -> None:
    score = Classification(8).score(1, 2)
    logits = torch.randn(1, 40, 1, 2, 8, generator=torch.Generator().manual_seed(0))
    logits[..., 1, :] = 0.0  # a head that says nothing must not score
    target = torch.arange(40) % 8
    score.update(logits[:, :17], target[:17])
    score.update(logits[:, 17:], target[17:])
    order = logits[0, :, 0, 0].argsort(1, descending=True)
    hit = order == target[:, None]
    metrics = score.metrics()
    assert metrics["top1"][0].tolist() == pytest.approx([float(hit[:, 0].double().mean()), 0.0])
    assert metrics["top5"][0, 0] == pytest.approx(float(hit[:, :5].any(1).double().mean()))
    assert metrics["top5"][0, 1] == 0


def test_a_diverging_trial_is_found_named_and_harms_no_other() -> None:
    features, task = classification()
    head = ClassificationSettings()
    sane = (Trial(0, 0, 0.01, 1e-4), Trial(0, 1, 0.02, 1e-4))
    wild = (sane[0], Trial(0, 7, 1e30, 1e-4), sane[1])
    alone = train_together(features, task, head, sane)
    beside = train_together(features, task, head, wild)
    assert beside.diverged.tolist() == [[False, True, False]] * 2
    assert beside.losses[-1, :, 1].isnan().all()
    torch.testing.assert_close(beside.losses[:, :, [0, 2]], alone.losses)
    assert not beside.heads.weight[:, :, 1].any()
    values = score_heads(beside, features, task, BATCH)["top1"]
    assert values[:, 1].isnan().all() and values[:, [0, 2]].isfinite().all()
    # finite, and yet far worse than the first weights
    lost = train_together(features, task, head, (Trial(0, 0, 300.0, 1e-5), sane[0]))
    assert lost.losses.isfinite().all() and lost.diverged.tolist() == [[True, False]] * 2


def test_a_learned_scaling_folded_into_the_weights_is_the_scaling() -> None:
    g = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_()

    gain, shift = normal(2, 3, 5), normal(2, 3, 5)
    heads = Heads(normal(2, 5, 3, 4), normal(2, 3, 4), gain, shift)
    x, of_logits = normal(2, 7, 5).detach(), normal(2, 7, 3, 4).detach()
    scaled = torch.einsum("vnd,vhd->vnhd", x, gain) + shift.unsqueeze(1)
    slow = torch.einsum("vnhd,vdhc->vnhc", scaled, heads.weight) + heads.bias.unsqueeze(1)
    torch.testing.assert_close(heads.logits(HeadInput(x)), slow)
    parameters = [value for value, _ in heads.parameters()]
    expected = torch.autograd.grad(slow, parameters, of_logits)
    found = torch.autograd.grad(heads.logits(HeadInput(x)), parameters, of_logits)
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize("make", [segmentation, depth])
def test_losses_in_pieces_have_the_gradient_of_the_whole(make: Any) -> None:
    features, task = make()
    batch = features.batch(torch.arange(5))
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 5, P, 3, task.n_outputs, generator=g).requires_grad_()
    of_losses = torch.randn(2, 3, generator=g)
    whole = dataclasses.replace(task, maps=PixelMaps(3, SIDE, 1 << 30))
    # V·h·B = 30 maps: in one piece, in pieces of seven with a rest, and one by one
    for memory in (MEMORY, 1):
        parts = dataclasses.replace(task, maps=PixelMaps(3, SIDE, memory))
        losses = [one.loss(logits, batch.target) for one in (whole, parts)]
        torch.testing.assert_close(*losses)
        gradients = [torch.autograd.grad(loss, logits, of_losses)[0] for loss in losses]
        torch.testing.assert_close(*gradients)
        assert gradients[0].abs().max() > 1e-4


def test_a_head_whose_loss_is_nan_leaves_the_gradients_of_others() -> None:
    features, task = segmentation()
    target = features.batch(torch.arange(5)).target
    logits = torch.randn(2, 5, P, 3, CLASSES, generator=torch.Generator().manual_seed(1))
    spoilt = logits.clone()
    spoilt[:, :, :, 1] = torch.nan
    found = [
        torch.autograd.grad(task.loss(one.requires_grad_(), target).sum(), one)[0]
        for one in (logits, spoilt)
    ]
    torch.testing.assert_close(found[1][:, :, :, [0, 2]], found[0][:, :, :, [0, 2]])


def test_the_order_of_images_is_a_permutation_of_each_epoch() -> None:
    batches = epoch_order(23, 5, "a", 1)
    assert [len(rows) for rows in batches] == [5, 5, 5, 5, 3]
    assert sorted(torch.cat(batches).tolist()) == list(range(23))
    assert any(
        (a != b).any() for a, b in zip(batches[:4], epoch_order(23, 5, "a", 2), strict=False)
    )
    assert all(torch.equal(a, b) for a, b in zip(batches, epoch_order(23, 5, "a", 1), strict=True))


def test_trials_are_drawn_within_their_ranges_and_differ_by_seed() -> None:
    head = HeadSettings(learning_rate=(1e-3, 1e-1))
    trials = draw_trials("x", head, n=200, seeds=range(2), search="log")
    rates = np.array([t.learning_rate for t in trials])
    assert len(set(rates)) == 400 and rates.min() >= 1e-3 and rates.max() <= 1e-1
    assert np.median(rates) == pytest.approx(1e-2, rel=0.3)
    even = draw_trials("x", head, n=200, seeds=range(2), search="linear")
    assert np.median([t.learning_rate for t in even]) == pytest.approx(0.05, rel=0.2)
    assert draw_trials("x", head, n=2, seeds=range(1), search="log") == trials[:2]


@pytest.mark.parametrize("died", [1, 4])
def test_a_killed_training_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, died: int
) -> None:
    features, task = segmentation()
    head = SegmentationSettings(batch_size=BATCH)
    trials = draw_trials("x", head, n=2, seeds=range(1), search="log")
    settings = ProbeSettings(epochs=EPOCHS)
    whole = train_heads(features, task, trials, head, settings, key=KEY)
    monkeypatch.setattr(checkpoint_module, "SAVE_EVERY_S", 0.0)
    read, n_read = LabelledFeatures.batch, 0

    def killed(self: LabelledFeatures, rows: torch.Tensor) -> Any:
        nonlocal n_read
        n_read += 1
        if n_read > 3 * died + 1:  # three batches an epoch: in the middle of one
            raise KeyboardInterrupt
        return read(self, rows)

    path = tmp_path / "state.training"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LabelledFeatures, "batch", killed)
        train_heads(
            features, task, trials, head, settings, key=KEY, checkpoint=Checkpoint(path, "a")
        )
    n_read = -100
    monkeypatch.setattr(LabelledFeatures, "batch", killed)
    resumed = train_heads(
        features, task, trials, head, settings, key=KEY, checkpoint=Checkpoint(path, "a")
    )
    assert n_read == -100 + 3 * (EPOCHS - died)
    assert torch.equal(resumed.losses, whole.losses)
    assert torch.equal(resumed.first_loss, whole.first_loss)
    assert torch.equal(resumed.heads.weight, whole.heads.weight)
    assert torch.equal(resumed.normaliser.variance, whole.normaliser.variance)
    n_read = -100
    train_heads(features, task, trials, head, settings, key=KEY, checkpoint=Checkpoint(path, "b"))
    assert n_read == -100 + 3 * EPOCHS  # the state of another training is not taken
