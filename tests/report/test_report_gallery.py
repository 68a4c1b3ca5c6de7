"""The gallery: which features by which rule, and what their pictures show."""

import base64
import io
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.report.made_up_run import GRID, PageOf, make_images, make_scores

from vitscope.figures.pictures import VIEW_SIDE, heat_png_bytes, view_jpeg_bytes
from vitscope.report.page import THICKEST, FeatureCard, feature_card
from vitscope.run import Run
from vitscope.scope.gallery import GalleryFeature, choose_gallery, minimum_pairs
from vitscope.scope.partition import partition_features

scores_and_pairs = st.lists(
    st.tuples(st.one_of(st.floats(0, 1), st.just(float("nan"))), st.integers(0, 16)),
    min_size=1,
    max_size=80,
).filter(lambda rows: any(np.isfinite(cds) for cds, _ in rows))


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def decode(uri: str, kind: str) -> np.ndarray:
    head, data = uri.split(",", 1)
    assert head == f"data:image/{kind};base64"
    return opened(base64.b64decode(data))


@settings(deadline=None, max_examples=150)
@given(scores_and_pairs, st.floats(0, 1), st.integers(1, 16), st.integers(2, 12))
def test_choice_spreads_over_each_groups_range(
    rows: list[tuple[float, int]], gamma: float, min_pairs: int, n: int
) -> None:
    cds = np.array([row[0] for row in rows])
    scores = make_scores(cds, np.array([row[1] for row in rows]))
    partition = partition_features(cds, gamma=gamma, unscored="low")
    choice = choose_gallery(scores, partition, min_pairs, n)
    for group, chosen, count in (
        (partition.low, choice.low, choice.n_low),
        (partition.high, choice.high, choice.n_high),
    ):
        eligible = [j for j in group if scores.n_pairs[j] >= min_pairs and np.isfinite(cds[j])]
        assert count == len(eligible)
        assert len(chosen) == len(set(chosen)) == min(n, len(eligible))
        assert set(chosen) <= set(eligible)
        values = cds[list(chosen)]
        assert (np.diff(values) >= 0).all()
        if not eligible:
            continue
        ordered = np.sort(cds[eligible])
        assert values[0] == ordered[0]
        assert values[-1] == ordered[-1]
        # evenly spaced: no stretch of ranks wider than one step stays without a feature
        step = int(np.ceil((len(eligible) - 1) / (n - 1))) if len(eligible) > n else 1
        for start in range(len(ordered) - step):
            window = ordered[start : start + step + 1]
            assert ((values >= window[0]) & (values <= window[-1])).any()


def test_equal_scores_are_chosen_by_index_whatever_the_order_of_the_group() -> None:
    cds = np.full(30, 0.1)
    partition = partition_features(cds, gamma=0.5)
    shuffled: Any = SimpleNamespace(low=partition.low[::-1], high=partition.high)
    first = choose_gallery(make_scores(cds), partition, 3)
    assert choose_gallery(make_scores(cds), shuffled, 3) == first


@pytest.mark.parametrize(("top_images", "least"), [(1, 3), (4, 3), (7, 4), (16, 8), (17, 9)])
def test_enough_is_half_of_the_exemplars_and_never_below_three(top_images: int, least: int) -> None:
    assert minimum_pairs(top_images) == least


def test_a_view_survives_its_encoding() -> None:
    ramp = np.linspace(0, 255, 224)
    view = np.stack(
        [np.tile(ramp, (224, 1)), np.tile(ramp[:, None], (1, 224)), np.full((224, 224), 90.0)]
    ).astype(np.uint8)
    shown = opened(view_jpeg_bytes(view)).astype(float)
    assert shown.shape == (VIEW_SIDE, VIEW_SIDE, 3)
    expected = np.asarray(
        Image.fromarray(np.moveaxis(view, 0, -1)).resize((VIEW_SIDE, VIEW_SIDE)), float
    )
    assert np.abs(shown - expected).mean() < 3
    small = opened(view_jpeg_bytes(view[:, :64, :64]))
    assert small.shape == (64, 64, 3)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.one_of(st.floats(0, 10), st.just(float("nan")), st.floats(-2, 0)),
        min_size=9,
        max_size=9,
    )
)
def test_heat_is_transparent_where_silent_and_denser_where_stronger(values: list[float]) -> None:
    activation = np.array(values).reshape(3, 3)
    peak = float(np.nanmax(activation, initial=0.0))
    heat = opened(heat_png_bytes(activation, peak))
    assert heat.shape == (3, 3, 4)
    alpha = heat[..., 3].ravel().astype(int)
    flat = activation.ravel()
    active = np.isfinite(flat) & (flat > 0)
    assert ((alpha > 0) == active).all()
    order = np.argsort(flat[active])
    assert (np.diff(alpha[active][order]) >= 0).all()


def test_rows_and_columns_of_the_heat_are_those_of_the_map() -> None:
    activation = np.zeros((4, 4))
    activation[1, 3], activation[2, 0] = 2.0, 0.5
    heat = opened(heat_png_bytes(activation, 2.0)).astype(int)
    assert np.argwhere(heat[..., 3]).tolist() == [[1, 3], [2, 0]]
    brightness = heat[..., :3].sum(-1)
    assert brightness[1, 3] > brightness[2, 0] > 0


@pytest.mark.parametrize("shift", [1, 3])
def card_of(run: Run, *maps: np.ndarray, emd: float = 0.0) -> FeatureCard:
    """The card of the first feature of its run, on images with these maps."""
    image = make_images(1)[0]
    images = tuple(replace(image, maps=one, emd=emd) for one in maps)
    return feature_card(GalleryFeature(1, images), run)


def maps_of(cells: dict[tuple[int, int, int], float]) -> np.ndarray:
    """Both maps of a pair: activation by (view, row, column)."""
    maps = np.zeros((2, GRID, GRID))
    for cell, value in cells.items():
        maps[cell] = value
    return maps


@pytest.mark.parametrize(("case", "shift"), [("usual", 1), ("much", 2)])
def test_the_frame_is_the_overlap_of_each_view(page_of: PageOf, case: str, shift: int) -> None:
    ((_, _, (first, second)),) = card_of(page_of(case).run, maps_of({})).pairs
    assert first.overlap_offset == pytest.approx(100 * shift / GRID)
    assert second.overlap_offset == 0
    for view in (first, second):
        assert view.overlap_side == pytest.approx(100 * (GRID - shift) / GRID)


def test_both_views_of_a_pair_share_one_scale(page_of: PageOf) -> None:
    card = card_of(page_of("usual").run, maps_of({(0, 4, 4): 4.0, (1, 3, 3): 1.0}))
    strong, weak = (decode(view.heat, "png") for view in card.pairs[0][2])
    assert strong[4, 4, 3] > weak[3, 3, 3] > 0


@pytest.mark.parametrize(
    ("cells", "case", "said"),
    [
        ([(0, 4, 4)], "usual", "missed: active in one view only, counts D_grid"),
        ([(1, 0, 0)], "much", "missed: active in one view only, is not counted"),
        # active only where the other view does not look
        ([(0, 0, 3), (1, 3, GRID - 1)], "usual", "silent on the shared content: not counted"),
    ],
)
def test_a_pair_without_a_distance_says_why(
    page_of: PageOf, cells: list[tuple[int, int, int]], case: str, said: str
) -> None:
    maps = maps_of(dict.fromkeys(cells, 1.0))
    assert card_of(page_of(case).run, maps, emd=float("nan")).pairs[0][1] == said


def test_a_card_carries_its_features_own_numbers(page_of: PageOf) -> None:
    run = page_of("usual").run
    card, cds = card_of(run, maps_of({}), emd=1.0), run.partition.cds[1]
    assert card.score == f"{cds:.3f} ± {cds / 10:.3f}"
    assert card.position == pytest.approx(100 * cds)
    assert card.group == "low" if cds <= run.partition.gamma else "high"
    assert {label: value for label, value, _ in card.facts}["pairs"] == "16"
    assert card.pairs[0][:2] == ("class/photo.jpg", "EMD 1.00 patches, 0.118 of D_grid")


def test_arrows_lie_over_the_second_view_where_the_heat_is(page_of: PageOf) -> None:
    # on the overlap, which starts two patches in: from row 1, column 4
    moved, silent = maps_of({(0, 3, 6): 2.0, (1, 5, 2): 1.0}), maps_of({})
    one, other = card_of(page_of("much").run, moved, silent).pairs
    first, second = one[2]
    assert first.arrows == ()
    ((*ends, width),) = second.arrows
    per_patch = 100 / GRID
    np.testing.assert_allclose(
        ends, [4.5 * per_patch, 1.5 * per_patch, 2.5 * per_patch, 5.5 * per_patch]
    )
    assert width == THICKEST
    assert other[2][1].arrows == ()


def test_cards_show_the_features_of_the_rule_in_their_groups(page_of: PageOf) -> None:
    shown = page_of("usual")
    choice = choose_gallery(shown.run.partition.scores, shown.run.partition, minimum_pairs(16))
    assert re.findall(r"<span>feature (\d+)</span>", shown.html) == [
        str(feature) for feature in choice.features
    ]
