"""One door for every SAE: a path or a place on the hub, whatever wrote it."""

from dataclasses import replace
from pathlib import Path

from vitscope.sae import storage
from vitscope.sae.formats.detect import detect
from vitscope.sae.formats.hub import fetch_sae, is_hub_address
from vitscope.sae.formats.mapping import read_mapped
from vitscope.sae.formats.source import find_mapping, open_source, shapes_must_fit
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import require_finite


def load_sae(source: Path | str) -> SparseAutoencoder:
    """Load anyone's SAE.

    Its ``info`` says which format it had, how the file was read, and what to be careful about.
    Whether it reconstructs the backbone's tokens is
    :func:`vitscope.sae.formats.diagnostics.check_reconstruction`'s to say.

    Args:
        source: a folder, a file of tensors, a mapping file, or a place on the Hugging Face hub:
            ``hf:owner/repo[/folder][@revision]``.

    Raises:
        SaeError: nothing there, an unknown format, a transcoder, pickled objects, damaged files,
            or a hub that cannot be reached.
    """
    if not is_hub_address(source):
        return _load(Path(source))
    text = str(source)
    fetched = fetch_sae(text)
    sae = _load(fetched.path)
    return replace(sae, info={**sae.info, "source": text, "revision": fetched.revision})


def _load(path: Path) -> SparseAutoencoder:
    mapping = find_mapping(path)
    if mapping is not None:
        sae = read_mapped(mapping)
    elif (own := _own_folder(path)) is not None:
        return storage.load_saved_sae(own)
    else:
        source = open_source(path)
        with shapes_must_fit(source):
            sae = detect(source).read(source)
    tensors = {name: getattr(sae, name) for name in storage.SAE_TENSORS}
    require_finite(tensors, path)
    return sae


def _own_folder(path: Path) -> Path | None:
    """Return the folder of an SAE that vitscope wrote: the card is its own."""
    folder = path.parent if path.name in (storage.WEIGHTS, storage.CARD) else path
    return folder if (folder / storage.CARD).is_file() else None
