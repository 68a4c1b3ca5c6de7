"""One pass over the dictionary: gradients of a feature's rows, projection, Adam, unit norm.

Each weight and each moment is read once and written once. No gradient is ever stored.
"""

# a kernel's arguments have types only at its launch
# pyright: reportMissingParameterType=false, reportOperatorIssue=false

import triton
import triton.language as tl

from vitscope.sae.kernels.adam import moved
from vitscope.sae.kernels.row_sums import row_sums

ROWS_PER_PROGRAM = 8
"""Features that one program updates, one after the other: their share of ``b_dec``'s gradient is
summed on the way, so that its table has an eighth of the dictionary's rows."""


@triton.jit
def update_rows(
    w_enc, enc_avg, enc_avg_sq,
    w_dec, dec_avg, dec_avg_sq,
    b_enc, bias_avg, bias_avg_sq,
    products_w_enc,
    starts, tokens, values,
    segment_starts, segment_counts, sums,
    slots, more_enc, more_dec, more_bias, more_radial,
    error, centred, ok, through_encoder,
    scale, rate, root, width, n_features,
    COPY: tl.constexpr,
    MORE: tl.constexpr,
    ROWS: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
):  # fmt: skip
    """Take one step on ROWS features, unless ``ok`` is 0. Grid: ⌈m / ROWS⌉.

    Args:
        w_enc: ``[m, d]`` and its moments, changed; so are the decoder's and the encoder bias's.
        enc_avg: first moment.
        enc_avg_sq: second moment.
        w_dec: ``[m, d]``, unit rows.
        dec_avg: first moment.
        dec_avg_sq: second moment.
        b_enc: ``[m]``.
        bias_avg: first moment.
        bias_avg_sq: second moment.
        products_w_enc: the encoder rounded for products, written where COPY.
        starts: ``[m + 1]``, place of each feature's first entry.
        tokens: of each entry, by feature.
        values: likewise.
        segment_starts: each feature's first segment.
        segment_counts: each feature's segments; where there are any, they hold its sums.
        sums: of the segments.
        slots: ``[m]``, row in the tables of more gradients; -1 has none. Read where MORE.
        more_enc: ``[n, d]``, added to the encoder rows' gradient.
        more_dec: ``[n, d]``, to the decoder rows'.
        more_bias: ``[n]``, to the encoder biases'.
        more_radial: ``[n]``, inner products of decoder rows with ``more_dec``.
        error: ``[B, d]``.
        centred: ``[B, d]``, what the encoder was multiplied with.
        ok: one number.
        through_encoder: ``[programs, d]``, Σ gradient of the bias · encoder row, written.
        scale: from the error to the output's gradient.
        rate: learning rate over the first moment's bias correction.
        root: square root of the second moment's bias correction.
        width: d.
        n_features: m.
        COPY: whether there is a rounded encoder.
        MORE: whether there are more gradients.
        ROWS: features per program.
        D: d rounded up to a power of two.
        E: entries read at a time.
    """
    program = tl.program_id(0)
    columns = tl.arange(0, D)
    inside = columns < width
    through = tl.zeros([D], dtype=tl.float32)
    begin = program * ROWS
    end = tl.where(tl.load(ok) != 0, tl.minimum(begin + ROWS, n_features), begin)
    for feature in range(begin, end):
        at = tl.cast(feature, tl.int64) * width + columns
        decoder = tl.load(w_dec + at, mask=inside, other=0.0)
        encoder = tl.load(w_enc + at, mask=inside, other=0.0)
        n_segments = tl.load(segment_counts + feature)
        first = tl.load(starts + feature)
        last = tl.where(n_segments > 0, first, tl.load(starts + feature + 1))
        of_enc, of_dec, of_bias, radial = row_sums(
            first, last, tokens, values, error, centred, decoder, scale, width, columns, inside,
            D, E,
        )  # fmt: skip
        segment = tl.load(segment_starts + feature)
        for nth in range(segment, segment + n_segments):
            row = sums + tl.cast(nth, tl.int64) * (2 * width + 2)
            of_enc += tl.load(row + columns, mask=inside, other=0.0)
            of_dec += tl.load(row + width + columns, mask=inside, other=0.0)
            of_bias += tl.load(row + 2 * width)
            radial += tl.load(row + 2 * width + 1)
        if MORE:
            slot = tl.load(slots + feature)
            row = tl.where(slot >= 0, slot, 0).to(tl.int64)
            theirs = columns < tl.where(slot >= 0, width, 0)
            of_enc += tl.load(more_enc + row * width + columns, mask=theirs, other=0.0)
            of_dec += tl.load(more_dec + row * width + columns, mask=theirs, other=0.0)
            of_bias += tl.load(more_bias + row, mask=slot >= 0, other=0.0)
            radial += tl.load(more_radial + row, mask=slot >= 0, other=0.0)
        through += of_bias * encoder  # before this row moves
        new = moved(encoder, enc_avg, enc_avg_sq, at, inside, of_enc, rate, root)
        tl.store(w_enc + at, new, mask=inside)
        if COPY:
            tl.store(products_w_enc + at, new.to(products_w_enc.dtype.element_ty), mask=inside)
        tangent = of_dec - radial * decoder  # the part along the row would only change its norm
        new = moved(decoder, dec_avg, dec_avg_sq, at, inside, tangent, rate, root)
        tl.store(w_dec + at, new / tl.sqrt(tl.sum(new * new, 0)), mask=inside)
        bias, real = tl.load(b_enc + feature), feature < n_features
        new = moved(bias, bias_avg, bias_avg_sq, feature, real, of_bias, rate, root)
        tl.store(b_enc + feature, new)
    tl.store(through_encoder + program.to(tl.int64) * width + columns, through, mask=inside)
