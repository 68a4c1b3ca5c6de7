"""An SAE on disk: ``sae.safetensors`` with the weights, ``sae.json`` with everything else."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from vitscope.backbones.backbone import Site
from vitscope.errors import ArtifactError, SaeError
from vitscope.sae.model import (
    AboveThreshold,
    AboveThresholds,
    Activation,
    ConstantNorm,
    GroupMax,
    Info,
    LayerNorm,
    SparseAutoencoder,
    TokenNorm,
    TopK,
)
from vitscope.store.atomic import bytes_checksum, file_checksum, read_json, write_json
from vitscope.store.tensors import load_tensors, save_tensors

SAE_SCHEMA = 2
"""Bumped when the meaning of a file changes: 1 knew one threshold and no token normalisation."""

DECLARED_HOOK, DECLARED_LAYER = "declared_hook", "declared_layer"
"""Keys of ``info``: where an imported SAE says it was trained, in its own words, and the block
(from 1) whose output that is; no block where it is not the residual stream."""

WEIGHTS, CARD = "sae.safetensors", "sae.json"
SAE_TENSORS = ("w_enc", "b_enc", "w_dec", "b_dec")

_THRESHOLDS = "thresholds"
"""Name of the one tensor that an activation may have."""

METRIC_DEFINITIONS = {
    "fvu": "sum |x - x_hat|^2 / sum |x - mu|^2 over the whole set; mu: per-dimension mean over "
    "all evaluated tokens",
    "l0": "mean number of features above the threshold per token",
    "cosine": "mean over tokens of cos(x, x_hat)",
}
"""Protocol, section 3: published FVUs differ in the denominator, so a card says which is meant."""


def save_sae(folder: Path | str, sae: SparseAutoencoder) -> list[Path]:
    """Write ``sae`` into ``folder`` and return the files; the card, last, names the weights.

    Raises:
        SaeError: a tensor has NaN or infinity.
        ArtifactError: the folder cannot be written.
    """
    folder = Path(folder)
    activation, of_activation = _describe_activation(sae.activation)
    tensors = {name: cast(Tensor, getattr(sae, name)) for name in SAE_TENSORS} | of_activation
    require_finite(tensors, folder)
    weights, card = folder / WEIGHTS, folder / CARD
    save_tensors(weights, tensors, {"schema": str(SAE_SCHEMA)})
    write_json(
        card,
        {
            "schema": SAE_SCHEMA,
            "width": sae.width,
            "n_features": sae.n_features,
            "k": sae.k,
            "threshold": sae.threshold,
            "activation": activation,
            "token_norm": _describe_token_norm(sae.token_norm),
            "site": None if sae.site is None else asdict(sae.site),
            "metrics": METRIC_DEFINITIONS,
            "info": sae.info,
            "weights_sha256": file_checksum(weights),
        },
    )
    return [weights, card]


def load_saved_sae(folder: Path | str) -> SparseAutoencoder:
    """Load the SAE that vitscope wrote into ``folder``.

    Any format and any place: :func:`vitscope.sae.formats.load.load_sae`.

    Raises:
        SaeError: a file is missing, damaged, from a newer vitscope or of another SAE; a tensor is
            missing, unexpected, of the wrong shape, or not finite.
    """
    folder = Path(folder)
    weights, card_path = folder / WEIGHTS, folder / CARD
    missing = [path.name for path in (weights, card_path) if not path.is_file()]
    if missing:
        raise SaeError(
            f"{folder} holds no SAE: {' and '.join(missing)} missing; give the folder that "
            "vitscope wrote (a run's sae/)"
        )
    card = _read_card(card_path)
    try:
        tensors, _ = load_tensors(weights)
    except ArtifactError as error:
        raise SaeError(str(error)) from error
    _require_names(tensors, weights)
    require_finite(tensors, weights)
    tensors = {name: _widened(tensor) for name, tensor in tensors.items()}
    sae = _assemble(tensors, card, card_path, weights)
    if (sae.width, sae.n_features) != (card["width"], card["n_features"]):
        raise SaeError(
            f"{weights} holds {sae.n_features} features of width {sae.width}, but {CARD} says "
            f"{card['n_features']} of width {card['width']}"
        )
    if card.get("weights_sha256") != file_checksum(weights):
        raise SaeError(f"{weights} is not the file that {CARD} describes; save the SAE again")
    return sae


def sae_digest(sae: SparseAutoencoder) -> str:
    """Return a hash of everything that decides codes and reconstructions, wherever it came from."""
    activation, of_activation = _describe_activation(sae.activation)
    norm = _describe_token_norm(sae.token_norm)
    tensors = {name: cast(Tensor, getattr(sae, name)) for name in SAE_TENSORS} | of_activation
    told = json.dumps([sae.threshold, sae.k, activation, norm, sorted(tensors)])
    chunks = [tensors[name].cpu().contiguous() for name in sorted(tensors)]
    shapes = [(str(chunk.dtype), tuple(chunk.shape)) for chunk in chunks]
    views = [chunk.reshape(-1).view(torch.uint8).numpy().data for chunk in chunks]
    return bytes_checksum(told.encode(), repr(shapes).encode(), *views)


def _widened(tensor: Tensor) -> Tensor:
    """Half precision is for the disk alone: codes are computed in fp32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def check_fits(sae: SparseAutoencoder, site: Site) -> None:
    """Refuse an SAE that was trained on other activations than those of ``site``.

    An SAE whose own site is unknown passes if its width fits, and what its file declares of layer
    and hook. The grid may differ: a token is a token at any resolution.

    Raises:
        SaeError: naming both sides of the first difference.
    """
    if sae.width != site.width:
        raise SaeError(
            f"the SAE takes activations of width {sae.width}, but {site.model} gives width "
            f"{site.width}; use an SAE of this backbone, or leave sae.path out to train one"
        )
    if sae.site is None:
        _check_declared(sae, site)
        return
    for name, label in (("model", "backbone"), ("layer", "layer"), ("weights", "weights")):
        theirs, ours = getattr(sae.site, name), getattr(site, name)
        if theirs != ours:
            raise SaeError(
                f"the SAE was trained on {label} {theirs}, but the study reads {label} {ours} "
                f"({site.model}); use an SAE of this site, or leave sae.path out to train one"
            )


def _check_declared(sae: SparseAutoencoder, site: Site) -> None:
    """Compare what an imported file says of itself; names of models differ between libraries."""
    hook, layer = sae.info.get(DECLARED_HOOK), sae.info.get(DECLARED_LAYER)
    if hook is not None and layer is None:
        raise SaeError(
            f"the SAE was trained on {hook}, which is not the residual stream after a block; "
            "vitscope reads that alone, so use an SAE trained on it"
        )
    if layer is not None and layer != site.layer:
        raise SaeError(
            f"the SAE was trained on block {layer} ({hook}), but the study reads block "
            f"{site.layer}, counted from 1; set backbone.layer = {layer}, or use another SAE"
        )


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = read_json(path)
    except ArtifactError as error:
        raise SaeError(str(error)) from error
    schema = cast(dict[str, Any], card).get("schema") if isinstance(card, dict) else None
    if not isinstance(schema, int):
        raise SaeError(f"{path} is not the card of a vitscope SAE: it names no schema")
    if schema > SAE_SCHEMA:
        raise SaeError(
            f"{path} was written by a newer vitscope (schema {schema}, this one knows "
            f"{SAE_SCHEMA}); upgrade vitscope"
        )
    return cast(dict[str, Any], card)


def _assemble(
    tensors: dict[str, Tensor], card: dict[str, Any], card_path: Path, weights: Path
) -> SparseAutoencoder:
    try:
        of_activation = {name: tensors.pop(name) for name in (_THRESHOLDS,) if name in tensors}
        fields: dict[str, Any] = {
            "threshold": float(card["threshold"]),
            "k": int(card["k"]),
            "site": None if card["site"] is None else Site(**card["site"]),
            "info": cast(Info, dict(card["info"])),
        }
        if card["schema"] > 1:
            fields["activation"] = _read_activation(card["activation"], of_activation)
            fields["token_norm"] = _read_token_norm(card["token_norm"])
        if of_activation:
            raise ValueError(f"it says nothing of {', '.join(of_activation)}")
        _ = card["width"], card["n_features"]
    except (KeyError, TypeError, ValueError) as error:
        raise SaeError(f"{card_path} is incomplete or damaged: {error!r}") from error
    try:
        return SparseAutoencoder(**tensors, **fields)
    except SaeError as error:
        raise SaeError(f"{weights}: {error}") from error


def _require_names(tensors: dict[str, Tensor], path: Path) -> None:
    problems = [f"{name} is missing" for name in SAE_TENSORS if name not in tensors]
    problems += [
        f"{name} is unexpected" for name in sorted(set(tensors) - {*SAE_TENSORS, _THRESHOLDS})
    ]
    problems += [
        f"{name} is {tensors[name].dtype}, not floating point"
        for name in SAE_TENSORS
        if name in tensors and not tensors[name].is_floating_point()
    ]
    if problems:
        raise SaeError(f"{path}: " + "; ".join(problems))


def require_finite(tensors: dict[str, Tensor], where: Path | str) -> None:
    """Refuse NaN and infinity.

    Raises:
        SaeError: naming the tensor and how many.
    """
    for name, tensor in tensors.items():
        bad = int((~tensor.isfinite()).sum())
        if bad:
            raise SaeError(
                f"{where}: {bad} of {math.prod(tensor.shape)} values of {name} are "
                "NaN or infinite; the training diverged or the file is damaged"
            )


def _describe_activation(activation: Activation) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return an activation's plain values, and its tensors by name."""
    match activation:
        case AboveThreshold():
            return {"kind": "threshold"}, {}
        case AboveThresholds(thresholds):
            return {"kind": "thresholds"}, {_THRESHOLDS: thresholds}
        case TopK(signed):
            return {"kind": "topk", "signed": signed}, {}
        case GroupMax():
            return {"kind": "groupmax"}, {}


def _read_activation(described: dict[str, Any], tensors: dict[str, Tensor]) -> Activation:
    """Return what :func:`_describe_activation` was given; its tensors are taken from ``tensors``.

    Raises:
        KeyError: a value or tensor is missing.
        ValueError: a kind that does not exist.
    """
    match described["kind"]:
        case "threshold":
            return AboveThreshold()
        case "thresholds":
            return AboveThresholds(tensors.pop(_THRESHOLDS))
        case "topk":
            return TopK(signed=bool(described["signed"]))
        case "groupmax":
            return GroupMax()
        case other:
            raise ValueError(f"no activation {other!r}")


def _describe_token_norm(norm: TokenNorm | None) -> dict[str, Any] | None:
    """Return a token normalisation's plain values."""
    match norm:
        case None:
            return None
        case LayerNorm(epsilon):
            return {"kind": "layer", "epsilon": epsilon}
        case ConstantNorm():
            return {"kind": "constant"}


def _read_token_norm(described: object) -> TokenNorm | None:
    """Return what :func:`_describe_token_norm` was given.

    Raises:
        KeyError: a value is missing.
        ValueError: a kind that does not exist.
    """
    if described is None:
        return None
    values = cast(dict[str, Any], described)
    match values["kind"]:
        case "layer":
            return LayerNorm(float(values["epsilon"]))
        case "constant":
            return ConstantNorm()
        case other:
            raise ValueError(f"no token normalisation {other!r}")
