"""Reading a run that may have been made, changed or damaged elsewhere."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from vitscope.errors import ArtifactError, VitscopeError

MOST_WORDS = 200
"""Characters of the reason that are passed on."""

WRONG_SHAPE = (
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError,
)  # fmt: skip
"""What Python, NumPy and torch raise of values that are not what the code reads them as."""


@contextmanager
def tables_of(folder: Path) -> Generator[None]:
    """Turn what a table without its columns, values or types causes in the block into one line.

    The tables of one's own run are compared with their checksums before they are read; those of a
    run that is only looked at are taken as they lie there.

    Raises:
        ArtifactError: naming the run and what was not found in it.
    """
    try:
        yield
    except VitscopeError:
        raise
    except WRONG_SHAPE as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:MOST_WORDS]
        raise ArtifactError(
            f"the tables of {folder} are not those of a whole run of this version ({why}); run "
            "`vitscope run` on its study again"
        ) from error
