"""Randomness as a pure function: a draw depends on its named keys and on nothing else.

Any rank, worker, batch size or restart therefore sees the same tokens, the same noise and the
same null placements (protocol, section 2).
"""

import hashlib

import numpy as np


def draw_key(*parts: int | str | bytes) -> int:
    """Return a 128-bit key of ``parts``; equal parts give equal keys on every machine."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        # length-prefixed, so that ("ab", "c") and ("a", "bc") differ
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "little")


def generator(*parts: int | str | bytes) -> np.random.Generator:
    """Return a NumPy generator whose stream is a pure function of ``parts``."""
    return np.random.Generator(np.random.Philox(key=draw_key(*parts)))
