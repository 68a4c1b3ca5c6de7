"""What classes are called, and in which sentences: read from a file, or ImageNet's own."""

from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from vitscope.embedded.vocabulary import PLACES
from vitscope.errors import ConfigError
from vitscope.settings import read_toml

PLACEHOLDER = "{}"
"""Where a template takes the class's name."""

IMAGENET_PROMPTS = "imagenet"
"""In place of a file: the thousand classes and eighty templates of OpenAI's CLIP release."""

SCENE_PROMPTS = "scenes"
"""In place of a file: the places of rendered scenes, and their captions' shortest sentence."""

SCENE_TEMPLATES = ("a photo of a {}",)

_INSTALL = "pip install 'vitscope[text]'"


@dataclass(frozen=True)
class Prompts:
    """Class names and templates.

    Attributes:
        classes: one name per label, in the order of labels.
        templates: sentences with one ``{}`` each; a class is the mean of all of them.

    Raises:
        ConfigError: fewer than two classes, no template, or one without its place.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ConfigError(f"{len(self.classes)} classes to tell apart; give two or more")
        if not self.templates:
            raise ConfigError("no template: give at least one sentence, such as 'a photo of a {}.'")
        for template in self.templates:
            if template.count(PLACEHOLDER) != 1:
                raise ConfigError(f"template '{template}' must hold {PLACEHOLDER} exactly once")

    def sentences(self, label: int) -> list[str]:
        """Return every template with the name of class ``label`` in its place."""
        return [t.replace(PLACEHOLDER, self.classes[label]) for t in self.templates]


def load_prompts(source: str | Path) -> Prompts:
    """Read prompts from a TOML file with ``classes`` and ``templates``, or built-in ones.

    Raises:
        ConfigError: no such file, not of that form, or open_clip is not installed for ImageNet's.
    """
    if str(source) == IMAGENET_PROMPTS:
        return imagenet_prompts()
    if str(source) == SCENE_PROMPTS:
        return Prompts(PLACES, SCENE_TEMPLATES)
    path = Path(source)
    try:
        values = read_toml(path)
    except OSError as error:
        raise ConfigError(f"cannot read prompts from {path}: {error.strerror}") from None
    unknown = sorted(set(values) - {"classes", "templates"})
    if unknown:
        raise ConfigError(f"{path}: unknown key '{unknown[0]}'; it has classes and templates")
    classes, templates = (_texts(path, values, key) for key in ("classes", "templates"))
    twice = [name for name, n in Counter(classes).items() if n > 1]
    if twice:
        raise ConfigError(f"{path}: class '{twice[0]}' is there twice; a label has its own name")
    return Prompts(classes, templates)


def imagenet_prompts() -> Prompts:
    """Return ImageNet's names and templates in the order of sorted WordNet ids, of open_clip.

    Two of the names stand for two classes each there: zero-shot cannot tell those apart.

    Raises:
        ConfigError: open_clip is not installed.
    """
    metadata = open_clip_module("open_clip.zero_shot_metadata")
    templates = [make(PLACEHOLDER) for make in metadata.OPENAI_IMAGENET_TEMPLATES]
    return Prompts(tuple(metadata.IMAGENET_CLASSNAMES), tuple(templates))


def open_clip_module(name: str = "open_clip") -> Any:
    """Import open_clip, or one of its modules.

    Raises:
        ConfigError: it is not installed; the message says how to.
    """
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(
            f"text towers and ImageNet's prompts need open_clip: {_INSTALL}"
        ) from None


def _texts(path: Path, values: dict[str, Any], key: str) -> tuple[str, ...]:
    found = values.get(key)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ConfigError(f"{path}: '{key}' must be a list of texts")
    return tuple(found)
