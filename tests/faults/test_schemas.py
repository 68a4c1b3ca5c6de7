"""Every format that carries a number: what an older and a newer one of it leads to."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.stages.small_study import small_study

import vitscope
from vitscope.backbones.scenes_vit import read_header
from vitscope.embedded.files import WEIGHT_FILES
from vitscope.errors import ArtifactError, BackboneError, SaeError
from vitscope.pipeline import run_study
from vitscope.sae import step as checkpoint
from vitscope.sae.parameters import Normalisation, Parameters
from vitscope.sae.step import new_state
from vitscope.sae.storage import SAE_SCHEMA, load_saved_sae
from vitscope.stages.evaluate import EvaluateStage
from vitscope.store.atomic import read_json, write_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stamp import STAMP_SCHEMA, read_stamp
from vitscope.tokens.extraction import MANIFEST_SCHEMA
from vitscope.tokens.sources import ShardSource

TESTED = {
    "store/stamp.py: STAMP_SCHEMA",
    "tokens/extraction.py: MANIFEST_SCHEMA",
    "sae/storage.py: SAE_SCHEMA",
    "sae/step.py: CHECKPOINT_SCHEMA",
    "probes/features.py: FEATURES_SCHEMA",
    "backbones/scenes_vit.py: SCENES_SCHEMA",
}
"""By the tests of this file."""


def test_no_format_is_forgotten() -> None:
    package = Path(str(vitscope.__file__)).parent
    found: set[str] = set()
    for path in package.rglob("*.py"):
        for name in re.findall(
            r"^((?!NEWEST)\w*SCHEMA|VERSION) = \d", path.read_text(), re.MULTILINE
        ):
            found.add(f"{path.relative_to(package).as_posix()}: {name}")
    assert found == TESTED


def changed(path: Path, schema: int) -> Path:
    write_json(path, {**read_json(path), "schema": schema})
    return path


def test_a_stamp(copied: RunDirectory, pictures: Path) -> None:
    changed(copied.stamp("score"), STAMP_SCHEMA + 1)
    with pytest.raises(ArtifactError, match=r"newer vitscope \(schema 3, this one knows 2\)"):
        run_study(small_study(pictures), copied.root)
    changed(copied.stamp("score"), STAMP_SCHEMA - 1)
    assert read_stamp(copied, "score") is None, "an older one is redone"
    with pytest.raises(
        ArtifactError, match=r"made by an earlier vitscope \(layout 1, .* `vitscope"
    ):
        vitscope.open_run(copied.root)


@pytest.mark.parametrize("schema", [MANIFEST_SCHEMA - 1, MANIFEST_SCHEMA + 1])
def test_a_manifest_of_shards_is_refused_by_name(copied: RunDirectory, schema: int) -> None:
    changed(copied.activations / "manifest.json", schema)
    with pytest.raises(ArtifactError, match=rf"has schema {schema}, this vitscope reads 1; extr"):
        ShardSource.open(copied.activations, seed=0)


def test_an_sae(copied: RunDirectory) -> None:
    card = copied.sae / "sae.json"
    changed(card, SAE_SCHEMA + 1)
    with pytest.raises(SaeError, match=r"newer vitscope \(schema 3, this one knows 2\); upgrade"):
        load_saved_sae(copied.sae)
    now = read_json(changed(card, SAE_SCHEMA))
    first = {key: value for key, value in now.items() if key not in ("activation", "token_norm")}
    write_json(card, {**first, "schema": 1})
    assert load_saved_sae(copied.sae).token_norm is None, "one of schema 1 is read as what it was"


def test_a_checkpoint_of_another_number_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = torch.eye(4)
    parameters = Parameters(rows, torch.zeros(4), rows.clone(), torch.zeros(4))
    normalisation, path = Normalisation(torch.zeros(4), 1.0), tmp_path / "checkpoint.safetensors"
    now = checkpoint.CHECKPOINT_SCHEMA
    for schema in (now - 1, now, now + 1):
        monkeypatch.setattr(checkpoint, "CHECKPOINT_SCHEMA", schema)
        checkpoint.save_checkpoint(path, new_state(parameters), normalisation, "one")
        monkeypatch.setattr(checkpoint, "CHECKPOINT_SCHEMA", now)
        assert (checkpoint.load_checkpoint(path, "one", "cpu") is None) is (schema != now)


@pytest.mark.parametrize("version", [0, 2])
def test_a_reference_backbone_of_another_version_is_refused(tmp_path: Path, version: int) -> None:
    shipped = WEIGHT_FILES["scenes-vit-s"]
    with safe_open(shipped, framework="pt") as file:
        told = json.loads(file.metadata()["vitscope"])
    path = tmp_path / "reference.safetensors"
    header = {"vitscope": json.dumps({**told, "version": version})}
    save_file({"x": torch.zeros(1)}, path, header)
    with pytest.raises(BackboneError, match=rf"version {version}; this vitscope reads .* version"):
        read_header(path)


def test_a_result_of_another_version_is_computed_anew(
    copied: RunDirectory, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(pictures)

    def is_standing() -> bool:
        return run_study(study, copied.root, only=["evaluate"])["evaluate"].skipped

    assert is_standing()
    monkeypatch.setattr(EvaluateStage, "version", EvaluateStage.version + 1)
    assert not is_standing()
