"""Streamed tokens: the shards' own draws and order, resumable anywhere, some held out."""

from pathlib import Path

import pytest
import torch
from tests.tokens.extraction_parts import N_IMAGES, PLANTED, READING, SHARD, extract, picture_refs
from torch import Tensor

from vitscope.errors import ConfigError
from vitscope.images.sources import ImageRef
from vitscope.sae.source import TokenSource
from vitscope.tokens import extraction as module
from vitscope.tokens.sampling import ActivationSettings, Holding
from vitscope.tokens.sources import ShardSource, StreamSource

HOLDING = Holding("images", n_tokens=14, share=0.3)


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRef]:
    return picture_refs(tmp_path_factory.mktemp("pictures"))


def stream(refs: list[ImageRef], *, window: int = 99, holding: Holding = HOLDING) -> StreamSource:
    settings = ActivationSettings(tokens_per_image=7, cache=False, window_images=window)
    return StreamSource(PLANTED, refs, settings, READING, seed=0, holding=holding)


def as_set(rows: Tensor) -> set[bytes]:
    return {row.half().numpy().tobytes() for row in rows}


def whole(source: TokenSource, number: int, batch: int = 6, skip: int = 0) -> Tensor:
    return torch.cat(list(source.epoch_batches(number, batch, skip)))


@pytest.mark.parametrize("holding", [HOLDING, Holding()])
def test_one_window_gives_the_shards_batches(
    holding: Holding, refs: list[ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD_IMAGES", SHARD)
    extract(refs, tmp_path)
    ids = [ref.id for ref in refs]
    shards = ShardSource.open(tmp_path, seed=0, image_ids=ids, holding=holding)
    streamed = stream(refs, holding=holding)
    assert streamed.n_tokens == shards.n_tokens
    for number in (0, 1):
        torch.testing.assert_close(
            whole(streamed, number), whole(shards, number), rtol=1e-3, atol=1e-3
        )
        for batch in range(3):
            assert streamed.images_of(number, 6, batch) == shards.images_of(number, 6, batch)
    if holding.kind == "images":
        assert as_set(streamed.held_out(99).tokens) == as_set(shards.held_out(99).tokens)


@pytest.mark.parametrize("window", [1, 4, 5])
def test_windows_cover_an_epoch_and_may_be_skipped(window: int, refs: list[ImageRef]) -> None:
    source = stream(refs, window=window)
    assert isinstance(source, TokenSource)
    batches = list(source.epoch_batches(0, 5))
    assert [len(batch) for batch in batches] == [5] * (source.n_tokens // 5)
    assert as_set(torch.cat(batches)) <= as_set(whole(stream(refs), 0, 1))
    for skip in (1, 4, len(batches) - 1):
        later = list(source.epoch_batches(0, 5, skip))
        assert torch.equal(torch.stack(later), torch.stack(batches[skip:]))
    assert list(source.epoch_batches(0, 5, len(batches))) == []
    assert not torch.equal(whole(source, 1), whole(source, 0))


def test_a_batch_s_images_are_named(refs: list[ImageRef]) -> None:
    source = stream(refs, window=4)
    of_image = {
        ref.id: as_set(source._encode(torch.tensor([place]).numpy(), 0))
        for place, ref in enumerate(refs)
    }
    for number, batch in enumerate(source.epoch_batches(0, 9)):
        for row, image in zip(batch, source.images_of(0, 9, number), strict=True):
            assert row.half().numpy().tobytes() in of_image[image]


@pytest.mark.parametrize("kind", ["stream", "shards"])
def test_what_is_held_out_is_never_trained_on(
    kind: str, refs: list[ImageRef], tmp_path: Path
) -> None:
    source: ShardSource | StreamSource = stream(refs)
    if kind == "shards":
        extract(refs, tmp_path)
        source = ShardSource.open(tmp_path, seed=0, holding=HOLDING)
    held = source.held_out(99)
    assert held.kind == "images"
    assert held.tokens.shape[0] == 14 == 7 * len(held.images.unique())
    assert source.n_tokens == 7 * (N_IMAGES - 2)
    seen = as_set(whole(source, 0, 1)) | as_set(whole(source, 1, 1)) | as_set(source.sample(999))
    assert not seen & as_set(held.tokens)
    assert torch.equal(held.tokens, source.held_out(99).tokens)
    named = {image for batch in range(70) for image in source.images_of(0, 1, batch)}
    assert len(named) == N_IMAGES - 2


def test_a_draw_held_out(refs: list[ImageRef], tmp_path: Path) -> None:
    extract(refs, tmp_path)
    holding = Holding("draw", n_tokens=99)
    shards = ShardSource.open(tmp_path, seed=0, holding=holding)
    held = shards.held_out(10_000)
    assert (held.kind, held.tokens.shape[0]) == ("draw", N_IMAGES * 7)
    assert as_set(held.tokens) == as_set(shards.tokens[1].float())
    assert as_set(whole(shards, 1, 1)) == as_set(shards.tokens[0].float())
    streamed = stream(refs, holding=holding)
    assert streamed.held_out(50).kind == "draw"
    assert as_set(streamed.held_out(50).tokens) != as_set(streamed.sample(50))
    one = tmp_path / "one"
    extract(refs, one, settings=ActivationSettings(tokens_per_image=3))
    with pytest.raises(ConfigError, match=r"set activations\.draws to 2 or more"):
        ShardSource.open(one, seed=0, holding=holding)


def test_nothing_held_out_says_so(refs: list[ImageRef]) -> None:
    assert stream(refs, holding=Holding()).held_out(5).kind == "none"
    assert stream(refs[:1], holding=HOLDING).held_out(5).kind == "none"
