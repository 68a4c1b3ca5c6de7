"""A finished run in a notebook: all that it holds, without a model; and models when asked."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.stages.small_study import small_study

import vitscope as vs
from vitscope.errors import ArtifactError, ConfigError, RunLockedError
from vitscope.pipeline import run_study
from vitscope.stages import stage as stages
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_table

FILE = "vit_of_mine.py"
MINE = """
from vitscope.backbones.planted.planted import PlantedBackbone

def build(settings):
    return PlantedBackbone()
"""


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever loads a backbone or an SAE fails."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model is loaded")

    for name in ("load_backbone", "load_sae", "load_saved_sae"):
        monkeypatch.setattr(stages, name, refuse)


@pytest.mark.usefixtures("no_models")
def test_everything_is_read_without_a_model(finished: RunDirectory) -> None:
    run = vs.open_run(finished.root)
    features = run.features
    assert isinstance(features.to_pandas(), pd.DataFrame)
    assert features.to_arrow().num_rows == features.n_rows == 192
    assert np.array_equal(features["cds"], read_table(finished.features)["cds"], equal_nan=True)
    part = run.partition
    assert part.low.size + part.high.size + part.unscored.size == 192
    assert (part.cds[part.high] > part.gamma).all() and (part.cds[part.low] <= part.gamma).all()
    assert run.instability.chosen.reading == run.study.outliers.attention
    assert run.instability.chosen.ratio > 1
    assert run.outliers.tau > 0 and run.outliers.norms.counts.sum() == run.outliers.n_tokens
    assert 0 < run.reconstruction.all.fvu < 1
    assert run.awcds.spectrum.awcds.size == 10
    assert run.pairs.n_rows == len(run.scoring.scores.feature)
    assert len(run.image_refs) == run.images.n_rows == 40
    assert run.site.grid == 14 and run.scoring.diameter == pytest.approx(12 * 2**0.5)
    assert run.stability.rows[0].n > 0
    assert len(run.training_log) == 6
    assert set(run.provenance) == {path.stem for path in finished.stamp("").parent.glob("*.json")}
    assert run.provenance["partition"].versions["vitscope"] == vs.__version__
    figure = run.figure("cds")
    assert figure.axes and set(run.figures) > {"cds", "awcds", "norms", "gallery-low"}
    assert "192 rows" in features._repr_html_() and "partition" in repr(run)


def test_models_are_loaded_when_they_are_asked_for(finished: RunDirectory) -> None:
    run = vs.open_run(finished.root)
    assert run.backbone.site == run.site
    assert run.sae.n_features == run.training.n_features


def test_a_feature_is_shown_as_html_and_as_a_picture(
    finished: RunDirectory, tmp_path: Path
) -> None:
    run = vs.open_run(finished.root)
    j = int(run.partition.high[0])
    shown = run.show(j, images=2, path=tmp_path / "feature.png")
    assert (tmp_path / "feature.png").read_bytes().startswith(b"\x89PNG")
    page = shown._repr_html_()
    assert f"feature {j}" in page and "<svg" in page and f"cds {run.features['cds'][j]:.3g}" in page
    with pytest.raises(ConfigError, match="there is no feature 192; they go from 0 to 191"):
        run.show(192)


def test_a_name_that_is_no_figure_is_refused_with_the_nearest(finished: RunDirectory) -> None:
    with pytest.raises(ConfigError, match="awcds"):
        vs.open_run(finished.root).figure("awcd")


def test_a_stage_that_has_not_run_says_what_to_run(pictures: Path, tmp_path: Path) -> None:
    run_study(small_study(pictures), tmp_path / "run", only=["images"])
    run = vs.open_run(tmp_path / "run")
    told = (
        r"stage 'partition' has not finished in .*run; run `vitscope run .*run`, or `vitscope par"
    )
    for read in (lambda: run.features, lambda: run.partition.gamma, lambda: run.figure("cds")):
        with pytest.raises(ArtifactError, match="has not finished"):
            read()
    with pytest.raises(ArtifactError, match=told):
        _ = run.partition
    with pytest.raises(ArtifactError, match=r"is no run directory: it has no study\.toml"):
        vs.open_run(pictures)


@pytest.mark.usefixtures("no_models")
def test_gamma_is_set_as_by_the_verb(copied: RunDirectory) -> None:
    run = vs.open_run(copied.root)
    before = run.partition.gamma
    run.set_gamma(0.3)
    assert run.partition.gamma == run.study.scope.gamma == 0.3 != before
    assert vs.open_run(copied.root).partition.source == "given"
    assert np.array_equal(run.partition.high, np.flatnonzero(run.features["cds"] > 0.3))
    run.set_gamma(None)
    assert run.partition.gamma == before
    with pytest.raises(ConfigError, match="gamma"):
        run.set_gamma(2.0)
    with copied.locked(), pytest.raises(RunLockedError):
        run.set_gamma(0.4)
    assert vs.open_run(copied.root).partition.gamma == before


@pytest.fixture(scope="module")
def own(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose backbone is a file of the user's, and that file."""
    base = tmp_path_factory.mktemp("own")
    (base / FILE).write_text(MINE)
    study = small_study(pictures, backbone={"name": f"{base / FILE}:build"})
    run_study(study, base / "run")
    return base / "run", base / FILE


def test_a_run_whose_weights_are_gone_is_cut_compared_and_left_alone(
    own: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(own[0], tmp_path / "run"))
    moved = own[1].rename(own[1].with_suffix(".gone"))
    try:
        run = vs.open_run(folder)
        again = run_study(run.study, folder)
        assert all(outcome.skipped for outcome in again.values()), "nothing to do needs no weights"
        assert run.figure("gallery-low").axes and run.figure("norm-maps").axes
        noted = run.study.model_copy(update={"note": "its weights are gone"})
        outcomes = run_study(noted, folder, only=["report"])
        assert not outcomes["report"].skipped
        assert "its weights are gone" in (folder / "report.html").read_text(encoding="utf-8")
        run.set_gamma(0.25)
        assert run.partition.gamma == 0.25
        outcomes = run_study(run.study, folder, only=["stability"])
        assert not outcomes["stability"].skipped
        assert run.figure("cds").axes
    finally:
        moved.rename(own[1])


def test_a_backbone_file_that_changes_is_described_anew(
    own: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(own[0], tmp_path / "run"))
    study = vs.open_run(folder).study
    own[1].write_text(MINE + "# the same network\n")
    outcomes = run_study(study, folder)
    redone = [name for name, outcome in outcomes.items() if not outcome.skipped]
    assert redone == ["backbone"], "described anew, and found the same"


def test_code_that_a_run_names_is_executed_only_on_request(own: tuple[Path, Path]) -> None:
    run = vs.open_run(own[0])
    assert run.features.n_rows == 192
    with pytest.raises(vs.VitscopeError, match="--run-code"):
        _ = run.backbone
    assert vs.open_run(own[0], run_code=True).backbone.site == run.site


def test_numbers_are_those_of_the_tables(finished: RunDirectory) -> None:
    run = vs.open_run(finished.root)
    group = run.features["group"]
    assert {name: int((group == name).sum()) for name in ("low", "high")} == {
        "low": run.partition.low.size, "high": run.partition.high.size,
    }  # fmt: skip
    assert re.match(r"γ = |γ", run.partition.message)
