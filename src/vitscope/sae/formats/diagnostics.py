"""Whether an SAE and a backbone belong together: seconds, on about a thousand tokens."""

import math
from dataclasses import dataclass

import torch

from vitscope.axes import Rows
from vitscope.errors import SaeError
from vitscope.sae.formats.record import ASSUMED, CAUTION
from vitscope.sae.model import SparseAutoencoder

SAMPLE_TOKENS = 1000
"""Enough to tell a wrong reading of a file from a right one; dead features need far more."""

ROWS_AT_ONCE = 256


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
    for rows in tokens.split(ROWS_AT_ONCE):
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
