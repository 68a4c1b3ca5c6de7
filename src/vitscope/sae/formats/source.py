"""What lies at a path, before anyone says what it means."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vitscope.errors import SaeError
from vitscope.sae.formats.reading import Stored, read_object, read_stored

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
USUAL_WEIGHTS = ("sae_weights.safetensors", "sae.safetensors", "ae.pt", "sae.pt", "weights.pt")
"""Where a folder holds more than one file of tensors, the first of these that is there."""

CONFIGS = ("sae.json", "cfg.json", "config.json")
MAPPINGS = ("mapping.toml", "mapping.json")
MAX_NAMED = 8


@dataclass(frozen=True, eq=False)
class Source:
    """One SAE's files, read.

    Attributes:
        weights: the file of tensors.
        stored: what it holds.
        config: the JSON beside it; empty where there is none.
    """

    weights: Path
    stored: Stored
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def names(self) -> frozenset[str]:
        """Names of the tensors."""
        return frozenset(self.stored.tensors)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of real numbers.

        Raises:
            SaeError: it is not there, or holds other numbers.
        """
        if name not in self.stored.tensors:
            raise SaeError(f"{self.weights} lacks {name}; it holds {some(sorted(self.names))}")
        found = self.stored.tensors[name]
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
        extra = sorted(self.names - set(names))
        if extra:
            raise SaeError(
                f"{self.weights} holds {some(extra)}, which an SAE of this format does not have; "
                "describe the file with a mapping.toml (docs/saes.md)"
            )


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
        shapes = [f"{n} {list(t.shape)}" for n, t in sorted(source.stored.tensors.items())]
        raise SaeError(
            f"{source.weights}: its tensors do not fit each other ({some(shapes)}); is it damaged, "
            "or of another format?"
        ) from None


def find_mapping(path: Path) -> Path | None:
    """Return the mapping file that a path is, or that a folder holds."""
    if path.suffix == ".toml" or path.name in MAPPINGS:
        return path
    found = [path / name for name in MAPPINGS if (path / name).is_file()]
    return found[0] if found else None


def open_source(path: Path) -> Source:
    """Read the tensors and the configuration at ``path``: a folder, or a file of tensors.

    Raises:
        SaeError: nothing there, several SAEs, or files that cannot be read.
    """
    weights = weights_file(path)
    config = find_config(weights)
    return Source(weights, read_stored(weights), {} if config is None else read_object(config))


def weights_file(path: Path) -> Path:
    """Return the file of tensors that ``path`` is, or that a folder holds.

    Raises:
        SaeError: none, or several with nothing to tell which.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise SaeError(f"{path} holds no SAE: it does not exist; give a folder or a file of one")
    files = _weights_in(path)
    usual = [path / name for name in USUAL_WEIGHTS if path / name in files]
    if len(files) == 1 or usual:
        return (usual or files)[0]
    if files:
        names = some([file.name for file in files])
        raise SaeError(f"{path} holds several files of tensors ({names}); give the path of one")
    below = sorted({file.parent for file in _weights_below(path)})
    if below:
        names = some([str(folder.relative_to(path)) for folder in below])
        raise SaeError(f"{path} holds SAEs in folders of its own ({names}); give the path of one")
    raise SaeError(
        f"{path} holds no SAE: no file ends in {', '.join(WEIGHT_SUFFIXES)}; give the folder or "
        "the file that its library wrote"
    )


def find_config(weights: Path) -> Path | None:
    """Return the configuration beside a file of tensors, or above a ``checkpoints`` folder."""
    folders = [weights.parent]
    if weights.parent.name == "checkpoints":
        folders.append(weights.parent.parent)
    found = [folder / name for folder in folders for name in CONFIGS if (folder / name).is_file()]
    return found[0] if found else None


def some(names: list[str]) -> str:
    """List the first few, and how many more there are."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _weights_in(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES and file.is_file()
    )


def _weights_below(folder: Path) -> list[Path]:
    depths = ("*/*", "*/*/*")
    return [
        file
        for depth in depths
        for file in folder.glob(depth)
        if file.suffix in WEIGHT_SUFFIXES and file.is_file()
    ]
