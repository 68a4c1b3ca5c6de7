"""The studies of the twelve models as generated, and prices: operations against torch's counter."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitscope.backbones.loading import load_backbone
from vitscope.backbones.zoo import PAPER_ZOO, ZOO
from vitscope.embedded.files import REFERENCE_BACKBONES, WEIGHT_FILES
from vitscope.errors import BackboneError
from vitscope.paper.prices import EMBEDDED_SIZES, Machine, count_images, price_study, shape_of
from vitscope.paper.studies import (
    SceneSize,
    Sources,
    paper_study,
    scenes_study,
    targets_of,
    write_study_files,
)
from vitscope.paper.targets import TARGETS, stages_of
from vitscope.study import Study, load_study

MODEL = "dinov2-b"
STUDIES = Path(__file__).parents[2] / "studies"


def study_of(model: str) -> Study:
    return paper_study(model, targets_of(model), Sources(root=Path("nowhere")))


@pytest.mark.parametrize("name", ["clip-b16", "dinov2-l", "dinov2-g", "deit3-s", "siglip2-g"])
def test_operations_of_a_pass_are_those_that_torch_counts(name: str) -> None:
    import timm

    entry, shape = PAPER_ZOO[name], shape_of(study_of(name))
    with torch.device("meta"):
        model = timm.create_model(entry.timm_name, pretrained=False, img_size=entry.resolution)
        images = torch.zeros(1, 3, entry.resolution, entry.resolution)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval().forward_intermediates(  # pyright: ignore[reportCallIssue]
            images, indices=[entry.layer - 1], stop_early=True, norm=False
        )
    assert shape.pass_flops(entry.layer) == pytest.approx(counter.get_total_flops(), rel=0.05)


@pytest.mark.parametrize("name", WEIGHT_FILES)
def test_the_embedded_backbones_have_the_sizes_that_are_stated(name: str) -> None:
    site = load_backbone(name).site
    shape = shape_of(scenes_study(name, (), Sources()))
    assert (shape.width, shape.layer, shape.grid) == (site.width, site.layer, site.grid)


def test_every_embedded_backbone_has_a_price() -> None:
    assert set(EMBEDDED_SIZES) == set(REFERENCE_BACKBONES)


def test_tokens_on_disk_are_four_an_image_and_epoch_in_two_bytes() -> None:
    study = study_of(MODEL)
    price = price_study(study, ("extract",), counts=count_images(study, look=False))
    assert price.disk == 1_281_167 * 4 * study.activations.draws * 768 * 2


def test_each_stage_costs_and_a_given_sae_saves_its_training() -> None:
    study, stages = study_of(MODEL), stages_of(targets_of(MODEL))
    counts = count_images(study, look=False)
    price = price_study(study, stages, counts=counts)
    assert all(s.flops > 0 or s.core_seconds > 0 for s in price.stages.values())
    given = study.model_copy(update={"sae": study.sae.model_copy(update={"path": Path("sae")})})
    cheaper = price_study(given, stages, counts=counts).stages
    assert cheaper["extract"].flops == cheaper["train"].flops == 0
    fewer = replace(counts, train=1000, eval=1000, tasks={})
    assert price_study(study, stages, counts=fewer).hours() < price.hours() / 20


def test_hours_are_those_of_the_slower_kind_of_work_and_shared_out_evenly() -> None:
    study = study_of(MODEL)
    counts = count_images(study, look=False)
    slow, fast = (price_study(study, ("extract",), Machine(tflops=t), counts) for t in (1.0, 1e9))
    (stage,) = slow.stages.values()
    assert slow.hours() == pytest.approx(stage.flops / 1e12 / 3600)
    assert fast.hours() == pytest.approx(1_281_167 / 100 / 16 / 3600)  # decoding alone
    assert slow.hours(8) == slow.hours() / 8


def test_images_at_hand_are_counted_and_others_are_said_to_be_assumed(tmp_path: Path) -> None:
    scenes = count_images(scenes_study("scenes-vit", list(TARGETS.values()), Sources()))
    assert (scenes.train, scenes.eval) == (SceneSize().images, SceneSize().images)
    assert scenes.tasks["depth"] == SceneSize().depth
    assert scenes.assumed == ()
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(b"not decoded here")
    own = paper_study(MODEL, [TARGETS["table6"]], Sources(images=tmp_path))
    assert count_images(own).train == 3
    assumed = count_images(study_of(MODEL))
    assert (assumed.train, assumed.eval) == (1_281_167, 50_000)
    assert assumed.tasks["segmentation"] == (20_210, 2_000)
    assert len(assumed.assumed) == 8


@pytest.mark.parametrize("name", sorted(ZOO.keys() - PAPER_ZOO.keys()))
def test_a_model_outside_the_paper_is_refused(name: str) -> None:
    assert targets_of(name) == ()
    with pytest.raises(BackboneError, match=f"'{name}' is not among the paper's twelve"):
        paper_study(name, list(TARGETS.values()), Sources(root=Path("data")))


def test_there_is_one_for_every_model_and_none_besides() -> None:
    assert {path.stem for path in STUDIES.glob("*")} == set(PAPER_ZOO)


@pytest.mark.parametrize("model", PAPER_ZOO)
def test_it_loads_and_has_a_price(model: str) -> None:
    study = load_study(STUDIES / f"{model}.toml")
    assert study.backbone.name == model
    assert study.images.train == STUDIES / "../data/imagenet/train"
    assert study.sae.k == 30
    assert study.sae.expansion == 32
    price = price_study(study, stages_of(targets_of(model)))
    assert 0 < price.hours(8) < price.hours()
    assert 0 < price.memory < 80e9


def test_they_are_as_generated(tmp_path: Path) -> None:
    for path in write_study_files(tmp_path):
        assert path.read_text("utf-8") == (STUDIES / path.name).read_text("utf-8"), (
            "run `vitscope reproduce --studies studies`"
        )


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
