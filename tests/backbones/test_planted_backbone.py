"""The planted backbone keeps its word: local follows content, global the view, border the edge."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.backbones.pictures import generated_pictures, noise_batch
from torch import Tensor

from vitscope.backbones.backbone import Backbone
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.planted.spec import Border, Kind, PlantedSpec
from vitscope.errors import BackboneError
from vitscope.scope.views import Overlap, shifted_views

PLANTED = PlantedBackbone()
SPEC = PLANTED.spec
SIDE = SPEC.grid * SPEC.patch


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Tensor]:
    """Views of 8 pictures at a shift: [16, 3, H, W], views adjacent."""
    pictures = generated_pictures(tmp_path_factory.mktemp("pictures"), 8)

    def views(shift: int) -> Tensor:
        return torch.cat([shifted_views(picture, PLANTED.site, shift) for picture in pictures])

    return views


@pytest.fixture(scope="module")
def views(pairs: Callable[[int], Tensor]) -> Tensor:
    return pairs(1)


def of_kind(kind: Kind) -> list[int]:
    return [index for index, atom in enumerate(PLANTED.truth) if atom.kind is kind]


def test_it_keeps_the_protocol_of_a_backbone() -> None:
    assert isinstance(PLANTED, Backbone)
    site = PLANTED.site
    assert (site.model, site.layer, site.width) == ("planted", 1, SPEC.width)
    assert (site.grid, site.patch, site.resolution, site.n_patches) == (14, 8, 112, 196)


def test_another_specification_is_another_site() -> None:
    other = PlantedBackbone(PlantedSpec(seed=1))
    assert other.site.weights != PLANTED.site.weights
    assert PlantedBackbone(PlantedSpec()).site == PLANTED.site
    assert not torch.allclose(other.atoms, PLANTED.atoms)


def test_too_narrow_a_width_is_refused() -> None:
    with pytest.raises(ValueError, match="160 orthonormal atoms do not fit in width 100"):
        PlantedSpec(width=100)


def test_atoms_are_orthonormal() -> None:
    gram = PLANTED.atoms.double() @ PLANTED.atoms.double().T
    torch.testing.assert_close(
        gram, torch.eye(SPEC.n_atoms, dtype=torch.float64), atol=1e-6, rtol=0
    )
    assert len(PLANTED.truth) == SPEC.n_atoms == len(PLANTED.atoms)
    assert PLANTED.bias.norm().item() == pytest.approx(SPEC.bias_norm, rel=1e-5)


def test_it_is_a_pure_function_of_each_view(views: Tensor) -> None:
    whole, again = PLANTED.tokens(views), PlantedBackbone().tokens(views)
    assert torch.equal(whole.patch, again.patch)
    backwards = PLANTED.tokens(views.flip(0))
    torch.testing.assert_close(backwards.patch.flip(0), whole.patch, atol=1e-5, rtol=0)
    alone = PLANTED.mixture(views[5:6])
    assert np.array_equal(alone.codes[0], PLANTED.mixture(views).codes[5])


def test_tokens_are_bias_atoms_and_noise(views: Tensor) -> None:
    tokens, codes = PLANTED.tokens(views), torch.from_numpy(PLANTED.mixture(views).codes)
    rest = tokens.patch - PLANTED.bias - codes @ PLANTED.atoms
    assert rest.std().item() == pytest.approx(SPEC.noise, rel=0.01)
    assert rest.abs().max() < 7 * SPEC.noise
    torch.testing.assert_close(tokens.prefix[:, 0], tokens.patch.mean(1))


@pytest.mark.parametrize("shift", [1, 2, 5])
def test_local_codes_follow_their_content(pairs: Callable[[int], Tensor], shift: int) -> None:
    codes, overlap, local = PLANTED.mixture(pairs(shift)).codes, Overlap(14, shift), SPEC.n_local
    first, second = codes[0::2, overlap.first, :local], codes[1::2, overlap.second, :local]
    assert np.array_equal(first, second)
    assert first.any()
    # a wrong offset would be seen
    assert not np.array_equal(codes[0::2, overlap.second, :local], second)
    others = codes[0::2, overlap.first, local:], codes[1::2, overlap.second, local:]
    assert not np.array_equal(*others)


def test_every_patch_shows_the_stated_number_of_local_atoms(views: Tensor) -> None:
    codes = PLANTED.mixture(views).codes[..., : SPEC.n_local]
    assert ((codes > 0).sum(-1) == SPEC.atoms_per_patch).all()
    low, high = SPEC.local_amplitude
    assert low <= codes[codes > 0].min() < codes.max() <= high


def test_local_atoms_are_spread_over_the_dictionary(views: Tensor) -> None:
    used = PLANTED.mixture(views).codes[..., : SPEC.n_local].any((0, 1))
    assert used.mean() > 0.3


def test_each_global_family_takes_its_number_of_outlier_positions(views: Tensor) -> None:
    mixture = PLANTED.mixture(views)
    on = mixture.codes[..., of_kind(Kind.GLOBAL)] > 0
    assert (mixture.outliers.sum(1) == SPEC.n_outliers).all()
    assert np.array_equal(on.sum(-1), mixture.outliers)
    supports = [PLANTED.truth[i].support for i in of_kind(Kind.GLOBAL)]
    for view in on:
        active = sorted(
            (int(n), support) for n, support in zip(view.sum(0), supports, strict=True) if n
        )
        assert active == [(n, n) for n in sorted(SPEC.supports)]


def test_outliers_are_the_tokens_of_high_norm(views: Tensor) -> None:
    norms, outliers = PLANTED.tokens(views).patch.norm(dim=-1), PLANTED.outlier_mask(views)
    assert norms[outliers].min() > 2 * norms[~outliers].max()
    assert outliers.float().mean().item() == pytest.approx(SPEC.n_outliers / SPEC.n_positions)


@pytest.mark.parametrize("pixel", [(0, 0, 0), (2, 111, 111), (1, 50, 61)])
def test_one_pixel_anywhere_moves_every_outlier(views: Tensor, pixel: tuple[int, ...]) -> None:
    touched = views.clone()
    touched[(slice(None), *pixel)] ^= 1
    before, after = PLANTED.outlier_mask(views), PLANTED.outlier_mask(touched)
    assert (before != after).any(1).all()
    # by chance alone a position stays with probability 15 / 196
    assert (before & after).float().sum(1).mean() < 4
    # and only the touched patch changes its local atoms
    local = slice(SPEC.n_local)
    same = PLANTED.mixture(views).codes[..., local] == PLANTED.mixture(touched).codes[..., local]
    place = pixel[1] // SPEC.patch * SPEC.grid + pixel[2] // SPEC.patch
    changed = np.flatnonzero(~same.all((0, 2)))
    assert changed.tolist() == [place]


def test_outlier_positions_cover_the_view_evenly() -> None:
    masks = PLANTED.outlier_mask(noise_batch(400, SIDE)).float()
    share = masks.mean(0)
    expected = SPEC.n_outliers / SPEC.n_positions
    assert (share - expected).abs().max() < 5 * math.sqrt(expected * (1 - expected) / 400)


def expected_border(border: Border, row: int, column: int) -> bool:
    last = SPEC.grid - 1
    return {
        Border.FRAME: row in (0, last) or column in (0, last),
        Border.CORNERS: (row, column) in ((0, 0), (last, last)),
        Border.EDGE: row == 0,
        Border.INTERIOR: (row, column) == (7, 7),
    }[border]


def test_border_atoms_sit_where_they_are_said_to(views: Tensor) -> None:
    codes = PLANTED.mixture(views).codes
    for border in Border:
        atoms = [i for i, atom in enumerate(PLANTED.truth) if atom.border is border]
        assert len(atoms) == SPEC.n_per_border
        on = codes[..., atoms] > 0
        assert (on.any(1).sum(-1) == 1).all()  # one of the kind in each view
        cells = [expected_border(border, *divmod(place, 14)) for place in range(SPEC.n_positions)]
        assert (on.any(-1) == np.asarray(cells)).all()


def test_the_stated_number_of_atoms_per_token_is_the_true_one(views: Tensor) -> None:
    active = (PLANTED.mixture(views).codes > 0).sum(-1)
    assert active.mean() == pytest.approx(SPEC.atoms_per_token)


def test_attention_is_as_specified(views: Tensor) -> None:
    found, outliers = PLANTED.attention(views), PLANTED.outlier_mask(views)
    attention = found.patch_rows()
    assert found.n_prefix == 1
    n = SPEC.n_positions
    assert attention.shape == (len(views), len(SPEC.heads), n, n + 1)
    assert attention.dtype == torch.float32
    torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
    assert attention.min() >= 0
    view, mask = 3, outliers[3]
    for index, head in enumerate(SPEC.heads):
        rows = attention[view, index]
        torch.testing.assert_close(rows[:, 0], torch.full((n,), head.cls))
        even = torch.full((SPEC.n_outliers, n), (1 - head.cls) / n)
        torch.testing.assert_close(rows[mask, 1:], even)
        ordinary = rows[~mask, 1:]
        on_outliers = ordinary[:, mask].sum(1)
        locked = 7 * 14 + 7
        beside = head.locked if mask[locked] else 0.0
        torch.testing.assert_close(
            on_outliers, torch.full_like(on_outliers, head.outliers + beside)
        )
    assert not torch.equal(attention[0], attention[1])


def test_there_is_nothing_after_the_block(views: Tensor) -> None:
    tokens = PLANTED.tokens(views)
    final = PLANTED.resume(tokens)
    assert torch.equal(final.patch, tokens.patch)
    torch.testing.assert_close(final.pooled, tokens.patch.mean(1))


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 112, 104, dtype=torch.uint8), torch.zeros(1, 3, 112, 112)]
)
def test_a_wrong_size_or_type_is_refused(images: Tensor) -> None:
    for method in (PLANTED.tokens, PLANTED.attention, PLANTED.outlier_mask):
        with pytest.raises(BackboneError, match=r"planted takes bytes \[B, 3, 112, 112\], got"):
            method(images)


def test_pictures_differ_in_their_global_atoms(tmp_path: Path) -> None:
    pictures = generated_pictures(tmp_path, 24)
    views = torch.stack([shifted_views(p, PLANTED.site, 1)[0] for p in pictures])
    used = PLANTED.mixture(views).codes[..., of_kind(Kind.GLOBAL)].any((0, 1))
    assert used.mean() > 0.6
