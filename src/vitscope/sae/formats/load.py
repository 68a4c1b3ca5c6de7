"""One door for every SAE: a path or a place on the hub, whatever wrote it; and does it reconstruct?

Which format files are of is told by what they hold, not by what they are called. Whether an SAE and
a backbone belong together takes about a thousand tokens to see, in seconds.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vitscope.axes import Rows
from vitscope.backbones.weights.reading import some_of
from vitscope.errors import SaeError
from vitscope.sae import storage
from vitscope.sae.formats.clipscope import CLIPSCOPE
from vitscope.sae.formats.dictionary_learning import DICTIONARY_LEARNING
from vitscope.sae.formats.hub import fetch_sae, is_hub_address
from vitscope.sae.formats.mapping import read_mapped
from vitscope.sae.formats.prisma import PRISMA
from vitscope.sae.formats.saelens import SAELENS
from vitscope.sae.formats.saev import SAEV
from vitscope.sae.formats.source import (
    ASSUMED,
    CAUTION,
    MAX_NAMED,
    Format,
    Source,
    find_mapping,
    open_source,
    shapes_must_fit,
)
from vitscope.sae.formats.sparsify import SPARSIFY
from vitscope.sae.model import SparseAutoencoder

SAE_FORMATS = (SAEV, SAELENS, PRISMA, DICTIONARY_LEARNING, SPARSIFY, CLIPSCOPE)

SAMPLE_TOKENS = 1000
"""Enough to tell a wrong reading of a file from a right one; dead features need far more."""

_ROWS_AT_ONCE = 256


def load_sae(source: Path | str) -> SparseAutoencoder:
    """Load anyone's SAE.

    Its ``info`` says which format it had, how the file was read, and what to be careful about.
    Whether it reconstructs the backbone's tokens is :func:`check_reconstruction`'s to say.

    Args:
        source: a folder, a file of tensors, a mapping file, or a place on the Hugging Face hub:
            ``hf:owner/repo[/folder][@revision]``.

    Raises:
        SaeError: nothing there, an unknown format, a transcoder, pickled objects, damaged files,
            or a hub that cannot be reached.
    """
    if not is_hub_address(source):
        return _load(Path(source))
    text = str(source)
    path, revision = fetch_sae(text)
    sae = _load(path)
    return replace(sae, info={**sae.info, "source": text, "revision": revision})


def _load(path: Path) -> SparseAutoencoder:
    mapping = find_mapping(path)
    # the card of an SAE that vitscope wrote is its own
    folder = path.parent if path.name in (storage.WEIGHTS, storage.CARD) else path
    if mapping is not None:
        sae = read_mapped(mapping)
    elif (folder / storage.CARD).is_file():
        return storage.load_saved_sae(folder)
    else:
        source = open_source(path)
        with shapes_must_fit(source):
            sae = detect_format(source).read(source)
    storage.require_finite({name: getattr(sae, name) for name in storage.SAE_TENSORS}, path)
    return sae


def detect_format(source: Source) -> Format:
    """Return the format of ``source``.

    Raises:
        SaeError: none knows it; the message says what was found and what to do.
    """
    for known in SAE_FORMATS:
        if known.recognises(source):
            return known
    names = ", ".join(known.name for known in SAE_FORMATS)
    raise SaeError(
        f"{source.weights} is of no known format ({names}); it holds "
        f"{some_of(source.names, MAX_NAMED)}"
        f"{'' if source.config else ', and no JSON beside it says more'}; describe it with a "
        "mapping.toml (docs/saes.md)"
    )


@dataclass(frozen=True)
class Diagnostics:
    """How an SAE does on a sample of tokens.

    Attributes:
        n_tokens: tokens of the sample.
        fvu: Σ‖x − x̂‖² / Σ‖x − μ‖², μ the sample's mean (protocol, section 3). 1 is what predicting
            the mean gives; 0 is perfect.
        norm_ratio: mean ‖x̂‖ / ‖x‖. Near 1 where scale and bias were read right.
        l0: mean number of non-zero codes per token.
        dead_share: share of features that are silent on the whole sample.
    """

    n_tokens: int
    fvu: float
    norm_ratio: float
    l0: float
    dead_share: float


def diagnose(sae: SparseAutoencoder, tokens: Rows) -> Diagnostics:
    """Reconstruct ``tokens`` ``[N, d]``, raw activations of the backbone, and measure.

    Raises:
        SaeError: no token, tokens of another width, or tokens that are not finite.
    """
    n = len(tokens)
    if n == 0:
        raise SaeError("no tokens to try the SAE on; give about 1,000 of the backbone's")
    if tokens.shape[1] != sae.width:
        raise SaeError(
            f"the SAE takes activations of width {sae.width}, the tokens have {tokens.shape[1]}; "
            "use an SAE of this backbone"
        )
    if not bool(tokens.isfinite().all()):
        raise SaeError("the tokens hold NaN or infinity; read the backbone in fp32")
    mean = tokens.double().mean(0)
    error = spread = ratio = 0.0
    n_active, fired = 0, torch.zeros(sae.n_features, dtype=torch.bool)
    for rows in tokens.split(_ROWS_AT_ONCE):
        codes = sae.encode(rows)
        x, x_hat = rows.double(), sae.decode(codes, like=rows).double()
        error += float((x - x_hat).square().sum())
        spread += float((x - mean).square().sum())
        ratio += float((x_hat.norm(dim=1) / x.norm(dim=1).clamp_min(1e-12)).sum())
        n_active += int((codes != 0).sum())
        fired |= (codes != 0).any(0).cpu()
    return Diagnostics(
        n_tokens=n,
        fvu=error / spread if spread > 0 else math.nan,
        norm_ratio=ratio / n,
        l0=n_active / n,
        dead_share=float((~fired).double().mean()),
    )


def check_reconstruction(sae: SparseAutoencoder, tokens: Rows) -> Diagnostics:
    """Return :func:`diagnose` of an SAE that reconstructs; refuse one that does not.

    Raises:
        SaeError: FVU is 1 or more, that is, no better than predicting the mean: the SAE is of
            another backbone, layer or preprocessing, or the file was read wrongly. The message
            says how it was read.
    """
    found = diagnose(sae, tokens)
    if found.fvu < 1:
        return found
    reading = str(sae.info.get(ASSUMED, "vitscope's own form"))
    caution = f" ({sae.info[CAUTION]})" if CAUTION in sae.info else ""
    raise SaeError(
        f"the SAE reconstructs {found.n_tokens} tokens no better than their mean (FVU "
        f"{found.fvu:.3g}, norm ratio {found.norm_ratio:.3g}, L0 {found.l0:.3g}): it is of another "
        f"backbone, layer or preprocessing, or was read wrongly; assumed: {reading}{caution}; "
        "another reading can be given in a mapping.toml (docs/saes.md)"
    )
