"""Pictures whose numbers are labels or depths: opened as they are, without any conversion."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from vitscope.errors import ImageSetError
from vitscope.images.decode import UnreadableImageError, opened_image


@contextmanager
def opened_raw(path: Path, what: str) -> Generator[Image.Image]:
    """Open a file in a format of :data:`~vitscope.images.decode.FORMATS`; pixels are not loaded.

    Args:
        path: of the file.
        what: it should be, for messages: "a mask", "depth".

    Raises:
        ImageSetError: it cannot be read, or has too many pixels.
    """
    if not path.is_file():  # a pipe would block for ever
        raise ImageSetError(f"{path} cannot be read as {what}: it is no regular file")
    try:
        with opened_image(path) as picture:
            yield picture
    except UnreadableImageError as error:
        raise ImageSetError(f"{path} cannot be read as {what}: {error.reason}") from None
