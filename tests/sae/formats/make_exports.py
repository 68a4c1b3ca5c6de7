"""SAEs exported to SAELens, for SAELens to read: run with vitscope, then its reading is recorded.

::

    python tests/sae/formats/make_exports.py
    formatlibs/bin/python tests/sae/formats/make_fixtures.py exported
"""

from dataclasses import replace
from pathlib import Path

from vitscope.backbones.backbone import Site
from vitscope.sae.formats.load import load_sae
from vitscope.sae.formats.saelens import export_saelens
from vitscope.sae.model import SparseAutoencoder

FIXTURES = Path(__file__).parent / "fixtures"
EXPORTED = FIXTURES / "exported-to-sae-lens"
SITE = Site(model="vit_tiny.made_up", weights="abc", layer=10, width=8, grid=4, patch=8)

SOURCES = {
    "threshold": "dictionary-learning-0.1.0/BatchTopKSAE",
    "thresholds": "dictionary-learning-0.1.0/JumpReluAutoEncoder",
    "gated": "dictionary-learning-0.1.0/GatedAutoEncoder",
    "relu": "saev-0.1.0/relu-no-schema",
    "topk": "eai-sparsify-1.3.3/topk",
    "layer-norm": "sae-lens-6.54.12/gated-uncentred-layer-norm",
    "constant-norm": "sae-lens-6.54.12/standard-constant-norm",
}
"""What is exported under which name: SAEs of other libraries, with scales and biases of no
special value."""


def exported_sae(case: str) -> SparseAutoencoder:
    return replace(load_sae(FIXTURES / SOURCES[case]), site=SITE)


if __name__ == "__main__":
    for name in SOURCES:
        export_saelens(exported_sae(name), EXPORTED / name)
