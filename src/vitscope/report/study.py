"""The resolved configuration as TOML text, for the page's last section."""

from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w


def study_toml(study: Mapping[str, Any]) -> str:
    """Return ``study`` as TOML; TOML has no null, so that unset keys are left out."""
    return tomli_w.dumps(_without_unset(study))


def _without_unset(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _without_unset(v) for k, v in value.items() if v is not None}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_without_unset(v) for v in value if v is not None]
    return value if isinstance(value, bool | int | float | str) else str(value)
