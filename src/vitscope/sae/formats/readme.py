"""The model card of a published SAE: what it is of, how good it is, how to use it."""

import math
from collections.abc import Mapping

from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import METRIC_DEFINITIONS

COLUMNS = (
    ("fvu", "FVU"),
    ("l0", "L0"),
    ("cosine", "CS"),
    ("fvu_own_mean", "FVU, own mean"),
    ("fvu_uncentred", "FVU, uncentred"),
    ("n", "tokens"),
)
GROUPS = {"all": "all patch tokens (A)", "outlier": "outlier tokens (O)"}


def model_card(
    sae: SparseAutoencoder,
    *,
    metrics: Mapping[str, Mapping[str, float | None]],
    data: tuple[str, str],
    license: str,
    has_features: bool,
    no_saelens: str,
) -> str:
    """Return the README as Markdown, with the hub's front matter.

    Args:
        sae: the SAE.
        metrics: Table 6 by group and name; empty without.
        data: what the images are, and their hash; each may be empty.
        license: SPDX name, or empty.
        has_features: whether ``features.parquet`` is beside it.
        no_saelens: why there is no SAELens form; empty where there is.
    """
    return "\n\n".join(
        [
            _front_matter(sae, license),
            f"# Sparse autoencoder, {sae.n_features:,} features of width {sae.width}",
            _site(sae),
            _metrics(metrics),
            _data(data, has_features),
            _usage(no_saelens),
            _making(sae),
        ]
    ).rstrip() + "\n"  # fmt: skip


def _front_matter(sae: SparseAutoencoder, license: str) -> str:
    tags = ["sparse-autoencoder", "interpretability", "vision"]
    lines = ["---", "library_name: vitscope", "tags:", *(f"- {tag}" for tag in tags)]
    if license:
        lines.append(f"license: {license}")
    if sae.site is not None:
        lines.append(f"base_model_name: {sae.site.model}")
    return "\n".join([*lines, "---"])


def _site(sae: SparseAutoencoder) -> str:
    if sae.site is None:
        return (
            "**Where it reads is not recorded.** Ask its maker for backbone, block and "
            "preprocessing."
        )
    rows = {
        "backbone": f"`{sae.site.model}`",
        "its weights": f"`{sae.site.weights}`",
        "site": f"residual stream after block {sae.site.layer} (from 1), patch tokens, no norm",
        "grid": f"{sae.site.grid} × {sae.site.grid} patches of {sae.site.patch} pixels",
    }
    return _table(("", ""), list(rows.items()))


def _metrics(metrics: Mapping[str, Mapping[str, float | None]]) -> str:
    if not metrics:
        return "## Reconstruction\n\nNot evaluated."
    shown = [
        (key, name) for key, name in COLUMNS if any(key in group for group in metrics.values())
    ]
    rows = [
        (label, *(_number(metrics[group].get(key, math.nan)) for key, _ in shown))
        for group, label in GROUPS.items()
        if group in metrics
    ]
    table = _table(("tokens", *(name for _, name in shown)), rows)
    notes = "\n".join(f"- `{name}`: {text}" for name, text in METRIC_DEFINITIONS.items())
    return f"## Reconstruction\n\n{table}\n\n{notes}"


def _data(data: tuple[str, str], has_features: bool) -> str:
    name, digest = data
    lines = ["## Data", ""]
    lines.append(f"- images: {name or 'not recorded'}")
    lines.append(f"- hash: `{digest}`" if digest else "- hash: not recorded")
    if has_features:
        lines.append("- `features.parquet`: one row per feature, with its CDS")
    return "\n".join(lines)


def _usage(no_saelens: str) -> str:
    own = (
        "## Use\n\n```python\nimport vitscope as vs\n\n"
        'sae = vs.load_sae("hf:OWNER/REPO")\ncodes = sae.encode(tokens)'
        "  # raw activations [N, d] in\nx_hat = sae.decode(codes, like=tokens)\n```"
    )
    if no_saelens:
        return f"{own}\n\nThere is no SAELens form: {no_saelens}."
    return f"{own}\n\nSAELens: `SAE.load_from_disk` on the folder `saelens/`."


def _making(sae: SparseAutoencoder) -> str:
    if not sae.info:
        return ""
    rows = [(f"`{name}`", f"{value}") for name, value in sae.info.items()]
    return "## How it was made\n\n" + _table(("", ""), [*rows, ("`k`", f"{sae.k}")])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: float | None) -> str:
    if value is None:  # JSON's word for NaN
        return "–"
    if isinstance(value, int) or value == math.inf:
        return f"{value:,}"
    return "–" if math.isnan(value) else f"{value:.4g}"
