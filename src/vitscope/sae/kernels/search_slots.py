"""Where the numbers of a selection lie: one small vector on the device, which no host reads."""

import triton.language as tl

N_SLOTS = 8

COUNT = tl.constexpr(0)
"""Entries that reached the bound; more than the list holds, where the bound was too low."""

PATTERN = tl.constexpr(1)
"""Leading bits of the cut that are settled; after the last round, all of them."""

WANTED = tl.constexpr(2)
"""How many entries with these leading bits are to be kept; after the last round, ties."""

N_TIES = tl.constexpr(3)
"""Entries with these leading bits; after the last round, those equal to the cut."""

FEWER = tl.constexpr(4)
"""1 where fewer entries are positive than are to be kept: all of them are kept then."""

KEPT = tl.constexpr(5)
"""Entries that were kept."""

NAN = tl.constexpr(6)
"""1 where a pre-activation is NaN."""
