"""What vitscope writes for SAELens is read by SAELens as the same SAE."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.sae.formats.cases import expected
from tests.sae.formats.make_exports import EXPORTED, SITE, SOURCES, exported_sae

from vitscope.errors import SaeError
from vitscope.sae.formats.load import load_sae
from vitscope.sae.formats.saelens import export_saelens
from vitscope.sae.model import GroupMax, LayerNorm, TopK

SAELENS_PYTHON = os.environ.get("VITSCOPE_SAELENS_PYTHON")
"""An interpreter that has sae_lens; without one, its recorded reading is compared."""


@pytest.mark.parametrize("case", SOURCES)
def test_the_recorded_export_is_todays(case: str, tmp_path: Path) -> None:
    weights, config = export_saelens(exported_sae(case), tmp_path)
    recorded = load_file(EXPORTED / case / "sae_weights.safetensors")
    written = load_file(weights)
    assert written.keys() == recorded.keys()
    for name, value in written.items():
        torch.testing.assert_close(value, recorded[name], rtol=1e-6, atol=1e-6)
    assert json.loads(config.read_text()) == json.loads((EXPORTED / case / "cfg.json").read_text())


@pytest.mark.parametrize("case", SOURCES)
def test_saelens_reads_the_same_sae(case: str) -> None:
    sae, theirs = exported_sae(case), expected(EXPORTED / case)
    codes = sae.encode(theirs.x)
    assert torch.equal(codes != 0, theirs.codes != 0)
    torch.testing.assert_close(codes, theirs.codes, rtol=1e-5, atol=1e-5)
    x_hat = sae.decode(codes, like=theirs.x)
    torch.testing.assert_close(x_hat, theirs.x_hat, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(SAELENS_PYTHON is None, reason="VITSCOPE_SAELENS_PYTHON names no interpreter")
@pytest.mark.parametrize("case", SOURCES)
def test_saelens_itself_reads_what_is_written_now(case: str, tmp_path: Path) -> None:
    assert SAELENS_PYTHON is not None
    sae, x = exported_sae(case), expected(EXPORTED / case).x
    export_saelens(sae, tmp_path)
    save_file({"x": x}, tmp_path / "x.st")
    code = (
        "import sys; from sae_lens.saes.sae import SAE; "
        "from safetensors.torch import load_file, save_file; "
        "f = sys.argv[1]; s = SAE.load_from_disk(f); x = load_file(f + '/x.st')['x']; "
        "save_file({'codes': s.encode(x).detach(), 'x_hat': s(x).detach()}, f + '/y.st')"
    )
    subprocess.run([SAELENS_PYTHON, "-c", code, str(tmp_path)], check=True, timeout=120)
    theirs = load_file(tmp_path / "y.st")
    codes = sae.encode(x)
    torch.testing.assert_close(codes, theirs["codes"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.decode(codes, like=x), theirs["x_hat"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", SOURCES)
def test_read_back_it_is_the_same(case: str, tmp_path: Path) -> None:
    sae, x = exported_sae(case), expected(EXPORTED / case).x
    export_saelens(sae, tmp_path)
    back = load_sae(tmp_path)
    torch.testing.assert_close(back.encode(x), sae.encode(x), rtol=1e-6, atol=1e-6)
    assert back.info["declared_layer"] == SITE.layer
    assert back.info["declared_model"] == SITE.model


def test_what_saelens_has_no_form_for_is_refused(tmp_path: Path) -> None:
    sae = replace(exported_sae("topk"), k=4)
    for change, message in (
        (replace(sae, activation=TopK(signed=True)), "negative values"),
        (replace(sae, activation=GroupMax()), "groupmax"),
        (replace(sae, token_norm=LayerNorm(epsilon=1e-3)), "0.001"),
        (replace(sae, b_enc=sae.b_enc * torch.nan), "b_enc are NaN"),
    ):
        with pytest.raises(SaeError, match=message):
            export_saelens(change, tmp_path)
    assert list(tmp_path.iterdir()) == []
