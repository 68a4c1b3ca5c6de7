"""Shards read back: the same tokens, in an order that (seed, epoch) decides."""

from pathlib import Path

import pytest
import torch
from tests.tokens.extraction_parts import N_IMAGES, PLANTED, SHARD, extract, picture_refs
from torch import Tensor

from vitscope.errors import ArtifactError
from vitscope.images.sources import ImageRef
from vitscope.sae.source import TokenSource
from vitscope.store.atomic import read_json, write_json
from vitscope.store.tensors import load_tensors
from vitscope.tokens import extraction as module
from vitscope.tokens.sources import ShardSource

N_TOKENS = N_IMAGES * 7


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRef]:
    return picture_refs(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def folder(refs: list[ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "SHARD_IMAGES", SHARD)
    extract(refs, tmp_path)
    return tmp_path


def epoch(source: ShardSource, number: int, batch: int = 6) -> Tensor:
    return torch.cat(list(source.epoch_batches(number, batch)))


def as_set(rows: Tensor) -> set[bytes]:
    return {row.half().numpy().tobytes() for row in rows}


def test_every_token_of_every_shard_is_there(folder: Path) -> None:
    source = ShardSource.open(folder, seed=0)
    assert isinstance(source, TokenSource)
    assert (source.site, source.width) == (PLANTED.site, PLANTED.site.width)
    assert source.n_tokens == N_TOKENS
    shards = [load_tensors(file)[0]["tokens"] for file in sorted(folder.glob("*.safetensors"))]
    for number in (0, 1, 2):
        expected = torch.cat([shard[:, number % 2] for shard in shards]).flatten(0, 1)
        found = epoch(source, number)
        assert found.dtype == torch.float32
        assert len(found) == N_TOKENS
        assert as_set(found) == as_set(expected)
        assert len(as_set(found)) == N_TOKENS


def test_the_order_depends_on_seed_and_epoch_alone(folder: Path) -> None:
    source, again = ShardSource.open(folder, seed=0), ShardSource.open(folder, seed=0)
    first = epoch(source, 0)
    list(again.epoch_batches(1, 5))
    assert torch.equal(epoch(again, 0), first)
    assert torch.equal(epoch(again, 0, batch=4), first)
    # epochs 0 and 2 hold the same draw, in another order
    assert not torch.equal(epoch(source, 2), first)
    assert as_set(epoch(source, 2)) == as_set(first)
    other = epoch(ShardSource.open(folder, seed=1), 0)
    assert not torch.equal(other, first)
    # shuffled across images, not within them
    places = {row: place for place, row in enumerate(row.half().numpy().tobytes() for row in first)}
    image = source.tokens[0, :7]
    assert max(places[row.numpy().tobytes()] for row in image) > 21


def test_batches_are_whole_and_may_be_skipped(folder: Path) -> None:
    source = ShardSource.open(folder, seed=0)
    batches = list(source.epoch_batches(0, 10))
    assert [len(batch) for batch in batches] == [10] * (N_TOKENS // 10)
    later = list(source.epoch_batches(0, 10, skip=3))
    assert torch.equal(torch.stack(later), torch.stack(batches[3:]))


def test_a_sample_is_the_same_and_without_repetition(folder: Path) -> None:
    source = ShardSource.open(folder, seed=0)
    sample = source.sample(20)
    assert torch.equal(ShardSource.open(folder, seed=0).sample(20), sample)
    assert len(as_set(sample)) == 20
    assert as_set(sample) <= as_set(epoch(source, 0))
    assert len(source.sample(10_000)) == N_TOKENS


def test_a_folder_without_an_extraction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest.json"):
        ShardSource.open(tmp_path, seed=0)


def test_a_missing_or_damaged_shard_is_refused(folder: Path) -> None:
    shard = folder / "part-000001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-500] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match=r"part-000001.safetensors: its checksum"):
        ShardSource.open(folder, seed=0)
    shard.unlink()
    with pytest.raises(ArtifactError, match=r"part-000001.safetensors does not exist"):
        ShardSource.open(folder, seed=0)


def test_a_shard_of_another_extraction_is_refused(
    folder: Path, refs: list[ImageRef], tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    extract(refs, other, seed=5, fingerprint="two")
    name = "part-000000.safetensors"
    (folder / name).write_bytes((other / name).read_bytes())
    with pytest.raises(ArtifactError, match=rf"{name} is of another extraction"):
        ShardSource.open(folder, seed=0)


def test_a_manifest_of_another_version_is_refused(folder: Path) -> None:
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"schema": 99})
    with pytest.raises(ArtifactError, match=r"has schema 99, this vitscope reads 1; extract again"):
        ShardSource.open(folder, seed=0)
