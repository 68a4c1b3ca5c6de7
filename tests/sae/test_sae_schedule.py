import pytest
import torch

from vitscope.errors import ConfigError, SaeError
from vitscope.sae.plan import TrainingPlan, plan_training
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TensorSource, TokenSource


def planned(n_tokens: int = 100, **given: float) -> TrainingPlan:
    """A plan on so many tokens, in batches of one where nothing else is said."""
    settings = SaeSettings.model_validate({"k": 1, "expansion": 1, "batch_size": 1, **given})
    return plan_training(settings, TensorSource(torch.zeros(n_tokens, 1)), seed=0, fingerprint="")


def test_rate_rises_stays_and_falls() -> None:
    plan = planned(learning_rate=1e-3, warmup_share=0.1, decay_share=0.2, steps=100)
    rates = [plan.learning_rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([1e-4 * (i + 1) for i in range(10)])
    assert rates[10:80] == pytest.approx([1e-3] * 70)
    assert rates[80:] == pytest.approx([1e-3 * (20 - i) / 20 for i in range(20)])
    assert rates[-1] > 0


@pytest.mark.parametrize(("warmup", "decay"), [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("n_steps", [1, 2, 50])
def test_rate_is_positive_and_never_above_the_peak(
    warmup: float, decay: float, n_steps: int
) -> None:
    plan = planned(learning_rate=0.5, warmup_share=warmup, decay_share=decay, steps=n_steps)
    assert all(0 < plan.learning_rate(step) <= 0.5 for step in range(n_steps))


def test_budget() -> None:
    assert planned(steps=7).n_steps == 7
    assert planned(epochs=1.5).n_steps == 150
    assert planned(epochs=0.001).n_steps == 1
    assert planned(epochs=2, steps=150).n_steps == 150
    assert planned(epochs=1, steps=150).n_steps == 100
    assert planned(3).n_steps == 1000
    assert planned(5000).n_steps == 5000


def test_batch_and_dead_defaults() -> None:
    assert planned(63, batch_size=64).batch == 63
    assert planned(64, batch_size=64).batch == 64
    with pytest.raises(SaeError, match="no tokens"):
        planned(0)
    assert planned(steps=1000).dead_after == 100
    assert planned(steps=10**9).dead_after == 10**6
    assert planned(dead_after_tokens=5, steps=10**9).dead_after == 5


def test_k_beyond_the_dictionary_is_refused() -> None:
    source = TensorSource(torch.zeros(10, 4))
    with pytest.raises(SaeError, match=r"k = 9 exceeds the dictionary's 8 features"):
        plan_training(SaeSettings(expansion=2, k=9), source, seed=0, fingerprint="")


def test_key_follows_what_decides_the_weights() -> None:
    source = TensorSource(torch.zeros(10, 4))

    def key(seed: int = 0, tokens: str = "a", **changed: float) -> str:
        settings = SaeSettings.parse({"k": 2, **changed}, source="test")
        return plan_training(settings, source, seed=seed, fingerprint=tokens).key

    assert key() == key(checkpoint_every=3, log_every=1)
    assert len({key(), key(seed=1), key(tokens="b"), key(learning_rate=1)}) == 4
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        key(learing_rate=1)


def test_tensor_source_is_a_token_source() -> None:
    x = torch.arange(50.0).view(25, 2)
    source = TensorSource(x, seed=4)
    assert isinstance(source, TokenSource)
    epochs = [list(source.epoch_batches(epoch, 6)) for epoch in (0, 0, 1)]
    assert [len(batch) for batch in epochs[0]] == [6, 6, 6, 6]  # the remainder of 1 left out
    assert all(torch.equal(a, b) for a, b in zip(epochs[0], epochs[1], strict=True))
    assert not torch.equal(epochs[0][0], epochs[2][0])
    resumed = list(source.epoch_batches(0, 6, skip=2))
    assert all(torch.equal(a, b) for a, b in zip(resumed, epochs[0][2:], strict=True))
    assert len({tuple(row.tolist()) for batch in epochs[0] for row in batch}) == 24
    assert torch.equal(source.sample(10), source.sample(10))
    assert source.sample(100).shape == (25, 2)
