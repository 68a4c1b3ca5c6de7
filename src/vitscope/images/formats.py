"""What a file is: by its suffix where that says enough, otherwise by its first bytes.

A folder of photographs holds more than photographs. A file is *read*, when it is in a format that
is decoded here; *unread*, when it is a picture and is not: it is listed with the reason; *other*,
when it is no picture (videos, notes, sidecars), and then nobody needs to hear of it.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

IMAGE_SUFFIXES = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".avif", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc", ".heic", ".heif", ".hif",
])  # fmt: skip
"""A file of a folder is a candidate by its suffix (any case); decoding then goes by content."""

_RAW_SUFFIXES = [
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".raf", ".orf", ".rw2", ".pef",
    ".srw", ".x3f",
]  # fmt: skip
UNREAD_SUFFIXES = {
    **dict.fromkeys(_RAW_SUFFIXES, "camera raw is not read; export it as JPEG or TIFF"),
    ".jxl": "JPEG XL is not read; export it as JPEG",
    ".psd": "a Photoshop document is not read; export it as PNG or JPEG",
    ".xcf": "a GIMP document is not read; export it as PNG or JPEG",
    ".svg": "SVG is a drawing, not pixels; it is not read",
    ".exr": "OpenEXR is not read; export it as PNG or JPEG",
}
"""Suffix -> why such a picture is not read. Camera raw passes for TIFF by content, and what would
then be decoded is a thumbnail: here the suffix decides."""

NOT_READ = frozenset(UNREAD_SUFFIXES.values())
"""Reasons that say nothing against a set: these files are whole, and of another kind."""

OTHER_SUFFIXES = frozenset([
    ".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".htm", ".css", ".js",
    ".toml", ".yaml", ".yml", ".ini", ".db", ".log", ".pdf", ".doc", ".docx", ".zip", ".gz",
    ".tar", ".tgz", ".7z", ".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mts",
    ".mp3", ".m4a", ".wav", ".aae", ".xmp", ".thm", ".gpx", ".py", ".npy", ".npz", ".mat",
    ".parquet", ".safetensors", ".pt", ".pth", ".bin", ".h5", ".part", ".tmp",
])  # fmt: skip
"""Never opened to see whether they are pictures after all."""

HEAD_BYTES = 64
"""Of a file: enough for every signature below."""

PIL_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Read by content, whatever the suffix; PIL's others may run programs (EPS) or are never photos."""

HEIF = "HEIF"
"""What phones write as HEIC; decoded where the extra «heic» is installed."""

HEIF_MISSING = "HEIC is read with the extra: pip install 'vitscope[heic]'"

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"\0\0\0\x0cJXL \r\n\x87\n": ".jxl",
    b"\xff\x0a": ".jxl",
    b"8BPS": ".psd",
    b"gimp xcf": ".xcf",
    b"v/1\x01": ".exr",
}
_AVIF_BRANDS = frozenset([b"avif", b"avis"])
_HEIF_BRANDS = frozenset(
    [b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif"]
)


def format_of(head: bytes) -> str | None:
    """Return what the first bytes of a file are of.

    Args:
        head: at least :data:`HEAD_BYTES` of them, or the whole file.

    Returns:
        one of :data:`PIL_FORMATS`, :data:`HEIF`, a key of :data:`UNREAD_SUFFIXES`, or None where
        they are of no picture. Portable anymaps (``P6``) look like text and are told by suffix.
    """
    if head[4:8] == b"ftyp":  # the container of HEIC and AVIF, and of MP4 and QuickTime
        size = int.from_bytes(head[:4], "big")
        box = head[8 : min(size, HEAD_BYTES)]
        brands = {box[i : i + 4] for i in range(0, len(box) - 3, 4) if i != 4}  # a version
        if brands & _AVIF_BRANDS:
            return "AVIF"
        return HEIF if brands & _HEIF_BRANDS else None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "BMP"
    return next((kind for start, kind in _STARTS.items() if head.startswith(start)), None)


def is_candidate(path: Path) -> bool:
    """Whether a file of a folder may be a picture, read here or not.

    Only a file whose suffix is none of ours is opened: a folder of hundreds of thousands of
    photographs is listed by names alone.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or suffix in UNREAD_SUFFIXES:
        return True
    if suffix in OTHER_SUFFIXES:
        return False
    try:
        if not path.is_file():  # a pipe would block for ever
            return False
        with path.open("rb") as file:
            return format_of(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def unread_by_suffix(path: Path) -> str | None:
    """Return why a file of this name is not read, None where its content decides."""
    return UNREAD_SUFFIXES.get(path.suffix.lower())


def pil_formats(head: bytes) -> tuple[tuple[str, ...], str | None]:
    """Return the formats that PIL may try, and why a picture of another one is not read."""
    kind = format_of(head)
    if kind == HEIF:
        return ((HEIF,), None) if _registers_heif() else ((), HEIF_MISSING)
    return PIL_FORMATS, UNREAD_SUFFIXES.get(kind or "")


@cache
def _registers_heif() -> bool:
    """Whether PIL reads HEIF from here on: its reader is loaded when the first such file comes."""
    if find_spec("pillow_heif") is None:
        return False
    from pillow_heif import register_heif_opener  # noqa: PLC0415  (an extra)

    register_heif_opener()
    return True
