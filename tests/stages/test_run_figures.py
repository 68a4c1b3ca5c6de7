"""`vitscope figures`: what a run holds is drawn, and what it lacks is said."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vitscope.emd.transport import emd
from vitscope.errors import ArtifactError
from vitscope.figures.files import FORMATS
from vitscope.scope.exemplar_views import exemplar_views
from vitscope.scope.pairs import PairScores
from vitscope.stages.context import Context
from vitscope.stages.figure_source import FigureSource, spread_images
from vitscope.stages.figures import DRAWINGS, write_figures
from vitscope.store.run_directory import RunDirectory
from vitscope.study import load_study

LACKS = {"shifts": "--shifts 1-6", "reliability": "probes.zeroshot.images"}
BEGINS = {"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}


def source(run: RunDirectory) -> FigureSource:
    return FigureSource(Context(load_study(run.study), run), per_group=4)


def test_every_figure_is_written_or_accounted_for(copied: RunDirectory) -> None:
    outcomes = {one.name: one for one in write_figures([copied.root])}
    assert set(outcomes) == set(DRAWINGS)
    for name, one in outcomes.items():
        if name in LACKS:
            assert not one.files and LACKS[name] in one.reason
            continue
        assert not one.reason
        assert [path.name for path in one.files] == [f"{name}.{kind}" for kind in FORMATS]
        for path, kind in zip(one.files, FORMATS, strict=True):
            assert path.read_bytes().startswith(BEGINS[kind])
    written = {path: path.read_bytes() for path in copied.figures.iterdir()}
    assert len(written) == 3 * (len(DRAWINGS) - len(LACKS))  # and no temporary file is left
    write_figures([copied.root])
    assert {path: path.read_bytes() for path in copied.figures.iterdir()} == written


def test_several_runs_stand_in_one_figure_each(
    copied: RunDirectory, finished: RunDirectory, tmp_path: Path
) -> None:
    text = copied.study.read_text(encoding="utf-8").replace('name = "small"', 'name = "twin"')
    copied.study.write_text(text, encoding="utf-8")
    outcomes = write_figures([copied.root, finished.root], tmp_path / "out")
    (scaling,) = [one.reason for one in outcomes if one.name == "scaling"]
    assert "probe" in scaling
    both = {one.name: one.files for one in outcomes if one.name.endswith("-runs")}
    assert list(both) == ["cds-runs", "awcds-runs"]
    for files in both.values():
        drawn = next(path for path in files if path.suffix == ".svg").read_text(encoding="utf-8")
        assert "twin" in drawn and "small" in drawn
    assert not copied.figures.exists()


def test_what_has_not_run_is_named(copied: RunDirectory) -> None:
    for stage in ("awcds", "score", "train"):
        copied.stamp(stage).unlink()
    reasons = {one.name: one.reason for one in write_figures([copied.root])}
    assert "'awcds' has not finished" in reasons["awcds"]
    assert "'score' has not finished" in reasons["cds"]
    assert "'train' has not finished" in reasons["gallery-low"]
    assert reasons["norms"] == reasons["instability"] == ""


def test_a_lost_backbone_costs_the_pictures_and_not_the_curves(copied: RunDirectory) -> None:
    text = copied.study.read_text(encoding="utf-8").replace('name = "planted"', 'name = "nosuch"')
    copied.study.write_text(text, encoding="utf-8")
    reasons = {one.name: one.reason for one in write_figures([copied.root])}
    for name in ("gallery-low", "gallery-high", "norm-maps", "awcds-maps"):
        assert "nosuch" in reasons[name]
    assert reasons["cds"] == reasons["awcds"] == ""


def test_a_folder_without_a_run_or_with_nothing_yet_is_refused(
    copied: RunDirectory, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"no study\.toml"):
        write_figures([tmp_path])
    for stamp in copied.stamp("x").parent.iterdir():
        stamp.unlink()
    with pytest.raises(ArtifactError, match="nothing to draw yet"):
        write_figures([copied.root])


def test_views_computed_anew_have_the_distance_that_was_stored(finished: RunDirectory) -> None:
    shown = source(finished).gallery
    distances = [
        (image.emd, emd(*image.on_overlap(1)))
        for features in shown.values()
        for feature in features
        for image in feature.images
    ]
    assert len(distances) > 10
    stored, anew = np.asarray(distances).T
    np.testing.assert_allclose(anew, stored, atol=1e-4)


def test_pairs_that_say_nothing_come_last(finished: RunDirectory) -> None:
    one = source(finished)
    refs, context = one.context.eval_refs(), one.context
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
    )

    def shown(n: int) -> list[tuple[int, list[str]]]:
        found = exemplar_views(context.backbone, context.sae, refs, pairs, [5, 2, 0], per_feature=n)
        return [(f.feature, [image.image_id for image in f.images]) for f in found]

    names = [refs[i].id for i in (8, 9, 7)]
    assert shown(3) == [(5, names), (2, [names[0]]), (0, [])]
    assert shown(2) == [(5, names[:2]), (2, [names[0]]), (0, [])]


def test_token_maps_are_norms_and_weighted_means(finished: RunDirectory) -> None:
    one = source(finished)
    context, cds = one.context, one.scores.cds
    refs = spread_images(context.eval_refs(), 4)
    assert [found.image_id for found in one.token_maps] == [ref.id for ref in refs]
    for found in one.token_maps:
        pixels = torch.from_numpy(found.view)[None]
        tokens = context.backbone.tokens(pixels).patch[0].float()
        np.testing.assert_allclose(
            found.norms.ravel(), np.linalg.norm(tokens.numpy(), axis=1), rtol=1e-5
        )
        codes = np.maximum(context.sae.encode(tokens).numpy(), 0)
        for token, code in enumerate(codes):
            known = (code > 0) & np.isfinite(cds)
            expected = (code[known] * cds[known]).sum() / code[known].sum() if known.any() else None
            value = found.awcds.ravel()[token]
            assert np.isnan(value) if expected is None else value == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize(("n", "expected"), [(4, [0, 2, 5, 7]), (1, [0]), (20, list(range(10)))])
def test_images_are_spread_evenly(finished: RunDirectory, n: int, expected: list[int]) -> None:
    refs = source(finished).context.eval_refs()[:10]
    assert spread_images(refs, n) == tuple(refs[i] for i in expected)
