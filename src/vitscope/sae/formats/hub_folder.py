"""A folder ready for the Hugging Face hub: weights, card, README, feature table, SAELens' form."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub

from vitscope.errors import SaeError
from vitscope.sae.formats.hub import README
from vitscope.sae.formats.saelens import export_saelens
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import METRIC_DEFINITIONS, save_sae
from vitscope.store.atomic import atomic_path, write_text

FEATURES, SAELENS_FOLDER = "features.parquet", "saelens"

Table6 = Mapping[str, Mapping[str, float | None]]
"""By group (``all``, ``outlier``), the metrics of a ``GroupMetrics`` by name."""

CARD_COLUMNS = {
    "fvu": "FVU",
    "l0": "L0",
    "cosine": "CS",
    "fvu_own_mean": "FVU, own mean",
    "fvu_uncentred": "FVU, uncentred",
    "n": "tokens",
}
CARD_GROUPS = {"all": "all patch tokens (A)", "outlier": "outlier tokens (O)"}


@dataclass(frozen=True)
class SaeEvidence:
    """What is known of an SAE besides its weights.

    Attributes:
        metrics: Table 6 by group and name; empty where the SAE was not evaluated.
        features: Parquet table with a row per feature (CDS and the rest); None without one.
        data_hash: of the images it was trained or scored on; empty where unknown.
        data_name: what those images are, in words.
        license: SPDX name of the weights' licence; empty leaves it to the owner.
    """

    metrics: Table6
    features: Path | None = None
    data_hash: str = ""
    data_name: str = ""
    license: str = ""


def write_hub_folder(
    sae: SparseAutoencoder, folder: Path | str, evidence: SaeEvidence
) -> list[Path]:
    """Write everything that a published SAE should come with, and return the files.

    The folder is vitscope's own (``hf:owner/repo``) and has SAELens' form in a folder of its own
    where SAELens has one (``saelens/``).

    Raises:
        SaeError: the feature table is not there, or the SAE holds NaN or infinity.
        ArtifactError: the folder cannot be written.
    """
    folder = Path(folder)
    if evidence.features is not None and not evidence.features.is_file():
        raise SaeError(
            f"{evidence.features} does not exist; score the SAE first (vitscope score), or leave "
            "the features out"
        )
    files = save_sae(folder, sae)
    if evidence.features is not None:
        with atomic_path(folder / FEATURES) as temporary:
            shutil.copyfile(evidence.features, temporary)
        files.append(folder / FEATURES)
    refused = ""
    try:
        files += export_saelens(sae, folder / SAELENS_FOLDER)
    except SaeError as error:
        refused = str(error)
    write_text(folder / README, model_card(sae, evidence, no_saelens=refused))
    return [*files, folder / README]


def model_card(sae: SparseAutoencoder, evidence: SaeEvidence, *, no_saelens: str = "") -> str:
    """Return the README: what the SAE is of, how good it is, how to use it.

    Args:
        sae: the SAE.
        evidence: what else is known of it.
        no_saelens: why there is no SAELens form; empty where there is.
    """
    tables = [evidence.metrics[group] for group in CARD_GROUPS if group in evidence.metrics]
    labels = [label for group, label in CARD_GROUPS.items() if group in evidence.metrics]
    shown = [key for key in CARD_COLUMNS if any(key in table for table in tables)]
    rows = [[_number(table.get(key, math.nan)) for key in shown] for table in tables]
    data = huggingface_hub.ModelCardData(
        library_name="vitscope",
        tags=["sparse-autoencoder", "interpretability", "vision"],
        license=evidence.license or None,
        base_model_name=None if sae.site is None else sae.site.model,
    )
    card = huggingface_hub.ModelCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("model_card.md.jinja")),
        sae=sae,
        evidence=evidence,
        columns=[CARD_COLUMNS[key] for key in shown],
        metrics=list(zip(labels, rows, strict=True)),
        definitions=METRIC_DEFINITIONS,
        no_saelens=no_saelens,
    )
    return f"{str(card).rstrip()}\n"


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):  # None is JSON's word for NaN
        return "–"
    return f"{value:,}" if isinstance(value, int) or value == math.inf else f"{value:.4g}"
