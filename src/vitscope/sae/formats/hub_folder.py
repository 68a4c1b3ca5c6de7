"""A folder ready for the Hugging Face hub: weights, card, README, feature table, SAELens' form."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vitscope.errors import SaeError
from vitscope.sae.formats.export_saelens import export_saelens
from vitscope.sae.formats.readme import model_card
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import save_sae
from vitscope.store.atomic import atomic_path, write_text

README, FEATURES, SAELENS = "README.md", "features.parquet", "saelens"

Table6 = Mapping[str, Mapping[str, float | None]]
"""By group (``all``, ``outlier``), the metrics of a ``GroupMetrics`` by name."""


@dataclass(frozen=True)
class Evidence:
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


def write_hub_folder(sae: SparseAutoencoder, folder: Path | str, evidence: Evidence) -> list[Path]:
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
        files += export_saelens(sae, folder / SAELENS)
    except SaeError as error:
        refused = str(error)
    write_text(
        folder / README,
        model_card(
            sae,
            metrics=evidence.metrics,
            data=(evidence.data_name, evidence.data_hash),
            license=evidence.license,
            has_features=evidence.features is not None,
            no_saelens=refused,
        ),
    )
    return [*files, folder / README]
