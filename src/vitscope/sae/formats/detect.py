"""Which format an SAE's files are of: told by what they hold, not by what they are called."""

from collections.abc import Callable
from dataclasses import dataclass

from vitscope.errors import SaeError
from vitscope.sae.formats import (
    clipscope,
    dictionary_learning,
    prisma,
    saelens,
    saev,
    sparsify,
)
from vitscope.sae.formats.source import Source, some
from vitscope.sae.model import SparseAutoencoder


@dataclass(frozen=True)
class Format:
    """One project's way of keeping an SAE.

    Attributes:
        name: the project.
        recognises: whether files are of this format; no two say yes to the same files.
        read: the SAE they hold.
    """

    name: str
    recognises: Callable[[Source], bool]
    read: Callable[[Source], SparseAutoencoder]


FORMATS = tuple(
    Format(module.NAME, module.recognises, module.read)
    for module in (saev, saelens, prisma, dictionary_learning, sparsify, clipscope)
)


def detect(source: Source) -> Format:
    """Return the format of ``source``.

    Raises:
        SaeError: none knows it; the message says what was found and what to do.
    """
    for known in FORMATS:
        if known.recognises(source):
            return known
    names = ", ".join(known.name for known in FORMATS)
    raise SaeError(
        f"{source.weights} is of no known format ({names}); it holds {some(sorted(source.names))}"
        f"{'' if source.config else ', and no JSON beside it says more'}; describe it with a "
        "mapping.toml (docs/saes.md)"
    )
