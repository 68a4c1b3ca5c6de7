"""A study: every setting of a run, read from TOML, written back as resolved."""

import copy
import tomllib
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
from vitscope.sae.formats.hub import is_hub_address
from vitscope.sae.settings import SaeSettings
from vitscope.scope.settings import (
    AwcdsSettings,
    InstabilitySettings,
    OutlierSettings,
    ScopeSettings,
    StabilitySettings,
)
from vitscope.settings import Settings, read_toml
from vitscope.tokens.sampling import ActivationSettings

Group = TypeVar("Group", bound=Settings)

STUDY_FILE = "study.toml"
"""Of a run directory."""


class BesideSettings(Settings):
    """Runs whose figures are drawn beside this one's: a control, another layer, another model."""

    runs: tuple[Path, ...] = ()
    """Run directories that have finished; an untrained copy of the backbone says what the figures
    show without anything learned."""


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

    @property
    def stretch(self) -> bool:
        """Whether images are stretched to the square rather than cropped."""
        return self.scope.resize == "stretch"


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read and validate a study; relative paths in it start from its own folder.

    Args:
        path: a study file, or a run directory, which holds its own.
        overrides: settings that replace the file's, ``scope.gamma=0.3``: a TOML value, or plain
            text. A path that is there is taken from the current folder.

    Raises:
        ConfigError: the file is missing, is not TOML, or a setting is unknown or invalid.
    """
    file = path / STUDY_FILE if path.is_dir() else path
    if file != path and not file.exists():
        raise ConfigError(
            f"{path} is a folder without {STUDY_FILE}; give the path of a study file, or the "
            "directory of a run"
        )
    return _parsed(_overridden(_read(file), overrides), file)


def _overridden(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    for one in overrides:
        key, equals, text = one.partition("=")
        *groups, name = key.strip().split(".")
        if not equals or not name or not all(groups):
            raise ConfigError(f"--set {one!r}: give KEY=VALUE, such as scope.gamma=0.3")
        inner = changed
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {one!r}: {group} is a setting, not a group of them")
        inner[name] = _typed(text.strip())
    return changed


def _typed(text: str) -> object:
    """Return a TOML value, or the text itself; a path of the current folder as a whole one."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return str(Path(text).absolute()) if text and Path(text).exists() else text


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


def study_of(
    model: str,
    images: Path,
    *,
    sae: Path | None = None,
    backbone: Mapping[str, object] | None = None,
    overrides: Sequence[str] = (),
) -> Study:
    """Return the study of a model and images, without a file; relative paths start from here.

    Args:
        model: the backbone's name.
        images: folder, list or scenes.
        sae: one brought along; None trains one.
        backbone: further settings of the backbone, as text where they were typed; None is unset.
        overrides: other settings, ``scope.gamma=0.3``.

    Raises:
        ConfigError: an option is unknown or out of range.
    """
    given = {key: _number(value) for key, value in (backbone or {}).items() if value is not None}
    parts = [Path(model).name, *(() if sae is None else _last_parts(sae))]
    values: dict[str, Any] = {
        "name": "-".join(parts),
        "images": {"train": str(images)},
        "backbone": {"name": model, **given},
    }
    if sae is not None:
        values["sae"] = {"path": str(sae)}
    study = Study.parse(_overridden(values, overrides), source="options")
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
