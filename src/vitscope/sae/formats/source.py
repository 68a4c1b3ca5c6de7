"""What lies at a path before anyone says what it means, and the SAE that it becomes after."""

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitscope.backbones.weights.reading import (
    StoredWeights,
    read_checkpoint,
    read_json_object,
    some_of,
)
from vitscope.errors import BackboneError, SaeError
from vitscope.sae.formats.folding import uncentred_bias
from vitscope.sae.model import (
    AboveThreshold,
    Activation,
    Info,
    SparseAutoencoder,
    TokenNorm,
)
from vitscope.sae.storage import DECLARED_HOOK, DECLARED_LAYER

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
USUAL_WEIGHTS = ("sae_weights.safetensors", "sae.safetensors", "ae.pt", "sae.pt", "weights.pt")
"""Where a folder holds more than one file of tensors, the first of these that is there."""

CONFIGS = ("sae.json", "cfg.json", "config.json")
MAPPINGS = ("mapping.toml", "mapping.json")
MAX_NAMED = 8

ASSUMED, CAUTION = "assumed", "caution"
"""Keys of ``info``: how the file was read, and what a user should know before trusting scores."""

_RESIDUAL_HOOK = re.compile(r"(?:^|\.)blocks\.(\d+)\.hook_resid_(pre|post)$")
_BLOCK_OUTPUT = re.compile(r"(?:^|\.)(?:blocks|layers?|resblocks|h)\.(\d+)$")
_OTHER_HOOK = re.compile(r"\.(?:hook_\w+|mlp|attn|attention|self_attn)(?:\.|$)")


@dataclass(frozen=True, eq=False)
class Source:
    """One SAE's files, read.

    Attributes:
        weights: the file of tensors.
        checkpoint: what it holds.
        config: the JSON beside it; empty where there is none.
    """

    weights: Path
    checkpoint: StoredWeights
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def names(self) -> frozenset[str]:
        """Names of the tensors."""
        return frozenset(self.checkpoint.tensors)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of real numbers.

        Raises:
            SaeError: it is not there, or holds other numbers.
        """
        if name not in self.names:
            raise SaeError(
                f"{self.weights} lacks {name}; it holds {some_of(self.names, MAX_NAMED)}"
            )
        found = self.checkpoint.tensors[name]
        if not found.is_floating_point():
            raise SaeError(f"{self.weights}: {name} holds {found.dtype}, no real numbers")
        return found

    def transposed(self, name: str) -> Tensor:
        """Return a matrix with its axes exchanged, stored in rows.

        Raises:
            SaeError: it is not there, or no matrix.
        """
        found = self.tensor(name)
        if found.ndim != 2:
            raise SaeError(
                f"{self.weights}: {name} has shape {list(found.shape)}; a matrix is expected"
            )
        return found.T.contiguous()

    def require_only(self, *names: str) -> None:
        """Refuse tensors that would be ignored: they may be what makes this another model.

        Raises:
            SaeError: naming them.
        """
        extra = self.names - set(names)
        if extra:
            raise SaeError(
                f"{self.weights} holds {some_of(extra, MAX_NAMED)}, which an SAE of this format "
                "does not have; describe the file with a mapping.toml (docs/saes.md)"
            )

    def refuse_transcoder(self, is_one: bool) -> None:
        """Refuse what predicts another place's activations.

        Raises:
            SaeError: ``is_one``.
        """
        if is_one:
            raise SaeError(
                f"{self.weights} is a transcoder: it predicts another place's activations, not "
                "its own, so its features have no reconstruction to be judged by; give an SAE"
            )

    def whole(self, values: Mapping[str, Any], key: str) -> int:
        """Return a whole number of a configuration.

        Raises:
            SaeError: it is missing or none.
        """
        value = values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value == value // 1:
            raise SaeError(f"{self.weights}: {key} is {value!r}, not a whole number")
        return int(value)


@dataclass(frozen=True)
class Format:
    """One project's way of keeping an SAE.

    Attributes:
        name: the project.
        recognises: whether files are of this format; no two say yes to the same files.
        read: the SAE they hold; SaeError for what vitscope has no form for.
    """

    name: str
    recognises: Callable[[Source], bool]
    read: Callable[[Source], SparseAutoencoder]


def imported_sae(
    source: Source,
    library: str,
    *,
    w_enc: Tensor,
    b_enc: Tensor,
    w_dec: Tensor,
    b_dec: Tensor,
    activation: Activation | None = None,
    threshold: float = 0.0,
    k: int = 0,
    token_norm: TokenNorm | None = None,
    centred: bool = True,
    normalised: str = "tokens are not normalised",
    axes: str = "W_enc is [d, m], W_dec is [m, d]",
    assumed: Sequence[str] = (),
    caution: Sequence[str] = (),
    model: object = None,
    hook: object = None,
) -> SparseAutoencoder:
    """Return the SAE of tensors under vitscope's names and axes; its card says how they were read.

    Args:
        source: its files.
        library: whose format it is, and which variant.
        w_enc: encoder [d, m].
        b_enc: its bias [m].
        w_dec: decoder [m, d].
        b_dec: its bias [d].
        activation: how pre-activations become codes; None is everything above ``threshold``.
        threshold: θ, one for all features.
        k: K, where the activation has one.
        token_norm: what is done to every token first.
        centred: whether b_dec is subtracted before the encoder.
        normalised: said of ``token_norm``.
        axes: said of the matrices.
        assumed: how the file was read where another reading is possible, besides.
        caution: what could make it misleading here.
        model: the backbone as the file names it.
        hook: where it was trained, as the file names it.

    Raises:
        SaeError: the tensors do not fit each other.
    """
    subtracted = f"b_dec {'is' if centred else 'is not'} subtracted before the encoder"
    info: Info = {
        "format": library,
        "file": source.weights.name,
        ASSUMED: "; ".join([subtracted, normalised, axes, *assumed]),
    }
    if caution:
        info[CAUTION] = "; ".join(caution)
    if isinstance(model, str):
        info["declared_model"] = model
    return SparseAutoencoder(
        w_enc=w_enc,
        b_enc=b_enc if centred else uncentred_bias(w_enc, b_enc, b_dec),
        w_dec=w_dec,
        b_dec=b_dec,
        threshold=threshold,
        k=k,
        activation=activation or AboveThreshold(),
        token_norm=token_norm,
        info=info | (_declared(hook) if isinstance(hook, str) else {}),
    )


def one_of(values: Mapping[str, Any], key: str, default: str, known: Sequence[str]) -> str:
    """Return a named choice of a configuration, ``default`` where it is not there.

    Raises:
        SaeError: a choice that is not supported.
    """
    value = values.get(key)
    value = default if value is None else value
    if value not in known:
        raise SaeError(f"{key} = {value!r} is not supported; supported: {', '.join(known)}")
    return str(value)


def section(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the object under ``key`` of a configuration, empty where there is none."""
    found = values.get(key)
    return {str(name): value for name, value in found.items()} if isinstance(found, dict) else {}


@contextmanager
def shapes_must_fit(source: Source) -> Generator[None]:
    """Turn what torch says of tensors that do not fit each other into one line, with the shapes.

    Raises:
        SaeError: naming the file.
    """
    try:
        yield
    except SaeError as error:
        text = str(error)
        placed = text if str(source.weights) in text else f"{source.weights}: {text}"
        raise SaeError(placed) from None
    except (RuntimeError, ValueError, IndexError, TypeError):
        tensors = source.checkpoint.tensors
        shapes = some_of([f"{n} {list(t.shape)}" for n, t in tensors.items()], MAX_NAMED)
        raise SaeError(
            f"{source.weights}: its tensors do not fit each other ({shapes}); is it damaged, "
            "or of another format?"
        ) from None


def find_mapping(path: Path) -> Path | None:
    """Return the mapping file that a path is, or that a folder holds."""
    if path.suffix == ".toml" or path.name in MAPPINGS:
        return path
    found = [path / name for name in MAPPINGS if (path / name).is_file()]
    return found[0] if found else None


def open_source(path: Path, *, config: bool = True) -> Source:
    """Read the tensors and the configuration at ``path``: a folder, or a file of tensors.

    Args:
        path: where to look.
        config: whether a JSON file beside the tensors is read.

    Raises:
        SaeError: nothing there, several SAEs, or files that cannot be read.
    """
    weights = weights_file(path)
    beside = _config_of(weights) if config else None
    try:
        found = read_checkpoint(weights)
    except BackboneError as error:
        raise SaeError(str(error)) from None
    # copies, in rows: safetensors maps the file, which may be written over while we use it
    tensors = {
        name: value.to(value.dtype, copy=True, memory_format=torch.contiguous_format)
        for name, value in found.tensors.items()
    }
    checkpoint = StoredWeights(tensors, found.values, found.header, found.wrapper)
    return Source(weights, checkpoint, {} if beside is None else read_object(beside))


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SaeError: missing, too long, or no JSON object.
    """
    try:
        return read_json_object(file)
    except BackboneError as error:
        raise SaeError(str(error)) from None


def weights_file(path: Path) -> Path:
    """Return the file of tensors that ``path`` is, or that a folder holds.

    Raises:
        SaeError: none, or several with nothing to tell which.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise SaeError(f"{path} holds no SAE: it does not exist; give a folder or a file of one")
    files = _tensor_files(path, "*")
    usual = [path / name for name in USUAL_WEIGHTS if path / name in files]
    if len(files) == 1 or usual:
        return (usual or files)[0]
    if files:
        names = some_of([file.name for file in files], MAX_NAMED)
        raise SaeError(f"{path} holds several files of tensors ({names}); give the path of one")
    below = {str(f.parent.relative_to(path)) for f in _tensor_files(path, "*/*", "*/*/*")}
    if below:
        names = some_of(below, MAX_NAMED)
        raise SaeError(f"{path} holds SAEs in folders of its own ({names}); give the path of one")
    raise SaeError(
        f"{path} holds no SAE: no file ends in {', '.join(WEIGHT_SUFFIXES)}; give the folder or "
        "the file that its library wrote"
    )


def _tensor_files(folder: Path, *patterns: str) -> list[Path]:
    found = [file for pattern in patterns for file in folder.glob(pattern)]
    return sorted(file for file in found if file.suffix in WEIGHT_SUFFIXES and file.is_file())


def _config_of(weights: Path) -> Path | None:
    """Return the configuration beside a file of tensors, or above a ``checkpoints`` folder."""
    folders = [weights.parent]
    if weights.parent.name == "checkpoints":
        folders.append(weights.parent.parent)
    found = [folder / name for folder in folders for name in CONFIGS if (folder / name).is_file()]
    return found[0] if found else None


def _declared(hook: str) -> Info:
    """Return hook and block; a block, from 1, is the one whose output that is."""
    if found := _RESIDUAL_HOOK.search(hook):
        block = int(found[1]) + (found[2] == "post")
        return {DECLARED_HOOK: hook} | ({DECLARED_LAYER: block} if block else {})
    if found := _BLOCK_OUTPUT.search(hook):
        return {DECLARED_HOOK: hook, DECLARED_LAYER: int(found[1]) + 1}
    return {DECLARED_HOOK: hook} if _OTHER_HOOK.search(hook) else {}
