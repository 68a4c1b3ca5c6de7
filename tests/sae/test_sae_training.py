import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.sae.planted_codes import hungarian_cosine, mixtures, unit_atoms
from torch import Tensor

from vitscope.backbones.backbone import Site
from vitscope.errors import SaeError
from vitscope.sae.parameters import fit_normalisation, initial_parameters
from vitscope.sae.plan import plan_training
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TensorSource
from vitscope.sae.step import new_state, take_step
from vitscope.sae.training import train_sae
from vitscope.tokens.sampling import HeldOut

SITE = Site(model="toy", weights="w", layer=1, width=32, grid=4, patch=8)


@pytest.fixture(scope="module")
def atoms() -> Tensor:
    return unit_atoms(64, 32, seed=0)


@pytest.fixture(scope="module")
def tokens(atoms: Tensor) -> Tensor:
    return mixtures(atoms, 40_000, 3, noise=0.02, seed=1)


def test_planted_dictionary_is_recovered(atoms: Tensor, tokens: Tensor) -> None:
    settings = SaeSettings(expansion=4, k=4, batch_size=512, learning_rate=5e-3, steps=800)
    trained = train_sae(TensorSource(tokens), settings, seed=0, site=SITE)

    assert float(hungarian_cosine(atoms, trained.sae.w_dec).mean()) >= 0.95
    held_out = mixtures(atoms, 5000, 3, noise=0.02, seed=2)
    codes = trained.sae.encode(held_out)
    assert float((codes > 0).sum(1).double().mean()) == pytest.approx(4, abs=0.1)
    error = (held_out - trained.sae.decode(codes)).square().sum()
    assert float(error / (held_out - held_out.mean(0)).square().sum()) < 0.1
    assert trained.sae.site == SITE
    assert trained.n_tokens == 800 * 512
    torch.testing.assert_close(trained.sae.w_dec.norm(dim=1), torch.ones(128))


def test_threshold_gives_k_on_the_tokens_it_was_fitted_on(tokens: Tensor) -> None:
    source = TensorSource(tokens)
    settings = SaeSettings(expansion=4, k=5, batch_size=512, steps=20, threshold_tokens=3000)
    sae = train_sae(source, settings, seed=0).sae
    assert int((sae.encode(source.sample(3000)) > 0).sum()) == pytest.approx(15_000, abs=2)


def test_same_seed_same_weights_other_seed_other_weights(tokens: Tensor) -> None:
    settings = SaeSettings(expansion=2, k=3, batch_size=256, steps=10)
    first, again, other = (
        train_sae(TensorSource(tokens), settings, seed=seed).sae for seed in (0, 0, 1)
    )
    assert torch.equal(first.w_enc, again.w_enc)
    assert first.threshold == again.threshold
    assert not torch.equal(first.w_enc, other.w_enc)


def dead_after_burying_half(tokens: Tensor, aux_coefficient: float) -> int:
    """Features dead after eight epochs, of 32 in 64 that start with a bias of -3."""
    settings = SaeSettings(
        expansion=2, k=3, batch_size=512, steps=1, learning_rate=3e-3,
        aux_coefficient=aux_coefficient, aux_k=16, dead_after_tokens=2048,
    )  # fmt: skip
    source = TensorSource(fit_normalisation(tokens).apply(tokens))
    plan = plan_training(settings, source, seed=0, fingerprint="")
    state = new_state(initial_parameters(32, 64, seed=0))
    state.parameters.b_enc[32:] = -3.0  # positive now and then, seldom among the batch's largest
    for epoch in range(8):
        for x in source.epoch_batches(epoch, 512):
            take_step(state, x, plan, settings.learning_rate)
    return int((state.silent_tokens >= plan.dead_after).sum())


def test_auxiliary_loss_revives_buried_features(tokens: Tensor) -> None:
    assert dead_after_burying_half(tokens, 0.0) >= 20
    assert dead_after_burying_half(tokens, 1 / 32) <= 8


@dataclass(frozen=True, eq=False)
class SpoiledSource:
    """Turns one value of one batch into ``value``."""

    inner: TensorSource
    at_batch: int
    value: float

    @property
    def n_tokens(self) -> int:
        return self.inner.n_tokens

    @property
    def width(self) -> int:
        return self.inner.width

    def epoch_batches(self, epoch: int, batch_size: int, skip: int = 0) -> Iterator[Tensor]:
        for number, batch in enumerate(self.inner.epoch_batches(epoch, batch_size, skip), skip):
            if number == self.at_batch:
                batch[1, 2] = self.value
            yield batch

    def sample(self, n: int) -> Tensor:
        return self.inner.sample(n)

    def held_out(self, n: int) -> HeldOut:
        return self.inner.held_out(n)

    def images_of(self, epoch: int, batch_size: int, batch: int) -> list[str]:
        return self.inner.images_of(epoch, batch_size, batch)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_activations_name_the_step(tokens: Tensor, value: float) -> None:
    source = SpoiledSource(TensorSource(tokens), at_batch=4, value=value)
    with pytest.raises(SaeError, match="step 5: the activations contain NaN or infinity"):
        train_sae(source, SaeSettings(expansion=2, k=3, batch_size=256, steps=10), seed=0)


def test_divergence_names_the_step_and_leaves_no_bad_checkpoint(
    tokens: Tensor, tmp_path: Path
) -> None:
    settings = SaeSettings(
        expansion=2, k=3, batch_size=256, steps=50, learning_rate=1e38, checkpoint_every=1
    )
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(SaeError, match=r"diverged at step \d+: .*lower learning_rate"):
        train_sae(TensorSource(tokens), settings, seed=0, checkpoint=path)
    assert not path.exists() or torch.isfinite(_read(path)["w_enc"]).all()


def _read(path: Path) -> dict[str, Tensor]:
    from vitscope.store.tensors import load_tensors

    return load_tensors(path)[0]


def test_log_has_one_line_per_interval(tokens: Tensor, tmp_path: Path) -> None:
    log = tmp_path / "deep" / "train.jsonl"
    settings = SaeSettings(expansion=2, k=3, batch_size=256, steps=23, log_every=5)
    trained = train_sae(TensorSource(tokens), settings, seed=0, log=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 23]
    assert lines[-1]["loss"] == trained.final.loss
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert all(line["l0"] == 3 for line in lines)
    assert lines[2]["learning_rate"] == settings.learning_rate


def test_fewer_tokens_than_a_batch_train_on_all_of_them(tokens: Tensor) -> None:
    settings = SaeSettings(expansion=1, k=2, steps=3)
    trained = train_sae(TensorSource(tokens[:100]), settings, seed=0)
    assert trained.n_tokens == 300
    with pytest.raises(SaeError, match="no tokens"):
        train_sae(TensorSource(tokens[:0]), settings, seed=0)


def test_a_source_that_yields_too_few_batches_is_caught(tokens: Tensor) -> None:
    class Short(TensorSource):
        def epoch_batches(self, epoch: int, batch_size: int, skip: int = 0) -> Iterator[Tensor]:
            yield from list(super().epoch_batches(epoch, batch_size, skip))[:-1]

    with pytest.raises(AssertionError, match="batches an epoch"):
        train_sae(
            Short(tokens[:1000]), SaeSettings(expansion=1, k=2, batch_size=100, steps=30), seed=0
        )
