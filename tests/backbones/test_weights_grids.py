"""Positions are of the model's grid, or of the one it was trained on; never of a third."""

import pytest
import torch
from tests.backbones.plain_vit import MetaShape
from tests.backbones.twins import DINOV2_TWIN, WIDTH, State, twin
from tests.backbones.weight_files import CASES, meta_case
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vitscope.backbones.weights.strict import load_state, resample_positions
from vitscope.errors import BackboneError


def refused(
    model: VisionTransformer, state: State, native_grid: tuple[int, int] | None = None
) -> str:
    with pytest.raises(BackboneError) as caught:
        load_state(model, state, name="tiny", source="f", native_grid=native_grid)
    return str(caught.value).removeprefix("f does not hold weights of tiny: ")


@pytest.mark.parametrize("name", ["OpenAI", "Meta DINOv2", "DeiT3", "transformers SiglipModel"])
def test_another_grid_is_refused(name: str) -> None:
    case = CASES[name]()
    model = case.build()
    model.set_input_size((48, 48))
    assert refused(model, case.state) == (
        "its position embeddings are for 4×4 patches, tiny at this resolution has 6×6; set "
        "backbone.resolution to the file's own, if it is this model's"
    )
    assert "has 6×6 and was trained on 5×5; set" in refused(model, case.state, native_grid=(5, 5))


def test_a_grid_that_is_no_square_is_counted() -> None:
    case = meta_case(MetaShape(), DINOV2_TWIN)
    state = case.state | {"pos_embed": torch.randn(1, 13, WIDTH)}
    assert refused(case.build(), state).startswith(
        "its position embeddings are for 12 patches beside 1 prefix, tiny at"
    )


def test_the_native_grid_is_resampled_and_said_to_be() -> None:
    case = CASES["Meta DINOv2"]()
    found: dict[str, Tensor] = {}
    for method in ("timm", "bicubic", "meta"):
        model = case.build()
        model.set_input_size((48, 48))
        loaded = load_state(
            model, case.state, name="tiny", source="f", native_grid=(4, 4), positions=method
        )
        assert loaded.resampled
        found[method] = model.state_dict()["pos_embed"]
        expected = resample_positions(case.state["pos_embed"], 1, (6, 6), method)
        assert torch.equal(found[method], expected)
    assert not torch.allclose(found["timm"], found["meta"], atol=1e-3)


def test_a_file_at_the_models_own_grid_is_taken_as_it_is() -> None:
    case = CASES["Meta DINOv2"]()
    model = case.build()
    assert not load_state(model, case.state, name="tiny", source="f", native_grid=(9, 9)).resampled
    assert torch.equal(model.state_dict()["pos_embed"], case.state["pos_embed"])


def test_a_grid_of_another_form_and_the_same_number_is_resampled() -> None:
    case = CASES["Meta DINOv2"]()
    model = twin(**DINOV2_TWIN, img_size=(16, 64))
    loaded = load_state(model, case.state, name="tiny", source="f", native_grid=(4, 4))
    assert loaded.resampled
    assert not torch.equal(model.state_dict()["pos_embed"], case.state["pos_embed"])
