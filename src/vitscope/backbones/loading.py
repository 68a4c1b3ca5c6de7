"""From a name in the settings to a backbone ready to run."""

from pathlib import Path
from typing import Any

import torch

from vitscope.backbones.backbone import Backbone
from vitscope.backbones.fetching import PACKAGED, packaged_file
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.settings import TRANSFORMERS, BackboneSettings, refuse_settings
from vitscope.backbones.user_model import check_backbone, is_user_model, load_user_model
from vitscope.backbones.weights.reading import INDEX_SUFFIX
from vitscope.embedded.files import REFERENCE_BACKBONES
from vitscope.errors import BackboneError, first_line

PLANTED = "planted"
DEVICES = ("cpu", "cuda", "mps")


def load_backbone(settings: BackboneSettings | str, **options: Any) -> Backbone:
    """Build the backbone that ``settings`` name, with its weights, on its device.

    Args:
        settings: the settings, or a name with further settings as keywords
            (``load_backbone("clip-b16", weights="clip.pt", layer=10)``).
        options: see :class:`BackboneSettings`.

    Raises:
        BackboneError: unknown name, weights that cannot be had, a block or size it does not have.
        ConfigError: an option that does not exist.
    """
    if isinstance(settings, str):
        settings = BackboneSettings.parse({"name": settings, **options}, source="load_backbone")
    if settings.name == PLANTED:
        refuse_settings(settings, "weights", "layer", "resolution", "crop_share", "activation")
        return PlantedBackbone()
    device = choose_device(settings.device)
    # timm and transformers take seconds to import: each for a backbone that needs it alone
    if settings.name in REFERENCE_BACKBONES:
        from vitscope.backbones.scenes_vit import load_scenes_vit  # noqa: PLC0415

        return load_scenes_vit(settings, device)
    if settings.name.startswith(TRANSFORMERS):
        from vitscope.backbones.transformers_loading import load_transformers  # noqa: PLC0415

        return load_transformers(settings.name.removeprefix(TRANSFORMERS), settings, device)
    if is_user_model(settings.name):
        chosen = settings.model_copy(update={"device": str(device)})
        return check_backbone(load_user_model(chosen))
    from vitscope.backbones.timm_vit import load_timm  # noqa: PLC0415

    return load_timm(settings, device)


def weights_files(settings: BackboneSettings) -> tuple[Path, ...]:
    """Return the local files from which a backbone would be loaded, sorted; nothing is opened.

    A file of weights, or what ``vitscope fetch`` made of a package's; every file of a folder of
    weights, shards and configuration included; the user's own ``file.py``. Empty for weights of the
    hub or of vitscope itself. What does not exist is returned as it was given: loading says so.
    """
    named = [] if settings.weights is None else [settings.weights]
    if settings.name in PACKAGED:
        named = named or [packaged_file(settings.name)]
    elif settings.name.startswith(TRANSFORMERS):
        local = Path(settings.name.removeprefix(TRANSFORMERS)).expanduser()
        # weights given as a file stand for their folder, where the configuration is
        named = [path.parent if path.is_file() else path for path in named]
        named += [local] if local.is_dir() and not named else []
    elif is_user_model(settings.name):
        source = settings.name.rpartition(":")[0]
        named += [Path(source)] if source.endswith(".py") else []
    files: set[Path] = set()
    for path in named:
        # beside an index lie its shards
        folder = path.parent if path.name.endswith(INDEX_SUFFIX) else path
        files |= {f for f in folder.iterdir() if f.is_file()} if folder.is_dir() else {path}
    return tuple(sorted(files))


def choose_device(name: str) -> torch.device:
    """Return the device of ``name``; ``auto`` is CUDA where there is one.

    Raises:
        BackboneError: not a device, or not one of this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in DEVICES:
            raise RuntimeError(f"it is none of {', '.join(DEVICES)}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(
            f"backbone.device = '{name}' cannot be used: {first_line(error)}"
        ) from None
    return device
