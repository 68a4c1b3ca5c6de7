"""Softmax sums over pixels between patches, compiled: no upsampled logits, and few exponentials.

Inside a cell, the square between four patch centres, a logit u of a class is bilinear in the
pixel's place, so that along a row of pixels (step h) it grows by the same amount each pixel, and
its exponential by the same factor:

    exp u(y, x + h) = exp u(y, x) · r(y),   r(y) = exp(h · ∂u/∂x)
    r(y + h) = r(y) · exp(h² · ∂²u/∂x∂y),   exp u(y + h, 0) = exp u(y, 0) · exp(h · ∂u/∂y)

Four exponentials a cell and class do for all of its pixels. Each patch's logits are taken relative
to their maximum m; a pixel's own reference, the bilinear mean of its corners' m, cancels in a
softmax. Where the logits of a patch span so much that these products could leave float32
(``span_limit`` of ``cells.py``), the cell's pixels are done one by one, relative to each pixel's
own maximum.

The innermost loops run over ``LANES`` of K maps, numbered (variant, image, head), the head
fastest. P = p·p patches, C classes, S pixels a side; a «tile» is a cell's [columns, rows · LANES].
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from vitscope.compiled import compiled, compiled_entry, compiled_inline
from vitscope.probes.pixels.cells import Axis, Float32s, Int64s, pixels_of

LANES = 16
"""Maps side by side: two registers of a CPU with AVX2."""

LIFT = np.float32(60.0)
"""Added to every logit below its maximum: exponentials then span e⁻⁸⁰ to e⁶⁰, all normal numbers,
of which 256 times 10 still sum within float32."""

_LOWEST, _PER_LN2 = np.float32(-87.0), np.float32(1.4426950408889634)
_ROUND = np.float32(12582912.0)  # 1.5 · 2²³: adding it drops the fraction
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_C6, _C5, _C4 = np.float32(1 / 720), np.float32(1 / 120), np.float32(1 / 24)
_C3, _C2, _ONE, _ZERO = np.float32(1 / 6), np.float32(0.5), np.float32(1.0), np.float32(0.0)


class _Room(NamedTuple):
    """Working arrays of one call: two rows of patches, and one cell.

    Attributes:
        rows: logits below their patch's maximum, of two rows of patches, [2, p, C, LANES].
        top, span: those maxima, and how far below the smallest logit lies, [2, p, LANES].
        held: which row of patches each of the two is.
        start: of the cell's first pixel: its value, what leads from it to the next column, and
            what leads either to the next row, [4, C, LANES].
        value, factor: exponential (or logit) of the pixels of a column, and what leads to the
            next column, [rows, LANES].
        first, second, peak: tiles, [columns, rows * LANES]; peak has a pixel's largest logit, where
            exponentials are not progressions.
        total, right: sums over columns, [rows, LANES].
    """

    rows: Float32s
    top: Float32s
    span: Float32s
    held: Int64s
    start: Float32s
    value: Float32s
    factor: Float32s
    first: Float32s
    second: Float32s
    peak: Float32s
    total: Float32s
    right: Float32s


@intrinsic
def _power_of_two(_: Any, rounded: Any) -> Any:  # noqa: ARG001 (typed by numba)
    """Return 2ⁿ of n + 1.5 · 2²³: its last bits are n, which become the exponent's."""

    def build(_: Any, builder: Any, __: Any, values: Any) -> Any:
        whole = ir.IntType(32)
        bits = builder.shl(builder.bitcast(values[0], whole), ir.Constant(whole, 23))
        bits = builder.add(bits, ir.Constant(whole, 127 << 23))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.float32), build


@compiled_inline
def _exp(x: np.float32) -> np.float32:
    """Return eˣ for x <= 87 to 3·10⁻⁷ relative: 2ⁿ by its bits, the rest by Taylor's polynomial."""
    x = _LOWEST if x < _LOWEST else x  # NaN stays
    rounded = x * _PER_LN2 + _ROUND
    n = rounded - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    s = ((((_C6 * r + _C5) * r + _C4) * r + _C3) * r + _C2) * r + _ONE
    return (s * r + _ONE) * _power_of_two(rounded)  # pyright: ignore[reportCallIssue]


@compiled
def _room(logits: Float32s, axis: Axis) -> _Room:
    grid = int(np.sqrt(logits.shape[2]) + 0.5)  # not the last patch read: few pixels skip some
    n_classes, most = logits.shape[4], axis.pixels.max()
    return _Room(
        np.zeros((2, grid, n_classes, LANES), np.float32),
        np.zeros((2, grid, LANES), np.float32),
        np.zeros((2, grid, LANES), np.float32),
        np.full(2, -1, np.int64),
        np.zeros((4, n_classes, LANES), np.float32),
        np.zeros((most, LANES), np.float32),
        np.zeros((most, LANES), np.float32),
        np.zeros((most, most * LANES), np.float32),
        np.zeros((most, most * LANES), np.float32),
        np.zeros((most, most * LANES), np.float32),
        np.zeros((most, LANES), np.float32),
        np.zeros((most, LANES), np.float32),
    )


@compiled
def _load_row(logits: Float32s, first: int, last: int, row: int, room: _Room) -> None:
    """Read a row of patches of maps ``first`` to ``last``; lanes beyond repeat the last map."""
    slot = row % 2
    if room.held[slot] == row:
        return
    room.held[slot] = row
    n_images, n_heads, grid = logits.shape[1], logits.shape[3], room.rows.shape[1]
    for lane in range(LANES):
        k = min(first + lane, last - 1)
        head, image = k % n_heads, k // n_heads
        variant, image = image // n_images, image % n_images
        for column in range(grid):
            own = logits[variant, image, row * grid + column, head]
            top, bottom = own[0], own[0]
            for i in range(len(own)):
                top, bottom = max(top, own[i]), min(bottom, own[i])
            for i in range(len(own)):
                room.rows[slot, column, i, lane] = own[i] - top
            room.top[slot, column, lane], room.span[slot, column, lane] = top, top - bottom


@compiled
def _is_tame(room: _Room, limit: np.float32, y0: int, y1: int, x0: int, x1: int) -> bool:
    """Whether no lane's logits span more than the limit at a corner; NaN is not tame."""
    span, tame = room.span, True
    for lane in range(LANES):
        a = max(span[y0, x0, lane], span[y0, x1, lane])
        b = max(span[y1, x0, lane], span[y1, x1, lane])
        # four comparisons: NaN fails its own, where a maximum might lose it
        tame &= a <= limit and b <= limit
        tame &= span[y0, x0, lane] <= limit and span[y1, x1, lane] <= limit
        tame &= span[y0, x1, lane] <= limit and span[y1, x0, lane] <= limit
    return tame


@compiled
def _start(
    room: _Room, corner: tuple[int, int, int, int], ty: np.float32, tx: np.float32,
    h: np.float32, tame: bool,
) -> None:  # fmt: skip
    """Set ``start``, of all classes at once: their loop is long."""
    y0, y1, x0, x1 = corner
    a, b = room.rows[y0, x0].reshape(-1), room.rows[y0, x1].reshape(-1)
    c, d = room.rows[y1, x0].reshape(-1), room.rows[y1, x1].reshape(-1)
    start = room.start.reshape(4, -1)
    value, right, down, turn = start[0], start[1], start[2], start[3]
    lift = LIFT if tame else _ZERO
    for at in range(len(a)):
        sink, bend = c[at] - a[at], (d[at] - c[at]) - (b[at] - a[at])
        rise = b[at] - a[at] + ty * bend
        value[at] = a[at] + ty * sink + tx * rise + lift
        right[at], down[at], turn[at] = h * rise, h * (sink + tx * bend), h * h * bend
    if tame:
        flat = room.start.reshape(-1)
        for at in range(len(flat)):
            flat[at] = _exp(flat[at])


@compiled_inline
def _begin(start: Float32s, i: int, value: Float32s, factor: Float32s, n: int, tame: bool) -> None:
    """Set ``value`` and ``factor`` of the rows of a cell's first column, class ``i``."""
    lanes = start.shape[2]  # not the constant: the loop would be unrolled, lane by lane
    for lane in range(lanes):
        value[0, lane], factor[0, lane] = start[0, i, lane], start[1, i, lane]
    if tame:
        for j in range(1, n):
            for lane in range(lanes):
                value[j, lane] = value[j - 1, lane] * start[2, i, lane]
                factor[j, lane] = factor[j - 1, lane] * start[3, i, lane]
    else:
        for j in range(1, n):
            for lane in range(lanes):
                value[j, lane] = value[j - 1, lane] + start[2, i, lane]
                factor[j, lane] = factor[j - 1, lane] + start[3, i, lane]


@compiled
def _find_peaks(room: _Room, n: int, wide: int) -> None:
    """Set ``peak`` to every pixel's largest logit."""
    peak, start, rows, factors = room.peak, room.start, room.value, room.factor
    value, factor = rows.reshape(-1), factors.reshape(-1)
    high = n * start.shape[2]
    peak[:wide, :high] = -np.inf
    for i in range(start.shape[1]):
        _begin(start, i, rows, factors, n, False)
        for x in range(wide):
            for at in range(high):
                own = value[at]
                peak[x, at] = own if own > peak[x, at] else peak[x, at]
                value[at] = own + factor[at]


@compiled
def _enter_cell(
    room: _Room, axis: Axis, limit: np.float32, y: int, x: int
) -> tuple[tuple[int, int, int, int], bool]:
    """Begin a cell; return its corners in ``_Room.rows``, and whether progressions do."""
    corner = (axis.low[y] % 2, axis.high[y] % 2, axis.low[x], axis.high[x])
    tame = _is_tame(room, limit, *corner)
    ty, tx = axis.weight[pixels_of(axis, y)], axis.weight[pixels_of(axis, x)]
    _start(room, corner, ty[0], tx[0], axis.step, tame)
    if not tame:
        _find_peaks(room, axis.pixels[y], axis.pixels[x])
    return corner, tame


def _sum_up(
    logits: Float32s,
    centres: Float32s,
    axis: Axis,
    limit: np.float32,
    first: int,
    last: int,
    sums: Float32s,
    weighted: Float32s,
    shift: Float32s,
) -> None:
    """Fill in Σ e and Σ centre·e over classes of every pixel, e = exp(logit - shift), [K, S, S].

    Args:
        logits: of patches, [V, B, P, h, C].
        centres: of the classes; none leaves ``weighted`` as it is.
        axis: the cells of a side, down as across.
        limit: as of :func:`~vitscope.probes.pixels.cells.span_limit`.
        first: of the maps that are done.
        last: after them.
        sums: [last - first, S, S].
        weighted: of the same shape.
        shift: of the same shape.
    """
    room = _room(logits, axis)
    for start in range(first, last, LANES):
        stop, out = min(start + LANES, last), start - first
        room.held[:] = -1
        for y in range(len(axis.low)):
            _load_row(logits, start, stop, axis.low[y], room)
            _load_row(logits, start, stop, axis.high[y], room)
            ys = pixels_of(axis, y)
            ty = axis.weight[ys]
            for x in range(len(axis.low)):
                xs = pixels_of(axis, x)
                tx = axis.weight[xs]
                corner, tame = _enter_cell(room, axis, limit, y, x)
                _sum_cell(room, centres, len(ty), len(tx), tame)
                for lane in range(stop - start):
                    _put(room.first, lane, sums[out + lane, ys, xs])
                    if len(centres) > 0:
                        _put(room.second, lane, weighted[out + lane, ys, xs])
                    _put_shift(room, corner, ty, tx, tame, lane, shift[out + lane, ys, xs])


@compiled
def _sum_cell(room: _Room, centres: Float32s, n: int, wide: int, tame: bool) -> None:
    """Set ``first`` and ``second`` to Σ e and Σ centre·e of a cell's pixels."""
    start, rows, factors, peak = room.start, room.value, room.factor, room.peak
    first, second = room.first, room.second
    value, factor = rows.reshape(-1), factors.reshape(-1)
    high, weighted = n * start.shape[2], len(centres) > 0
    first[:wide, :high] = _ZERO
    second[:wide, :high] = _ZERO
    for i in range(start.shape[1]):
        centre = centres[i] if weighted else _ZERO
        _begin(start, i, rows, factors, n, tame)
        for x in range(wide):
            if not tame:
                for at in range(high):
                    e = _exp(value[at] - peak[x, at])
                    first[x, at] += e
                    second[x, at] += centre * e
                    value[at] += factor[at]
            elif weighted:
                for at in range(high):
                    e = value[at]
                    first[x, at] += e
                    second[x, at] += centre * e
                    value[at] = e * factor[at]
            else:
                for at in range(high):
                    e = value[at]
                    first[x, at] += e
                    value[at] = e * factor[at]


@compiled
def _put(tile: Float32s, lane: int, out: Float32s) -> None:
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = tile[x, y * LANES + lane]


@compiled
def _put_shift(
    room: _Room, corner: tuple[int, int, int, int], ty: Float32s, tx: Float32s, tame: bool,
    lane: int, out: Float32s,
) -> None:  # fmt: skip
    """Write what was taken off a pixel's logits."""
    y0, y1, x0, x1 = corner
    a, b = room.top[y0, x0, lane], room.top[y0, x1, lane]
    c, d = room.top[y1, x0, lane], room.top[y1, x1, lane]
    for y in range(len(ty)):
        left = a + ty[y] * (c - a)
        rise = b + ty[y] * (d - b) - left
        for x in range(len(tx)):
            off = -LIFT if tame else room.peak[x, y * LANES + lane]
            out[y, x] = left + tx[x] * rise + off


def _pull_back(
    logits: Float32s,
    centres: Float32s,
    axis: Axis,
    limit: np.float32,
    first: int,
    last: int,
    slope: Float32s,
    constant: Float32s,
    gradient: Float32s,
) -> None:
    """Fill in the gradient of the logits of patches, given that of the pixels' logits.

    The latter is e·(slope·centre + constant), with e as in :func:`_sum_up`.

    Args:
        logits: of patches, [V, B, P, h, C].
        centres: of the classes; none: there is no slope.
        axis: the cells of a side, down as across.
        limit: as of :func:`~vitscope.probes.pixels.cells.span_limit`.
        first: of the maps that are done.
        last: after them.
        slope: [last - first, S, S].
        constant: of the same shape.
        gradient: as ``logits``; the maps that are done are filled.
    """
    room = _room(logits, axis)
    found = np.zeros_like(room.rows)
    for start in range(first, last, LANES):
        stop, own = min(start + LANES, last), start - first
        room.held[:] = -1
        found[:] = _ZERO
        for y in range(len(axis.low)):
            _load_row(logits, start, stop, axis.low[y], room)
            _load_row(logits, start, stop, axis.high[y], room)
            ys = pixels_of(axis, y)
            ty = axis.weight[ys]
            for x in range(len(axis.low)):
                xs = pixels_of(axis, x)
                tx = axis.weight[xs]
                corner, tame = _enter_cell(room, axis, limit, y, x)
                for lane in range(LANES):
                    k = min(own + lane, stop - first - 1)
                    _take(constant[k, ys, xs], lane, room.first)
                    if len(centres) > 0:
                        _take(slope[k, ys, xs], lane, room.second)
                _pull_cell(room, centres, corner, ty, tx, tame, found)
            ends = y + 1 == len(axis.low)
            for row in range(axis.low[y], axis.high[y] + 1 if ends else axis.low[y + 1]):
                _put_row(found, start, stop, row, gradient)


@compiled
def _pull_cell(
    room: _Room, centres: Float32s, corner: tuple[int, int, int, int], ty: Float32s, tx: Float32s,
    tame: bool, found: Float32s,
) -> None:  # fmt: skip
    """Add what a cell's pixels pull at its four corners to ``found``, as ``_Room.rows``."""
    start, rows, factors, peak = room.start, room.value, room.factor, room.peak
    constant, slope, totals, rights = room.first, room.second, room.total, room.right
    value, factor = rows.reshape(-1), factors.reshape(-1)
    total, right = totals.reshape(-1), rights.reshape(-1)
    n, wide = len(ty), len(tx)
    high, weighted = n * start.shape[2], len(centres) > 0
    for i in range(start.shape[1]):
        centre = centres[i] if weighted else _ZERO
        _begin(start, i, rows, factors, n, tame)
        for at in range(high):
            total[at], right[at] = _ZERO, _ZERO
        for x in range(wide):
            weight = tx[x]
            if not tame:
                for at in range(high):
                    e = _exp(value[at] - peak[x, at])
                    pull = e * (slope[x, at] * centre + constant[x, at])
                    total[at] += pull
                    right[at] += weight * pull
                    value[at] += factor[at]
            elif weighted:
                for at in range(high):
                    e = value[at]
                    pull = e * (slope[x, at] * centre + constant[x, at])
                    total[at] += pull
                    right[at] += weight * pull
                    value[at] = e * factor[at]
            else:
                for at in range(high):
                    e = value[at]
                    pull = e * constant[x, at]
                    total[at] += pull
                    right[at] += weight * pull
                    value[at] = e * factor[at]
        _spread(totals, rights, ty, corner, i, found)


@compiled_inline
def _spread(
    totals: Float32s, rights: Float32s, ty: Float32s, corner: tuple[int, int, int, int], i: int,
    found: Float32s,
) -> None:  # fmt: skip
    """Share sums over columns among the four corners."""
    (y0, y1, x0, x1), lanes = corner, totals.shape[1]
    for j in range(len(ty)):
        up, low = ty[j], _ONE - ty[j]
        for lane in range(lanes):
            right = rights[j, lane]
            left = totals[j, lane] - right
            found[y0, x0, i, lane] += low * left
            found[y0, x1, i, lane] += low * right
            found[y1, x0, i, lane] += up * left
            found[y1, x1, i, lane] += up * right


@compiled
def _take(values: Float32s, lane: int, tile: Float32s) -> None:
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            tile[x, y * LANES + lane] = values[y, x]


@compiled
def _put_row(found: Float32s, first: int, last: int, row: int, gradient: Float32s) -> None:
    """Write a finished row of patches, and make room for the next."""
    slot, n_images, n_heads, grid = row % 2, gradient.shape[1], gradient.shape[3], found.shape[1]
    for k in range(first, last):
        head, image = k % n_heads, k // n_heads
        variant, image = image // n_images, image % n_images
        for column in range(grid):
            own = gradient[variant, image, row * grid + column, head]
            for i in range(len(own)):
                own[i] = found[slot, column, i, k - first]
    found[slot] = _ZERO


sum_up = compiled_entry(_sum_up)
pull_back = compiled_entry(_pull_back)
