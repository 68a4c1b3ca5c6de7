"""SAEs saved by other libraries give here the codes and reconstructions that they give there."""

from pathlib import Path

import pytest
import torch
from tests.sae.formats.cases import expected, folders, parameters

from vitscope.sae.formats.load import SAE_FORMATS, load_sae
from vitscope.sae.formats.source import open_source
from vitscope.sae.storage import load_saved_sae as load_own
from vitscope.sae.storage import save_sae

LIBRARIES = {
    "sae-lens": 13,
    "dictionary-learning": 8,
    "eai-sparsify": 3,
    "saev": 1,
    "clipscope": 2,
    "overcomplete": 2,
}


def test_every_library_has_its_files() -> None:
    for library, n in LIBRARIES.items():
        assert len(folders(f"{library}-[0-9]*")) == n, library


@pytest.mark.parametrize("folder", parameters())
def test_codes_and_reconstructions_are_the_librarys(folder: Path) -> None:
    sae, theirs = load_sae(folder), expected(folder)
    codes = sae.encode(theirs.x)
    assert torch.equal(codes != 0, theirs.codes != 0)
    torch.testing.assert_close(codes, theirs.codes, rtol=1e-5, atol=1e-5)
    x_hat = sae.decode(codes, like=theirs.x)
    torch.testing.assert_close(x_hat, theirs.x_hat, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("folder", parameters())
def test_some_features_are_those_columns(folder: Path) -> None:
    sae, theirs = load_sae(folder), expected(folder)
    wanted = torch.tensor([31, 0, 7, 7])
    torch.testing.assert_close(
        sae.encode(theirs.x, wanted), theirs.codes[:, wanted], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("folder", parameters())
def test_saved_as_vitscopes_own_it_stays_the_same(folder: Path, tmp_path: Path) -> None:
    sae, x = load_sae(folder), expected(folder).x
    save_sae(tmp_path, sae)
    for again in (load_own(tmp_path), load_sae(tmp_path)):
        assert torch.equal(again.encode(x), sae.encode(x))
        assert torch.equal(again.decode(sae.encode(x), like=x), sae.decode(sae.encode(x), like=x))
        assert (again.info, again.k) == (sae.info, sae.k)


@pytest.mark.parametrize("folder", parameters())
def test_one_format_alone_recognises_a_file(folder: Path) -> None:
    if (folder / "mapping.toml").is_file():
        return
    source = open_source(folder)
    assert len([known.name for known in SAE_FORMATS if known.recognises(source)]) == 1


def test_a_library_that_keeps_negative_values_is_among_them() -> None:
    (folder,) = (f for f in folders("clipscope-*") if f.name == "topk")
    assert bool((expected(folder).codes < 0).any())
