"""What the numbered classes of ImageNet-1K are: a WordNet id for each, in their own order."""

from pathlib import Path

from vitscope.errors import ImageSetError
from vitscope.images.matlab import read_matlab

META = ("synsets.ILSVRC2012_ID", "synsets.WNID", "synsets.num_children")
"""What is read of ``meta.mat``: every class of the tree, of which the leaves are pictured."""


def read_synset_order(path: Path) -> tuple[str, ...]:
    """Return the WordNet id of each ILSVRC2012 id, from 1, of ``meta.mat`` or a text file.

    Raises:
        ImageSetError: the file is missing, or is neither.
    """
    if path.suffix == ".mat":
        return _meta_order(path)
    lines = [line.split()[0] for line in read_lines(path) if line.strip()]
    if len(set(lines)) != len(lines):
        raise ImageSetError(f"{path} names a class twice; one WordNet id a line is expected")
    return tuple(lines)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file.

    Raises:
        ImageSetError: it is missing, or no UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageSetError(f"cannot read {path}: {error}") from None


def _meta_order(path: Path) -> tuple[str, ...]:
    numbers, wnids, children = read_matlab(path, META, "ImageNet's classes (meta.mat)")
    try:
        pairs = [(int(n), str(wnid)) for n, wnid in zip(numbers, wnids, strict=True)]
        leaves = [int(n) == 0 for n in children]
        order = sorted(pair for pair, leaf in zip(pairs, leaves, strict=True) if leaf)
    except (ValueError, OverflowError) as error:
        raise ImageSetError(
            f"{path} is not the meta.mat of the ILSVRC2012 development kit: {error}"
        ) from None
    if [number for number, _ in order] != list(range(1, len(order) + 1)):
        raise ImageSetError(f"{path}: its classes are not numbered 1 to {len(order)}")
    return tuple(wnid for _, wnid in order)
