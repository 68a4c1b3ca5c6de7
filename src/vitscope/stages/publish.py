"""An SAE, or a run's, written for others: SAELens' form, or a folder for the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitscope.errors import ConfigError
from vitscope.sae.formats.export_saelens import export_saelens
from vitscope.sae.formats.hub_folder import Evidence, write_hub_folder
from vitscope.sae.formats.load import load_sae
from vitscope.store.atomic import read_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import outputs_digest, read_stamp

TARGETS = ("hub", "saelens")


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
    if to not in TARGETS:
        raise ConfigError(f"--to {to} is unknown; there are {', '.join(TARGETS)}")
    run = RunDirectory(source)
    is_run = run.study.is_file()
    sae = load_sae(run.sae if is_run else source)
    if to == "saelens":
        return export_saelens(sae, out)
    evidence = _evidence(run, data, license) if is_run else Evidence({}, None, "", data, license)
    return write_hub_folder(sae, out, evidence)


def _evidence(run: RunDirectory, data: str, license: str) -> Evidence:
    images = read_stamp(run, "images")
    table = run.table("reconstruction")
    features = run.features if run.features.is_file() else None
    written: Mapping[str, Any] = read_json(table) if table.is_file() else {}
    metrics = {name: written[name] for name in ("all", "outlier") if name in written}
    digest = "" if images is None else outputs_digest(images)
    return Evidence(metrics, features, digest, data, license)
