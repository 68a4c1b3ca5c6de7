"""A study: every setting of a run, read from TOML, written back as resolved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import Field

from vitscope.backbones.settings import BackboneSettings, resolve_name
from vitscope.embedded.files import SHIPPED, shipped_sae
from vitscope.errors import ConfigError
from vitscope.images.sources import ImageSettings, is_scene_set
from vitscope.probes.settings import ProbeSettings
from vitscope.report.beside_settings import BesideSettings
from vitscope.sae.formats.hub import is_hub_address
from vitscope.sae.settings import SaeSettings
from vitscope.scope.awcds import AwcdsSettings
from vitscope.scope.instability_settings import InstabilitySettings
from vitscope.scope.outliers import OutlierSettings
from vitscope.scope.settings import ScopeSettings
from vitscope.scope.stability_settings import StabilitySettings
from vitscope.settings import Settings, read_toml
from vitscope.tokens.sampling import ActivationSettings

Group = TypeVar("Group", bound=Settings)


class Study(Settings):
    """Everything that decides a run's results."""

    name: str = Field(default="study", min_length=1)
    """Title of the report, and folder under ``runs/`` unless ``--out`` says otherwise."""

    note: str = ""
    """Shown on top of the report: what a reader must know before looking at a number."""

    seed: int = Field(default=0, ge=0)
    """Decides every draw, together with the epoch and the image's id."""

    images: ImageSettings
    backbone: BackboneSettings = BackboneSettings()
    activations: ActivationSettings = ActivationSettings()
    sae: SaeSettings = SaeSettings()
    scope: ScopeSettings = ScopeSettings()
    outliers: OutlierSettings = OutlierSettings()
    instability: InstabilitySettings = InstabilitySettings()
    awcds: AwcdsSettings = AwcdsSettings()
    stability: StabilitySettings = StabilitySettings()
    beside: BesideSettings = BesideSettings()
    probes: ProbeSettings = ProbeSettings()


def load_study(path: Path) -> Study:
    """Read and validate a study; relative paths in it start from its own folder.

    Raises:
        ConfigError: the file is missing, is not TOML, or holds an unknown or invalid setting.
    """
    return _parsed(_read(path), path)


def load_study_for_each(path: Path, models: Sequence[str]) -> list[Study]:
    """Return the study of ``path`` once for each backbone, under the name ``NAME-BACKBONE``.

    Raises:
        ConfigError: as of :func:`load_study`; or a backbone is named twice, or the study has a
            setting that can fit one backbone only.
    """
    values, labels = _read(path), [Path(model).name for model in models]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"a model is named twice: {', '.join(labels)}")
    chosen, sae = dict(values.get("backbone", {})), values.get("sae", {}).get("path")
    layer = chosen.get("layer")
    own = {
        "backbone.weights": chosen.get("weights"),
        "backbone.layer": layer if isinstance(layer, int) and layer > 0 else None,
        "sae.path": None if sae == SHIPPED else sae,
    }
    for setting, value in own.items():
        if value is not None:
            raise ConfigError(
                f"{path}: {setting} = {value} fits one backbone, not several; leave it out (a "
                "layer may count from the end, as -2), or write a study for each and name them all"
            )
    return [
        _parsed(
            {**values, "name": f"{values['name']}-{label}", "backbone": {**chosen, "name": model}},
            path,
        )
        for model, label in zip(models, labels, strict=True)
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        values = read_toml(path)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; give the path of a study file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; give the path of a study file") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    values.setdefault("name", path.stem)
    return values


def _parsed(values: dict[str, Any], path: Path) -> Study:
    return resolve_paths(Study.parse(values, source=str(path)), path.resolve().parent)


def folder_name(study: Study) -> str:
    """Return what a study's run directory is called."""
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in study.name)
    return name.lstrip(".") or "study"  # neither runs/.. nor a hidden folder


def resolve_paths(study: Study, base: Path) -> Study:
    """Make every path of a study absolute, relative ones starting from ``base``."""
    groups: dict[str, Settings] = {}
    for group in ("images", "backbone", "sae"):
        groups[group] = _absolute(getattr(study, group), base)
    if study.sae.path == SHIPPED:
        path = shipped_sae(study.backbone.name)
        groups["sae"] = groups["sae"].model_copy(update={"path": path})
    groups["probes"] = _absolute_probes(study.probes, base)
    for group, key in (("stability", "against"), ("beside", "runs")):
        settings = getattr(study, group)
        runs = tuple(_located(path, base) for path in getattr(settings, key))
        groups[group] = settings.model_copy(update={key: runs})
    name = resolve_name(study.backbone.name, base)
    groups["backbone"] = groups["backbone"].model_copy(update={"name": name})
    return study.model_copy(update=groups)


def _absolute(settings: Group, base: Path) -> Group:
    paths = {
        key: _located(value, base)
        for key, value in settings.__dict__.items()
        if isinstance(value, Path) and not (is_scene_set(value) or is_hub_address(value))
    }
    return settings.model_copy(update=paths)


def _located(path: Path, base: Path) -> Path:
    try:
        found = base / path.expanduser()
    except RuntimeError:
        raise ConfigError(f"{path}: no such user's home; write the path out") from None
    if "\0" in str(found):
        raise ConfigError(f"{str(path)!r} is no path: it holds a NUL character")
    return found


def _absolute_probes(probes: ProbeSettings, base: Path) -> ProbeSettings:
    groups = {
        key: _absolute(value, base)
        for key, value in probes.__dict__.items()
        if isinstance(value, Settings)
    }
    weights = probes.zeroshot.tower_weights
    if weights is not None and (file := _located(Path(weights), base)).is_file():
        update = {"tower_weights": str(file)}
        groups["zeroshot"] = groups["zeroshot"].model_copy(update=update)
    return probes.model_copy(update=groups)


def study_for_sae(model: str, sae: Path, images: Path, options: Mapping[str, object]) -> Study:
    """Return the study that scores an SAE brought along; relative paths start from here.

    Args:
        model: the backbone's name.
        sae: folder of the SAE.
        images: folder or list of images.
        options: further settings of the backbone, as text where they were typed; None is unset.

    Raises:
        ConfigError: an option is out of range.
    """
    given = {key: _number(value) for key, value in options.items() if value is not None}
    study = Study(
        name="-".join([Path(model).name, *_last_parts(sae)]),
        images=ImageSettings(train=images),
        backbone=BackboneSettings.parse({"name": model, **given}, source="options"),
        sae=SaeSettings(path=sae),
    )
    return resolve_paths(study, Path.cwd())


def _last_parts(sae: Path) -> tuple[str, ...]:
    path = Path(str(sae).partition("@")[0]) if is_hub_address(sae) else sae.resolve()
    return path.parts[-2:]


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.lstrip("-").isdecimal() else value


def dump_study(study: Study) -> str:
    """Return the study as TOML; what is unset is left out, TOML has no null."""
    return tomli_w.dumps(without_none(study.model_dump(mode="json")))


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings without what is unset, group by group."""
    return {
        key: without_none(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None
    }
