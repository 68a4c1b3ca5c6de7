"""The studies of the twelve models: as generated, loadable, and with a price."""

from pathlib import Path

import pytest

from vitscope.backbones.zoo import ZOO
from vitscope.paper.pricing import price_study
from vitscope.paper.sources import Sources
from vitscope.paper.studies import paper_study, targets_of
from vitscope.paper.study_files import study_file, write_study_files
from vitscope.paper.targets import stages_of
from vitscope.study import load_study

STUDIES = Path(__file__).parents[2] / "studies"


def test_there_is_one_for_every_model_and_none_besides() -> None:
    assert {path.stem for path in STUDIES.glob("*")} == set(ZOO)


@pytest.mark.parametrize("model", ZOO)
def test_it_is_as_generated_loads_and_has_a_price(model: str) -> None:
    path = STUDIES / f"{model}.toml"
    assert path.read_text(encoding="utf-8") == study_file(model), (
        "run `vitscope reproduce --studies studies`"
    )
    study = load_study(path)
    assert study.backbone.name == model
    assert study.images.train == STUDIES / "../data/imagenet/train"
    assert study.sae.k == 30
    assert study.sae.expansion == 32
    price = price_study(study, stages_of(targets_of(model)))
    assert 0 < price.hours(8) < price.hours()
    assert 0 < price.memory < 80e9


def test_writing_them_gives_the_same_files(tmp_path: Path) -> None:
    for path in write_study_files(tmp_path):
        assert path.read_text(encoding="utf-8") == (STUDIES / path.name).read_text(encoding="utf-8")


def test_what_a_target_needs_decides_what_is_read() -> None:
    sources = Sources(root=Path("data"))
    targets = {target.name: target for target in targets_of("dinov2-b")}
    only_attention = paper_study("dinov2-b", [targets["table7"]], sources)
    assert only_attention.images.train == Path("data/imagenet/val")
    assert only_attention.images.eval is None
    assert only_attention.probes.heads() == {}
    dense = paper_study("dinov2-b", [targets["table8"]], sources)
    assert dense.images.train == Path("data/imagenet/train")
    assert list(dense.probes.heads()) == ["segmentation", "depth"]
    shifted = paper_study("clip-l14-336", targets_of("clip-l14-336"), sources)
    assert shifted.instability.shifts == (1, 2, 3, 4, 5, 6)
    own = Sources(images=Path("mine"), limit=1000)
    mine = paper_study("dinov2-b", [targets["table6"]], own)
    assert (mine.images.train, mine.images.train_limit) == (Path("mine"), 1000)
