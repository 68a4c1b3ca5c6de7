"""What the pages say of features and pictures, against the run's own tables and plain loops."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from starlette.testclient import TestClient
from torch import Tensor

from vitscope.backbones.backbone import BlockTokens
from vitscope.errors import VitscopeError
from vitscope.explorer.ablation import Ablation, removed_mask
from vitscope.explorer.cooccurrence import coarse_bins, shares_of
from vitscope.explorer.lens import PLAIN, Lens
from vitscope.explorer.live import LiveRun
from vitscope.explorer.pictures import PictureKey, Uploads
from vitscope.explorer.tables import NOT_SCORED
from vitscope.images.sources import open_image
from vitscope.removal.remove import remove
from vitscope.scope.outliers import NormHistogram

PICTURE = 3


def plain_tokens(reading: LiveRun, position: int) -> BlockTokens:
    """Tokens of an image by the backbone itself."""
    run = reading.run
    picture = open_image(run.image_refs[position], max_pixels=10**6)
    with torch.inference_mode():
        return run.backbone.tokens(run.plain_view(picture)[None])


def codes_of(reading: LiveRun, position: int) -> Tensor:
    with torch.inference_mode():
        return reading.run.sae.encode(plain_tokens(reading, position).patch[0])


def scored_features(reading: LiveRun, n: int) -> list[int]:
    """Features with most pairs that count, a distance among them that is not 0."""
    exemplars = reading.exemplars
    moved = np.unique(exemplars.feature[exemplars.emd > 0])
    pairs = reading.run.features["n_pairs"][moved]
    return [int(j) for j in moved[np.argsort(-pairs, kind="stable")[:n]]]


def test_a_pair_is_drawn_with_the_distance_that_the_run_stored(
    client: TestClient, reading: LiveRun
) -> None:
    exemplars, seen = reading.exemplars, 0
    for feature in scored_features(reading, 5):
        rows = exemplars.of(feature)
        for rank, stored, first, second in zip(
            exemplars.rank[rows], exemplars.emd[rows], exemplars.cells_first[rows],
            exemplars.cells_second[rows], strict=True,
        ):  # fmt: skip
            pair = client.get(f"/a/feature/{feature}/pair/{rank}").json()
            assert pair["cells"] == [first, second]
            if np.isnan(stored):
                assert (pair["emd"], pair["arrows"]) == (None, [])
                continue
            seen += 1
            assert pair["emd"] == pytest.approx(stored, abs=1e-4)
            assert pair["differs"] is False
            length = [np.hypot(c - a, d - b) * mass for a, b, c, d, mass in pair["arrows"]]
            assert sum(length) == pytest.approx(stored, abs=1e-4)
            for mass, cells in zip(pair["mass"], pair["cells"], strict=True):
                assert len(mass) == cells
                assert sum(share for *_, share in mass) == pytest.approx(1.0)
    assert seen > 5


def test_a_distance_that_is_not_the_stored_one_is_told(
    client: TestClient, reading: LiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    (feature,) = scored_features(reading, 1)
    rows = reading.exemplars.of(feature)
    changed = reading.exemplars.emd.copy()
    changed[rows] += 0.5
    monkeypatch.setitem(reading.exemplars.__dict__, "emd", changed)
    found = [client.get(f"/a/feature/{feature}/pair/{rank}").json() for rank in range(4)]
    assert [pair["differs"] for pair in found if pair["emd"] is not None].count(False) == 0


def test_a_pair_that_the_run_left_out_is_said_to_be(
    client: TestClient, reading: LiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    (feature,) = scored_features(reading, 1)
    exemplars = reading.exemplars
    rows = exemplars.of(feature)
    for name, value in (("cells_first", NOT_SCORED), ("cells_second", NOT_SCORED), ("emd", np.nan)):
        changed = getattr(exemplars, name).copy()
        changed[rows] = value
        monkeypatch.setitem(exemplars.__dict__, name, changed)
    assert "not scored by the run" in client.get(f"/a/feature/{feature}").text
    assert client.get(f"/a/feature/{feature}/pair/0").json()["differs"] is False


def test_what_fires_with_it_is_what_a_loop_counts(client: TestClient, reading: LiveRun) -> None:
    (feature,) = scored_features(reading, 1)
    found = client.get(f"/a/feature/{feature}/cooccurrence").json()
    images = reading.exemplars.image[reading.exemplars.of(feature)]
    norms, together, anyway, n_tokens = list[float](), {}, {}, 0
    for position in images:
        tokens, codes = plain_tokens(reading, int(position)).patch[0], codes_of(reading, position)
        n_tokens += len(tokens)
        for token, row in zip(tokens, codes, strict=True):
            active = [int(j) for j in (row > 0).nonzero()]
            for j in active:
                anyway[j] = anyway.get(j, 0) + 1
            if feature in active:
                norms.append(float(token.norm()))
                for j in active:
                    together[j] = together.get(j, 0) + 1
    assert (found["n_images"], found["n_tokens"]) == (len(images), n_tokens)
    assert found["n_fired"] == len(norms) > 0
    assert found["n_above_tau"] == sum(norm > reading.run.outliers.tau for norm in norms)
    assert sum(found["norms"]) == pytest.approx(1.0)
    del together[feature]
    expected = sorted((j for j in together if together[j] >= 3), key=lambda j: (-together[j], j))
    assert [one["feature"] for one in found["together"]] == expected[:10]
    for one in found["together"]:
        assert one["share"] == pytest.approx(together[one["feature"]] / len(norms))
        assert one["anyway"] == pytest.approx(anyway[one["feature"]] / n_tokens)


def test_the_nearest_directions_are_nearest(client: TestClient, reading: LiveRun) -> None:
    (feature,) = scored_features(reading, 1)
    found = client.get(f"/a/feature/{feature}/cooccurrence").json()["nearest"]
    rows = reading.run.sae.w_dec.double()
    cosine = torch.cosine_similarity(rows, rows[feature][None], dim=1)
    cosine[feature] = -2
    order = cosine.argsort(descending=True)[: len(found)]
    assert [one["feature"] for one in found] == order.tolist()
    np.testing.assert_allclose([one["cosine"] for one in found], cosine[order], atol=1e-5)


def test_words_are_what_is_lost_without_the_feature(client: TestClient, reading: LiveRun) -> None:
    (feature,) = scored_features(reading, 1)
    words = client.get(f"/a/feature/{feature}/cooccurrence").json()["words"]
    run, exemplars = reading.loaded(), reading.exemplars
    text, _ = reading.text()
    assert text is not None
    falls: list[NDArray[Any]] = []
    for position in exemplars.image[exemplars.of(feature)]:
        tokens = plain_tokens(reading, int(position))
        without = remove(run.sae, tokens.patch, [feature])
        rows: list[Tensor] = []
        for patch in (tokens.patch, without):
            pooled = run.backbone.resume(BlockTokens(patch, tokens.prefix)).pooled
            rows.append(text.tower.project(pooled) @ text.phrase_rows.T)
        falls.append((rows[0] - rows[1])[0].detach().numpy())
    mean = np.mean(falls, axis=0)
    best = np.argsort(-mean)[: len(words["listed"])]
    assert words["n_phrases"] == len(text.phrases) == 16 + 4 + 36
    assert [one["phrase"] for one in words["listed"]] == [text.phrases[i] for i in best]
    np.testing.assert_allclose([one["fall"] for one in words["listed"]], mean[best], atol=1e-5)


def test_a_picture_is_described_as_the_tables_would(client: TestClient, reading: LiveRun) -> None:
    found = client.get(f"/a/image/{PICTURE}/tokens").json()
    tokens, codes = plain_tokens(reading, PICTURE).patch[0], codes_of(reading, PICTURE)
    cds = reading.run.features["cds"]
    np.testing.assert_allclose(found["norms"], tokens.norm(dim=1), rtol=1e-4)
    assert found["n_outliers"] == int((tokens.norm(dim=1) > reading.run.outliers.tau).sum())
    for patch, row in enumerate(codes.clamp_min(0).double().numpy()):
        active = np.flatnonzero(row)
        scored = active[np.isfinite(cds[active])]
        expected = (row[scored] * cds[scored]).sum() / row[scored].sum()
        assert found["awcds"][patch] == pytest.approx(expected, abs=1e-4)
        assert found["n_active"][patch] == len(active)
        first, last = found["offsets"][patch : patch + 2]
        order = active[np.argsort(-row[active], kind="stable")][:64]
        assert found["features"][first:last] == order.tolist()
        np.testing.assert_allclose(found["values"][first:last], row[order], atol=1e-3)


def removal_of(client: TestClient, **wanted: Any) -> dict[str, Any]:
    answer = client.post(f"/a/image/{PICTURE}/remove", json=wanted)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_removing_nothing_changes_nothing(client: TestClient) -> None:
    found = removal_of(client)
    assert (found["n_removed"], found["mean_change"]) == (0, 0.0)
    assert found["before"] == found["after"]
    assert found["reconstruction"]["with"] == found["reconstruction"]["without"]


def test_removal_is_that_of_the_library_and_changes_the_prediction(
    client: TestClient, reading: LiveRun
) -> None:
    found = removal_of(client, group="all", keep_error=False)
    tokens = plain_tokens(reading, PICTURE)
    everything = torch.ones(reading.n_features, dtype=torch.bool)
    with torch.inference_mode():
        without = remove(reading.run.sae, tokens.patch, everything, keep_error=False)
        change = (without - tokens.patch).norm(dim=-1) / tokens.patch.norm(dim=-1)
    np.testing.assert_allclose(found["change"], change[0], atol=1e-4)
    assert (
        found["n_active"]
        == found["n_active_removed"]
        == int((codes_of(reading, PICTURE) > 0).any(0).sum())
    )
    assert found["after"][0]["probability"] != found["before"][0]["probability"]
    assert found["pooled_cosine"] < 0.9
    assert found["reconstruction"]["without"]["fvu"] > found["reconstruction"]["with"]["fvu"]
    assert sum(one["probability"] for one in found["before"]) <= 1.0 + 1e-9


def test_what_the_reconstruction_misses_is_told(client: TestClient, reading: LiveRun) -> None:
    found = removal_of(client, features=[0])["reconstruction"]["with"]
    sae, tokens = reading.run.sae, plain_tokens(reading, PICTURE).patch[0].double()
    with torch.inference_mode():
        rebuilt = sae.decode(sae.encode(tokens.float())).double()
    spread = (tokens - tokens.mean(0)).square().sum()
    assert found["fvu"] == pytest.approx(
        float((tokens - rebuilt).square().sum() / spread), rel=1e-4
    )


def test_a_group_is_cut_at_the_gamma_of_the_page(client: TestClient, reading: LiveRun) -> None:
    cds = reading.run.features["cds"]
    for gamma in (0.0, 0.2, 1.0):
        for group, expected in (("low", cds <= gamma), ("high", cds > gamma)):
            found = removal_of(client, group=group, gamma=gamma, features=[], kept=[])
            assert found["n_removed"] == int(expected.sum())
    assert removal_of(client, group="unscored")["n_removed"] == int(np.isnan(cds).sum())


def test_single_features_join_and_leave_a_group(reading: LiveRun) -> None:
    run = reading.run
    low = np.flatnonzero(run.features["cds"] <= 0.3)
    high = np.flatnonzero(run.features["cds"] > 0.3)
    removal = Ablation(features=[int(high[0])], group="low", gamma=0.3, kept=[int(low[0])])
    assert np.flatnonzero(removed_mask(run, removal)).tolist() == sorted([high[0], *low[1:]])
    with pytest.raises(VitscopeError, match="no feature 4096"):
        removed_mask(run, Ablation(features=[reading.n_features]))


def test_a_picture_is_computed_once(reading: LiveRun, monkeypatch: pytest.MonkeyPatch) -> None:
    lens = Lens(reading, Uploads())
    first = lens.encode(PictureKey(PICTURE))
    assert lens.encode(PictureKey(PICTURE)) is first
    assert first.patch.shape[:2] == (3, 100)
    torch.testing.assert_close(first.patch[PLAIN], plain_tokens(reading, PICTURE).patch[0])


def test_wide_bins_hold_what_the_narrow_ones_held() -> None:
    rng = np.random.default_rng(0)
    for n_bins in (1, 7, 40, 41, 200):
        counts = rng.integers(0, 9, n_bins)
        norms = NormHistogram(np.linspace(-1, 1, n_bins + 1), counts)
        wide = coarse_bins(norms)
        assert len(wide.counts) <= 40
        assert (wide.edges[0], wide.edges[-1]) == (norms.edges[0], norms.edges[-1])
        for low, high, count in zip(wide.edges, wide.edges[1:], wide.counts, strict=False):
            inside = (norms.edges[:-1] >= low) & (norms.edges[1:] <= high)
            assert counts[inside].sum() == count
    shares = shares_of(np.array([0.001, 1.0, 1e6, 1.0]), np.array([-1.0, 0.5, 1.0]))
    assert shares == [0.75, 0.25]
    assert shares_of(np.zeros(0), np.array([0.0, 1.0])) == [0.0]
