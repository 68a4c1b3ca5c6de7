"""A chunked pass is one pass: same tokens as image by image, one decoding stream, no leftovers."""

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import torch
from PIL.Image import Image
from tests.tokens.extraction_parts import BATCH, N_IMAGES, PLANTED, READING, picture_refs, pixels_of
from torch import Tensor

from vitscope.images.sources import ImageRef
from vitscope.progress import track
from vitscope.scope.views import plain_view
from vitscope.tokens import encoding as module
from vitscope.tokens.encoding import ChunkedEncoding, PassClock

CHUNK = 5


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRef]:
    return picture_refs(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each stream that was begun had before it."""
    streams: list[int] = []
    honest = module.encode_images

    def counting(backbone: Any, refs: list[ImageRef], *args: Any, **keys: Any) -> Iterator[Any]:
        streams.append(len(refs))
        return honest(backbone, refs, *args, **keys)

    monkeypatch.setattr(module, "encode_images", counting)
    return streams


@pytest.fixture
def encoding(refs: list[ImageRef]) -> Iterator[ChunkedEncoding]:
    def prepare(image: Image) -> Tensor:
        return plain_view(image, PLANTED.site, PLANTED.preprocessing)

    with (
        track("testing", len(refs), "images") as progress,
        closing(
            ChunkedEncoding(
                PLANTED,
                refs,
                prepare,
                READING,
                chunk_images=CHUNK,
                clock=PassClock(),
                progress=progress,
            )
        ) as encoding,
    ):
        yield encoding


def seen(encoding: ChunkedEncoding, chunk: range) -> Tensor:
    batches = list(encoding.batches(chunk))
    positions = [index for batch in batches for index in batch.indices]
    assert positions == list(range(len(chunk)))
    assert max(len(batch.indices) for batch in batches) <= BATCH
    return torch.cat([batch.tokens.patch for batch in batches])


def test_every_chunk_gets_the_tokens_of_its_images(
    encoding: ChunkedEncoding, refs: list[ImageRef], begun: list[int]
) -> None:
    assert encoding.chunks == [range(5), range(5, 10), range(10, 12)]
    found = torch.cat([seen(encoding, chunk) for chunk in encoding.chunks])
    expected = PLANTED.tokens(torch.stack([pixels_of(ref) for ref in refs])).patch
    torch.testing.assert_close(found, expected)
    assert begun == [N_IMAGES]


def test_after_a_gap_the_stream_begins_anew(
    encoding: ChunkedEncoding, refs: list[ImageRef], begun: list[int]
) -> None:
    first, _, last = encoding.chunks
    seen(encoding, first)
    found = seen(encoding, last)
    expected = PLANTED.tokens(torch.stack([pixels_of(ref) for ref in refs[10:]])).patch
    torch.testing.assert_close(found, expected)
    assert begun == [N_IMAGES, 2]


def test_a_pass_left_early_leaves_no_thread(encoding: ChunkedEncoding) -> None:
    before = threading.active_count()
    next(encoding.batches(encoding.chunks[0]))
    assert threading.active_count() > before
    encoding.close()
    assert threading.active_count() == before
