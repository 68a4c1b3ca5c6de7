"""An SAE, or a run's, written for others: SAELens' form, or a folder for the hub."""

from pathlib import Path

from vitscope.errors import ConfigError
from vitscope.run import Run
from vitscope.sae.formats.hub_folder import SaeEvidence, write_hub_folder
from vitscope.sae.formats.load import load_sae
from vitscope.sae.formats.saelens import export_saelens
from vitscope.sae.quality import TOKEN_GROUPS
from vitscope.store.records import to_json
from vitscope.store.run_directory import RunDirectory

EXPORT_TARGETS = ("hub", "saelens")


def export_sae(source: Path, out: Path, *, to: str, data: str, license: str) -> list[Path]:
    """Write the SAE ``source`` into ``out`` and return the files.

    Args:
        source: an SAE of any format, or a run directory: its metrics, its data's hash and its
            feature table then go along.
        out: folder to write.
        to: ``hub`` or ``saelens``.
        data: what the images are, in words.
        license: SPDX name, or empty.

    Raises:
        ConfigError: ``to`` is neither.
        SaeError: the SAE cannot be read, or has no form there.
    """
    if to not in EXPORT_TARGETS:
        raise ConfigError(f"--to {to} is unknown; there are {', '.join(EXPORT_TARGETS)}")
    run = Run(source) if RunDirectory(source).study.is_file() else None
    sae = load_sae(source if run is None else run.directory.sae)
    if to == "saelens":
        return export_saelens(sae, out)
    if run is None:
        return write_hub_folder(sae, out, SaeEvidence({}, None, "", data, license))
    found = run.reconstruction if run.has("evaluate") else None
    metrics = {} if found is None else {n: to_json(getattr(found, n)) for n in TOKEN_GROUPS}
    features = run.directory.features if run.has("partition") else None
    digest = run.stamp("images").digest if run.has("images") else ""
    return write_hub_folder(sae, out, SaeEvidence(metrics, features, digest, data, license))
