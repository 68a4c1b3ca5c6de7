"""Which tokens an epoch sees: a pure function of (seed, epoch, image id)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.tokens.sampling import ActivationSettings, draw_tokens, n_stored_draws


def draw(n: int = 4, *, seed: int = 0, epoch: int = 0, image_id: str = "a.jpg") -> list[int]:
    options = ActivationSettings(tokens_per_image=n)
    return draw_tokens(options, 196, seed=seed, epoch=epoch, image_id=image_id).tolist()


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 250), st.integers(2, 200), st.integers(0, 99), st.text(max_size=12))
def test_positions_are_distinct_sorted_and_in_the_view(
    n: int, n_patches: int, epoch: int, image_id: str
) -> None:
    options = ActivationSettings(tokens_per_image=n)
    drawn = draw_tokens(options, n_patches, seed=1, epoch=epoch, image_id=image_id)
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert len(drawn) == min(n, n_patches)
    assert 0 <= drawn.min() <= drawn.max() < n_patches


def test_a_draw_depends_on_seed_epoch_and_image_only() -> None:
    first = draw()
    np.random.default_rng(0).random(100)
    assert draw() == first
    others = [draw(seed=1), draw(epoch=1), draw(image_id="b.jpg")]
    assert all(other != first for other in others)


def test_every_position_is_drawn_as_often() -> None:
    counts = np.zeros(196)
    for image in range(2000):
        counts[draw(image_id=f"{image}.jpg")] += 1
    expected = 2000 * 4 / 196
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("n", [0, 196, 500])
def test_all_tokens_are_all_tokens_in_order(n: int) -> None:
    assert draw(n) == list(range(196))


def test_draws_are_stored_once_where_they_would_not_differ() -> None:
    for n, stored in ((4, 3), (195, 3), (196, 1), (0, 1)):
        options = ActivationSettings(tokens_per_image=n, draws=3)
        assert n_stored_draws(options, 196) == stored
