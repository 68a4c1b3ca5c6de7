"""Any other SAE: its state dict, and a small file that says which tensor is what."""

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vitscope.backbones.weights.reading import MAX_TEXT_BYTES
from vitscope.errors import ConfigError, SaeError
from vitscope.sae.formats.folding import gated, of_raw_input
from vitscope.sae.formats.source import (
    Source,
    imported_sae,
    open_source,
    read_object,
    shapes_must_fit,
)
from vitscope.sae.model import (
    LAYER_NORM_EPSILON,
    AboveThreshold,
    AboveThresholds,
    Activation,
    ConstantNorm,
    GroupMax,
    LayerNorm,
    SparseAutoencoder,
    TokenNorm,
    TopK,
)
from vitscope.settings import Settings, read_toml


class TensorNames(Settings):
    """Which tensor of the file is what; a matrix name followed by ``.T`` is transposed."""

    w_enc: str
    """Encoder ``[d, m]``: x is multiplied by it from the right."""

    w_dec: str
    """Decoder ``[m, d]``: one feature a row."""

    b_enc: str | None = None
    """Encoder bias ``[m]``; None is none. In a gated SAE the bias of the magnitude."""

    b_dec: str | None = None
    """Decoder bias ``[d]``; None is none."""

    threshold: str | None = None
    """θ, one or ``[m]``."""

    log_threshold: str | None = None
    """Logarithm of θ, one or ``[m]``, where the file has that."""

    b_gate: str | None = None
    """Bias of the gate ``[m]``; with ``r_mag``, the SAE is gated."""

    r_mag: str | None = None
    """Logarithm of the magnitude's factor ``[m]``."""

    input_mean: str | None = None
    """``[d]``, subtracted from x before anything else."""

    input_deviation: str | None = None
    """One or ``[d]``, x is divided by it after that."""

    decoder_log_scale: str | None = None
    """One number or ``[m]``: its exponential multiplies the decoder's rows."""


class SaeMapping(Settings):
    """A mapping file: the tensors' names, and how the SAE encodes."""

    tensors: TensorNames
    """Which tensor is what."""

    weights: Path | None = None
    """File of tensors, beside the mapping; None for the only one there."""

    statistics: Path | None = None
    """File of tensors beside the mapping with ``input_mean`` and ``input_deviation``, where they
    are not with the weights."""

    activation: Literal["relu", "topk", "signed_topk", "groupmax", "threshold"] = "relu"
    """How pre-activations become codes; with ``tensors.b_gate`` it is the gate."""

    k: int = Field(default=0, ge=0)
    """K, where the activation has one."""

    threshold: float | None = Field(default=None, ge=0)
    """θ, where it is a number and no tensor."""

    subtract_b_dec: bool = True
    """Whether b_dec is subtracted before the encoder."""

    token_norm: Literal["none", "layer_norm", "constant_norm"] = "none"
    """What is done to every token first, and undone after the decoder."""

    epsilon: float = Field(default=LAYER_NORM_EPSILON, ge=0)
    """ε of ``layer_norm``, added to the deviation."""

    unit_rows: bool = False
    """Whether the decoder's rows are brought to norm 1 before use, as some libraries do."""

    model: str | None = None
    """The backbone it was trained on, in any words."""

    hook: str | None = None
    """Where it was trained: ``blocks.10.hook_resid_post`` is the output of block 11, from 1."""


def read_mapped(path: Path) -> SparseAutoencoder:
    """Read the SAE that the mapping file ``path`` describes.

    Raises:
        SaeError: the mapping has an unknown or wrong key, names a tensor or file that is not
            there, or shapes do not fit.
    """
    try:
        mapping = SaeMapping.parse(_values(path), source=str(path))
    except ConfigError as error:
        raise SaeError(f"{error} (docs/saes.md has every key)") from None
    source = _beside(path, mapping.weights)
    with shapes_must_fit(source):
        sae = _assembled(source, mapping)
        names = mapping.tensors
        if names.input_mean is None and names.input_deviation is None:
            return sae
        held = source if mapping.statistics is None else _beside(path, mapping.statistics)
        mean = _vector(held, names.input_mean, sae.width)
        deviation = torch.ones(sae.width)
        if names.input_deviation is not None:
            deviation = deviation * held.tensor(names.input_deviation)
        return of_raw_input(sae, mean, deviation)


def _assembled(source: Source, mapping: SaeMapping) -> SparseAutoencoder:
    names = mapping.tensors
    w_enc, w_dec = _matrix(source, names.w_enc), _decoder(source, mapping)
    b_enc = _vector(source, names.b_enc, w_dec.shape[0])
    activation, theta = _activation(source, mapping)
    if names.b_gate is not None and names.r_mag is not None:
        gate, factor = source.tensor(names.b_gate), source.tensor(names.r_mag)
        w_enc, activation = gated(w_enc, gate, factor, b_enc)
    norms: dict[str, TokenNorm | None] = {
        "none": None,
        "layer_norm": LayerNorm(mapping.epsilon),
        "constant_norm": ConstantNorm(),
    }
    return imported_sae(
        source,
        f"mapping {mapping.activation}",
        w_enc=w_enc,
        b_enc=b_enc,
        w_dec=w_dec,
        b_dec=_vector(source, names.b_dec, w_dec.shape[-1]),
        threshold=theta,
        k=mapping.k,
        activation=activation,
        token_norm=norms[mapping.token_norm],
        centred=mapping.subtract_b_dec,
        normalised=f"tokens are normalised as {mapping.token_norm!r}",
        axes=f"W_enc is {names.w_enc}, W_dec is {names.w_dec}",
        model=mapping.model,
        hook=mapping.hook,
    )


def _decoder(source: Source, mapping: SaeMapping) -> Tensor:
    w_dec = _matrix(source, mapping.tensors.w_dec)
    if mapping.unit_rows:
        w_dec = torch.nn.functional.normalize(w_dec.double(), dim=1).float()
    if mapping.tensors.decoder_log_scale is not None:
        w_dec = w_dec * source.tensor(mapping.tensors.decoder_log_scale).exp().reshape(-1, 1)
    return w_dec


def _activation(source: Source, mapping: SaeMapping) -> tuple[Activation, float]:
    """Return the activation, and the one θ where all features share it."""
    names = mapping.tensors
    match mapping.activation:
        case "relu":
            return AboveThreshold(), 0.0
        case "topk" | "signed_topk":
            return TopK(signed=mapping.activation == "signed_topk"), 0.0
        case "groupmax":
            return GroupMax(), 0.0
        case "threshold":
            if names.threshold is not None:
                theta = source.tensor(names.threshold)
            elif names.log_threshold is not None:
                theta = source.tensor(names.log_threshold).exp()
            elif mapping.threshold is not None:
                return AboveThreshold(), mapping.threshold
            else:
                raise SaeError("activation 'threshold' needs threshold, or tensors.threshold")
            if theta.numel() == 1:
                return AboveThreshold(), max(0.0, float(theta))
            return AboveThresholds(theta.clamp_min(0)), 0.0


def _matrix(source: Source, name: str) -> Tensor:
    if name.endswith(".T") and name not in source.names:
        return source.transposed(name.removesuffix(".T"))
    found = source.tensor(name)
    if found.ndim != 2:
        raise SaeError(f"{name} has shape {list(found.shape)}; a matrix is expected")
    return found


def _vector(source: Source, name: str | None, size: int) -> Tensor:
    return torch.zeros(size) if name is None else source.tensor(name)


def _beside(path: Path, file: Path | None) -> Source:
    if file is None:
        return open_source(path.parent, config=False)
    if file.name != str(file):
        raise SaeError(f"{path} names {file}; a mapping names files beside it, by name alone")
    if file.name not in {one.name for one in path.parent.iterdir()}:
        raise SaeError(f"{path} names {file}, which is not beside it")
    return open_source(path.parent / file, config=False)


def _values(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        return read_object(path)
    try:
        return read_toml(path, most_bytes=MAX_TEXT_BYTES)
    except OSError as error:
        raise SaeError(f"{path} cannot be read: {error.strerror or error}") from None
    except ConfigError as error:
        raise SaeError(str(error)) from None
