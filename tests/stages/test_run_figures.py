"""`vitscope figures`: what a run holds is drawn, and what it lacks is said."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.patches import FancyArrowPatch

from vitscope.errors import ArtifactError, ConfigError, RunLockedError
from vitscope.figures.catalogue import (
    FIGURES,
    FIGURES_OF_SEVERAL,
    draw_feature,
    draw_figure,
    write_figures,
)
from vitscope.figures.files import FIGURE_FORMATS
from vitscope.run import Run
from vitscope.scope.gallery import exemplar_views
from vitscope.scope.pairs import PairScores
from vitscope.stages.gallery import spread_images
from vitscope.store.run_directory import RunDirectory
from vitscope.transport.emd import emd

LACKS = {"shifts": "--shifts 1-6", "reliability": "probes.zeroshot.images"}
BEGINS = {"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}


@pytest.fixture(scope="module")
def run(finished: RunDirectory) -> Run:
    return Run(finished.root)


def test_every_figure_is_written_or_accounted_for(copied: RunDirectory) -> None:
    outcomes = {one.name: one for one in write_figures([Run(copied.root)])}
    assert set(outcomes) == set(FIGURES)
    for name, one in outcomes.items():
        if name in LACKS:
            assert not one.files and LACKS[name] in one.reason
            continue
        assert not one.reason
        assert [path.name for path in one.files] == [f"{name}.{kind}" for kind in FIGURE_FORMATS]
        for path, kind in zip(one.files, FIGURE_FORMATS, strict=True):
            assert path.read_bytes().startswith(BEGINS[kind])
    written = list(copied.figures.iterdir())
    assert len(written) == 3 * (len(FIGURES) - len(LACKS))  # and no temporary file is left


@pytest.mark.usefixtures("svg_only")
def test_equal_runs_have_equal_figures(copied: RunDirectory, finished: RunDirectory) -> None:
    for run, folder in ((copied, None), (finished, copied.root / "again")):
        write_figures([Run(run.root)], folder)
    again = {path.name: path.read_bytes() for path in (copied.root / "again").iterdir()}
    assert {path.name: path.read_bytes() for path in copied.figures.iterdir()} == again


@pytest.mark.usefixtures("svg_only")
def test_several_runs_stand_in_one_figure_each(
    copied: RunDirectory, finished: RunDirectory, tmp_path: Path
) -> None:
    text = copied.study.read_text(encoding="utf-8").replace('name = "small"', 'name = "twin"')
    copied.study.write_text(text, encoding="utf-8")
    outcomes = write_figures([Run(copied.root), Run(finished.root)], tmp_path / "out")
    (scaling,) = [one.reason for one in outcomes if one.name == "scaling"]
    assert "probe" in scaling
    both = {one.name: one.files for one in outcomes if one.name.endswith("-runs")}
    assert list(both) == ["cds-runs", "awcds-runs"]
    assert {one.name for one in outcomes} == {*FIGURES, *FIGURES_OF_SEVERAL}
    for files in both.values():
        drawn = next(path for path in files if path.suffix == ".svg").read_text(encoding="utf-8")
        assert "twin" in drawn and "small" in drawn
    assert not copied.figures.exists()


@pytest.mark.usefixtures("svg_only")
def test_what_has_not_run_is_named(copied: RunDirectory) -> None:
    for stage in ("awcds", "partition", "train"):
        copied.stamp(stage).unlink()
    reasons = {one.name: one.reason for one in write_figures([Run(copied.root)])}
    assert "'awcds' has not finished" in reasons["awcds"]
    assert "'partition' has not finished" in reasons["cds"]
    assert "'partition' has not finished" in reasons["gallery-low"]
    assert reasons["norms"] == reasons["instability"] == ""


def test_a_folder_without_a_run_or_with_nothing_yet_is_refused(
    copied: RunDirectory, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"no study\.toml"):
        write_figures([Run(tmp_path)])
    for stamp in copied.stamp("x").parent.iterdir():
        stamp.unlink()
    with pytest.raises(ArtifactError, match="nothing to draw yet"):
        write_figures([Run(copied.root)])


def test_a_run_that_another_process_holds_is_refused(copied: RunDirectory) -> None:
    with copied.locked(), pytest.raises(RunLockedError, match="is in use by"):
        write_figures([Run(copied.root)])


def test_a_figure_by_another_name_is_refused_with_those_like_it(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"no figure 'gallery-lo'; did you mean gallery-low or"):
        draw_figure(run, "gallery-lo")
    with pytest.raises(ConfigError, match=r"no figure 'xyzzy'; figures: cds, awcds"):
        draw_figure(run, "xyzzy")


def test_a_feature_is_drawn_on_its_strongest_images(run: Run) -> None:
    feature = int(run.gallery_choice.features[0])
    mine = run.pairs["feature"] == feature
    figure = draw_feature(run, feature, 2)
    assert len(figure.axes) == 2 * min(2, int(mine.sum()))
    words = " ".join(text.get_text() for text in figure.texts)
    assert f"#{feature}" in words and f"CDS {run.partition.cds[feature]:.3f}" in words
    assert not any(isinstance(patch, FancyArrowPatch) for patch in figure.axes[0].patches)


def test_a_feature_without_exemplars_says_so(run: Run) -> None:
    with pytest.raises(ArtifactError, match="has no exemplars"):
        draw_feature(run, run.training.n_features)


def test_views_computed_anew_have_the_distance_that_was_stored(run: Run) -> None:
    distances = [
        (image.emd, emd(*image.on_overlap(1)))
        for feature in run.gallery()
        for image in feature.images
    ]
    assert len(distances) > 10
    stored, anew = np.asarray(distances).T
    np.testing.assert_allclose(anew, stored, atol=1e-4)


def test_pairs_that_say_nothing_come_last(run: Run) -> None:
    refs = run.image_refs
    whole = lambda *values: np.asarray(values, np.int64)  # noqa: E731
    nan = np.full(4, np.nan)
    pairs = PairScores(
        feature=whole(5, 5, 5, 2),
        rank=whole(0, 1, 2, 0),
        image=whole(7, 8, 9, 8),
        emd=nan,
        null=nan,
        cross=nan,
        cells_first=whole(0, 0, 3, 1),
        cells_second=whole(0, 2, 1, 1),
        reach_first=nan,
        reach_second=nan,
        beyond_first=nan,
        beyond_second=nan,
    )

    def shown(n: int) -> list[tuple[int, list[str]]]:
        found = exemplar_views(run.backbone, run.sae, refs, pairs, [5, 2, 0], per_feature=n)
        return [(f.feature, [image.image_id for image in f.images]) for f in found]

    names = [refs[i].id for i in (8, 9, 7)]
    assert shown(3) == [(5, names), (2, [names[0]]), (0, [])]
    assert shown(2) == [(5, names[:2]), (2, [names[0]]), (0, [])]


def test_token_maps_are_norms_and_weighted_means(run: Run) -> None:
    cds, shown = run.partition.cds, run.token_maps
    assert [found.image_id for found in shown] == [
        ref.id for ref in spread_images(run.image_refs, 4)
    ]
    for found in shown:
        pixels = torch.from_numpy(found.view)[None]
        tokens = run.backbone.tokens(pixels).patch[0].float()
        np.testing.assert_allclose(
            found.norms.ravel(), np.linalg.norm(tokens.numpy(), axis=1), rtol=1e-5
        )
        codes = np.maximum(run.sae.encode(tokens).numpy(), 0)
        for token, code in enumerate(codes):
            known = (code > 0) & np.isfinite(cds)
            expected = (code[known] * cds[known]).sum() / code[known].sum() if known.any() else None
            value = found.awcds.ravel()[token]
            assert np.isnan(value) if expected is None else value == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize(("n", "expected"), [(4, [0, 2, 5, 7]), (1, [0]), (20, list(range(10)))])
def test_images_are_spread_evenly(run: Run, n: int, expected: list[int]) -> None:
    refs = run.image_refs[:10]
    assert spread_images(refs, n) == tuple(refs[i] for i in expected)


def test_the_gallery_is_what_its_features_show_anew(run: Run) -> None:
    stored = run.gallery()
    anew = exemplar_views(
        run.backbone, run.sae, run.image_refs, run.scoring.scores, run.gallery_choice.features
    )
    assert [one.feature for one in stored] == list(run.gallery_choice.features)
    for one, other in zip(stored, anew, strict=True):
        assert [i.image_id for i in one.images] == [i.image_id for i in other.images]
        for image, again in zip(one.images, other.images, strict=True):
            np.testing.assert_array_equal(image.views, again.views)
            np.testing.assert_array_equal(image.maps, again.maps)
            assert image.emd == pytest.approx(again.emd, nan_ok=True)
    some = run.gallery_choice.high[-1:]
    assert [one.feature for one in run.gallery(some)] == list(some)
