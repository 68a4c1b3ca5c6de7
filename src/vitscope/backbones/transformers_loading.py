"""A ``transformers`` model from a folder of ``save_pretrained`` or the hub, loaded strictly.

What a folder does not hold would be left random by ``transformers``, with a line in its log.
"""

import importlib
import math
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from vitscope.backbones.adapter import designated_layer, whole_grid
from vitscope.backbones.backbone import Preprocessing, Site
from vitscope.backbones.hub import require_answer, unfetched
from vitscope.backbones.settings import BackboneSettings, refuse_settings
from vitscope.backbones.transformers_vit import (
    TRANSFORMERS_FAMILIES,
    Channels,
    Family,
    TransformersBackbone,
)
from vitscope.backbones.weights.reading import (
    checkpoint_files,
    read_json_object,
    some_of,
    weights_checksum,
)
from vitscope.errors import BackboneError, first_line

INSTALL = 'pip install "vitscope[hf]"'
CONFIG = "config.json"
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""The second is of a model with a text tower, newer."""

SAFETENSORS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")

TOWER_KEY = re.compile(r"(^|\.)(embeddings|encoder|layers?)\.")
"""Weights of a vision tower, as against heads, projections and poolers."""

TEXT_KEY = re.compile(r"^(module\.)?text_")
UNUSED_KEY = re.compile(r"\.(mask_token|position_ids)$")
"""Of masked training, and a count that old files carry: no image passes through them."""

BYTE_SCALE = 1 / 255


@dataclass(frozen=True)
class TransformersFolder:
    """A folder with a model.

    Attributes:
        path: with ``config.json`` and the weights.
        label: what the model is called in a site: the hub's name, or the folder's own.
        weights: what was loaded: a checksum, or ``hub:``, the hub's name and the commit.
    """

    path: Path
    label: str
    weights: str


def load_transformers(
    source: str, settings: BackboneSettings, device: torch.device
) -> TransformersBackbone:
    """Build the backbone of ``backbone.name = "transformers:SOURCE"``.

    Args:
        source: a hub's name, or a folder as ``save_pretrained`` leaves it. ``settings.weights``
            may name such a folder (or the file in it) to stand in for the hub.
        settings: layer, resolution, crop and precision. The resolution and crop that are not set
            are those of the folder's preprocessing, then of its configuration.
        device: where the weights go.

    Raises:
        BackboneError: ``transformers`` is not installed, nothing to load, a model of another kind,
            weights that are not exactly the model's, a block or size that it does not have.
    """
    name = settings.name
    _transformers(name)
    refuse_settings(settings, "activation", because=f" (its {CONFIG} says which)")
    if settings.positions == "meta":
        raise BackboneError(
            f"backbone.positions = 'meta' means nothing for {name}: transformers resizes "
            "position embeddings itself (bicubic); remove it"
        )
    folder = find_folder(source, settings.weights, name=name)
    model_type = read_json_object(folder.path / CONFIG).get("model_type")
    if model_type not in TRANSFORMERS_FAMILIES:
        known = ", ".join(TRANSFORMERS_FAMILIES)
        raise BackboneError(
            f"{name} is a transformers model of type '{model_type}'; supported: {known}. Others: "
            "an adapter of your own (docs/backbones.md)"
        )
    family = TRANSFORMERS_FAMILIES[model_type]
    model = _load_model(family, folder.path, name)
    saved, side = saved_preprocessing(folder.path, family)
    native, patch = model.config.image_size, model.config.patch_size
    if not isinstance(native, int) or not isinstance(patch, int):
        raise BackboneError(f"{name} takes images or patches that are not square")
    site = Site(
        model=f"transformers:{folder.label} ({family.model_class})",
        weights=folder.weights,
        layer=designated_layer(settings.layer, None, len(family.blocks_of(model)), name),
        width=int(model.config.hidden_size),
        grid=whole_grid(settings.resolution or side or native, patch, name),
        patch=patch,
    )
    seen = Preprocessing(settings.crop_share or saved.crop_share, saved.mean, saved.std)
    return TransformersBackbone(model.to(device), site, seen, settings.precision, family=family)


def find_folder(source: str, weights: Path | None, *, name: str) -> TransformersFolder:
    """Return the folder of ``source``, downloaded where it is a hub's name and not cached.

    Args:
        source: a folder, or ``owner/name`` on the hub.
        weights: a folder, or a file in one, to take in place of what ``source`` names.
        name: the backbone, for messages.

    Raises:
        BackboneError: no such folder, nothing in it, or a hub that does not answer in seconds.
    """
    local = Path(source).expanduser()
    if weights is not None or local.is_dir():
        path = local if weights is None else weights.parent if weights.is_file() else weights
        if not path.exists():
            raise BackboneError(f"{path} does not exist; give a folder with a transformers model")
        if not (path / CONFIG).is_file():
            raise BackboneError(
                f"{path} has no {CONFIG}; give a folder as transformers' save_pretrained leaves it"
            )
        label = local.resolve().name if local.is_dir() else source
        return TransformersFolder(path, label, weights_checksum(path))
    try:
        validate_repo_id(source)
    except HFValidationError:
        raise BackboneError(
            f"{name}: '{source}' is neither a folder nor a name on the Hugging Face hub "
            "(owner/name)"
        ) from None
    path = _snapshot(source, name)
    checkpoint_files(path)
    return TransformersFolder(path, source, f"hub:{source}@{path.name}")


def _snapshot(repo: str, name: str) -> Path:
    cached = huggingface_hub.try_to_load_from_cache(repo, CONFIG)
    if isinstance(cached, str):
        try:
            checkpoint_files(Path(cached).parent)  # half of a download is no model
            return Path(cached).parent
        except BackboneError:
            pass
    require_answer(huggingface_hub.hf_hub_url(repo, CONFIG), name)
    try:
        for weights in (SAFETENSORS, PICKLES):
            patterns = [CONFIG, *PREPROCESSORS, *weights]
            folder = Path(huggingface_hub.snapshot_download(repo, allow_patterns=patterns))
            if any(folder.glob("*.safetensors")):
                break
    except (OSError, HfHubHTTPError) as error:
        raise unfetched(name, first_line(error)) from None
    if not (folder / CONFIG).is_file():
        raise unfetched(name, f"{repo} has no {CONFIG}")
    return folder


def _transformers(name: str) -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise BackboneError(f"{name} needs transformers: {INSTALL}") from None


def _load_model(family: Family, folder: Path, name: str) -> Any:
    """Return the vision model of a folder, fp32, in evaluation mode; all of it from its files."""
    transformers = _transformers(name)
    try:
        with _quietly(transformers):
            model, report = getattr(transformers, family.model_class).from_pretrained(
                folder,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                dtype=torch.float32,
                attn_implementation="sdpa",
                local_files_only=True,
                **dict(family.options),
            )
    except Exception as error:  # transformers raises what it likes
        raise BackboneError(f"{folder} cannot be loaded as {name}: {first_line(error)}") from None
    unexpected = [key for key in report["unexpected_keys"] if TOWER_KEY.search(key)]
    kinds = {
        "missing": report["missing_keys"],
        "unexpected": [key for key in unexpected if not TEXT_KEY.search(key)],
        "of another shape": {key for key, *_ in report["mismatched_keys"]},
    }
    used = {kind: [k for k in keys if not UNUSED_KEY.search(k)] for kind, keys in kinds.items()}
    problems = [f"{kind}: {some_of(keys)}" for kind, keys in used.items() if keys]
    if problems:
        raise BackboneError(f"{folder} does not hold weights of {name}: {'; '.join(problems)}")
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise BackboneError(f"{folder} holds NaN or infinite weights")
    try:
        attention = getattr(family.blocks_of(model)[0], family.attention)
        _ = attention.q_proj, attention.k_proj, attention.head_dim
    except AttributeError:
        raise BackboneError(
            f"transformers {transformers.__version__} arranges its {family.model_class} otherwise "
            f"than vitscope knows: {INSTALL} --upgrade"
        ) from None
    return model.eval()


@contextmanager
def _quietly(transformers: Any) -> Generator[None]:
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def saved_preprocessing(folder: Path, family: Family) -> tuple[Preprocessing, int | None]:
    """Return the preprocessing that a folder was saved with, the family's where there is none.

    A resize of both sides to one size (SigLIP, ViT) becomes a resize of the shorter side and no
    crop: the nearest that keeps the aspect ratio. Images are always resized bicubically.

    Returns:
        And the side of the images that come out, in pixels; None where nothing is said.

    Raises:
        BackboneError: it scales pixels otherwise than to [0, 1], or is no image preprocessing.
    """
    alone, joint = (folder / name for name in PREPROCESSORS)
    path = alone if alone.is_file() else joint
    found = read_json_object(path) if path.is_file() else None
    if found is not None and path == joint:
        found = found.get("image_processor")
    if found is None:
        return Preprocessing(1.0, family.mean, family.std), None
    scale = found.get("rescale_factor", BYTE_SCALE)
    if not found.get("do_rescale", True) or not math.isclose(scale, BYTE_SCALE, rel_tol=1e-3):
        raise BackboneError(
            f"{path} scales bytes by {found.get('rescale_factor')}, not 1/255; vitscope's adapter "
            "cannot: write an adapter of your own (docs/backbones.md)"
        )
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if found.get("do_normalize", True):
        mean = _channels(found.get("image_mean", family.mean), path)
        std = _channels(found.get("image_std", family.std), path)
    resized = _side(found.get("size"))
    # older files leave the flag out where there is a crop
    crops = found.get("do_center_crop", found.get("crop_size") is not None)
    cropped = _side(found.get("crop_size")) if crops else None
    share = min(cropped / resized, 1.0) if cropped and resized else 1.0
    return Preprocessing(share, mean, std), cropped or resized


def _side(size: Any) -> int | None:
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    return size if isinstance(size, int) and size > 0 else None


def _channels(values: Any, path: Path) -> Channels:
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        raise BackboneError(f"{path} standardises {values}, not three channels")
    first, second, third = (float(value) for value in values)
    return first, second, third
