"""From what a study calls its images to a set of them, and from a reference to a picture."""

from pathlib import Path

from PIL import Image

from vitscope.images.decode import PIL_PIXEL_LIMIT, decode_image
from vitscope.images.scenes.address import scene_address
from vitscope.images.scenes.source import SceneSet, is_scene_set
from vitscope.images.sources import ImageFolder, ImageRef

ImageSet = ImageFolder | SceneSet
"""References to images in a fixed order, with a hash that changes when an image does."""


def open_image_set(path: Path, *, limit: int | None = None) -> ImageSet:
    """List a folder, a text file of paths, or ``scenes:N?seed=S&side=PIXELS``.

    Raises:
        ImageSetError: nothing is there, it holds no image candidates, or the scenes' name is wrong.
    """
    if is_scene_set(path):
        return SceneSet.parse(path, limit=limit)
    return ImageFolder(path, limit=limit)


def open_image(ref: ImageRef, *, max_pixels: int = PIL_PIXEL_LIMIT) -> Image.Image:
    """Decode or render an image to upright RGB.

    Raises:
        UnreadableImageError: its file is truncated, empty, not an image, too large, …
    """
    scene = scene_address(ref.path)
    return decode_image(ref.path, max_pixels=max_pixels) if scene is None else scene.render()
