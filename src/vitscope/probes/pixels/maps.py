"""From the logits of a grid of patches to what a loss reads of pixels, and its gradient back.

A softmax over classes at every pixel is read through two numbers alone, log Σ eᶻ and the mean of
the classes' centres under it, and so are its gradients. On a CPU they come from compiled sums
that never hold the upsampled logits (``sums.py``), in fp32; elsewhere from torch, some maps at a
time.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vitscope.axes import Float, Int64, UInt8
from vitscope.probes.pixels.cells import axis_of, span_limit

CPU_BYTES = 1 << 24
"""On a CPU, maps are worked on in pieces that stay in its caches: twice as fast as all at once."""

FLOATS_PER_LOGIT = 4
"""Arrays of the size of the upsampled logits that torch holds at once: logits, softmax, and the
gradients of both."""

FLOATS_PER_PIXEL = 8
"""Arrays with one number a pixel that a loss holds at once."""

LossOf = Callable[
    [Float[Tensor, "n S S"], Float[Tensor, "n S S"], Int64[Tensor, "n"]], Float[Tensor, "n"]
]
"""(log Σ eᶻ, mean of the centres, place of their images in the batch) -> loss of every map."""


class _Reader(Protocol):
    """How maps k of a batch of logits [V, B, P, h, C] are read; k counts (V, B, h) row by row."""

    map_bytes: int
    step: int

    def read(self, maps: slice) -> tuple[Tensor, Tensor]:
        """Return log Σ eᶻ and the mean of the centres, [n, S, S], without gradients."""
        ...

    def losses(self, maps: slice, loss_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the losses of maps, and keep the gradient of their logits."""
        ...


@dataclass(frozen=True)
class PixelMaps:
    """Logits of a grid of patches upsampled to pixels, some maps at a time.

    Attributes:
        grid: p, cells per side.
        side: S, pixels per side.
        memory_bytes: bound on the arrays of pixels held at a time; one map at least.
    """

    grid: int
    side: int
    memory_bytes: int

    def upsampled(self, maps: Float[Tensor, "K p p C"]) -> Float[Tensor, "K S S C"]:
        """Upsample maps bilinearly, channels last."""
        size = (self.side, self.side)
        return interpolate(maps.permute(0, 3, 1, 2), size, mode="bilinear").permute(0, 2, 3, 1)

    def losses(
        self,
        logits: Float[Tensor, "V B P h C"],
        centres: Float[Tensor, "C"] | None,
        loss_of: LossOf,
    ) -> Float[Tensor, "V B h"]:
        """Return ``loss_of`` of every map, for autograd.

        Args:
            logits: of patches.
            centres: what a mean is taken of; None: of zeros.
            loss_of: see :data:`LossOf`.
        """
        found: Tensor = _LossesInPieces.apply(logits, self, centres, loss_of)  # pyright: ignore[reportAssignmentType]
        return found

    def means(
        self, logits: Float[Tensor, "V B P h C"], centres: Float[Tensor, "C"]
    ) -> Float[Tensor, "V B h S S"]:
        """Return the mean of ``centres`` under every pixel's softmax."""
        reader = self.reader(logits, centres, None)
        found = torch.cat([reader.read(some)[1] for some in self.pieces(logits, reader)])
        return found.view(*logits.shape[:2], logits.shape[3], self.side, self.side)

    def classes(self, logits: Float[Tensor, "V B P h C"]) -> Int64[Tensor, "V B h S S"]:
        """Return every pixel's likeliest class."""
        reader = _TorchReader(self, logits, None, None)
        some = [self.upsampled(reader.maps(k)).argmax(-1) for k in self.pieces(logits, reader)]
        return torch.cat(some).view(*logits.shape[:2], logits.shape[3], self.side, self.side)

    def pulled_back(
        self, label: UInt8[Tensor, "B S S"] | Int64[Tensor, "B S S"], n_classes: int
    ) -> Float[Tensor, "B P C"]:
        """Return Σ over pixels of class c of each patch's weight in them; 0 is no class.

        Bilinear interpolation is U ⊗ U, so that the sum of all pixels' own logits, Σ z[label], is
        the product of the patches' logits with (U ⊗ U)ᵀ of the classes' indicators.
        """
        one = torch.eye(self.grid, device=label.device).unsqueeze(0)
        size = (self.side, self.grid)
        weights = interpolate(one.unsqueeze(0), size, mode="bilinear")[0, 0]
        number = torch.arange(1, n_classes + 1, device=label.device)
        found = [
            torch.einsum(
                "pxc,xq->pqc",
                (weights.T @ (own.unsqueeze(-1) == number).float().flatten(1)).unflatten(
                    1, (self.side, n_classes)
                ),
                weights,
            )
            for own in label
        ]
        return torch.stack(found).flatten(1, 2)

    def reader(self, logits: Tensor, centres: Tensor | None, gradient: Tensor | None) -> _Reader:
        """Return the fastest reader there is for these logits."""
        plain = logits.device.type == "cpu" and logits.dtype == torch.float32
        if plain and _compiled_sums() is not None:
            return _CompiledReader(self, logits, centres, gradient)
        return _TorchReader(self, logits, centres, gradient)

    def pieces(self, logits: Tensor, reader: _Reader) -> Iterator[slice]:
        """Yield maps that are worked on at a time."""
        memory, n_maps = self.memory_bytes, logits.shape[0] * logits.shape[1] * logits.shape[3]
        if logits.device.type == "cpu":
            memory = min(memory, CPU_BYTES)
        # whole registers of maps for every thread, where the memory allows
        step = max(memory // reader.map_bytes, 1)
        step = max(step // reader.step * reader.step, min(step, reader.step))
        for start in range(0, n_maps, step):
            yield slice(start, min(start + step, n_maps))


class _LossesInPieces(torch.autograd.Function):
    """Losses L_k of maps x_k, of which only a piece's pixels are in memory at a time.

    As L_k depends on x_k alone, the gradient of Σ g_k·L_k is g_k·∂L_k/∂x_k: each piece's ∂L/∂x is
    taken within the forward pass, after which its pixels are let go, and is only scaled by g in the
    backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, maps: PixelMaps, centres: Tensor | None, loss_of: LossOf
    ) -> Tensor:
        logits = logits.contiguous()
        _, n_images, _, n_heads, _ = logits.shape
        gradient = torch.zeros_like(logits)  # a patch that no pixel reads has none
        reader = maps.reader(logits, centres, gradient)
        found: list[Tensor] = []
        for some in maps.pieces(logits, reader):
            numbers = torch.arange(some.start, some.stop, device=logits.device)
            image = numbers // n_heads % n_images

            def of_piece(log_sum: Tensor, mean: Tensor, image: Tensor = image) -> Tensor:
                return loss_of(log_sum, mean, image)

            found.append(reader.losses(some, of_piece))
        ctx.save_for_backward(gradient)
        return torch.cat(found).view(logits.shape[0], n_images, n_heads)

    @staticmethod
    def backward(ctx: Any, *of_losses: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        scale = of_losses[0]
        if bool((scale == 1).all()):  # a plain sum, as in training: large, and as it should be
            return gradient, None, None, None
        return gradient * scale[:, :, None, :, None], None, None, None


class _TorchReader:
    """Through the upsampled logits of some maps, and autograd."""

    def __init__(
        self, to_pixels: PixelMaps, logits: Tensor, centres: Tensor | None, gradient: Tensor | None
    ) -> None:
        self.to_pixels, self.logits, self.centres = to_pixels, logits, centres
        self.gradient = gradient
        self.map_bytes = 4 * FLOATS_PER_LOGIT * to_pixels.side**2 * logits.shape[-1]
        self.step = 1

    def maps(self, some: slice) -> Float[Tensor, "n p p C"]:
        """Return maps by their numbers."""
        variant, image, head = self._places(some)
        found = self.logits[variant, image, :, head]
        return found.unflatten(1, (self.to_pixels.grid, self.to_pixels.grid))

    def read(self, maps: slice) -> tuple[Tensor, Tensor]:
        """Return log Σ eᶻ and the mean of the centres."""
        return self._read(self.maps(maps))

    def losses(self, maps: slice, loss_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the losses of maps, and keep the gradient of their logits."""
        assert self.gradient is not None
        with torch.enable_grad():
            piece = self.maps(maps).detach().requires_grad_()
            found = loss_of(*self._read(piece))
            (slope,) = torch.autograd.grad(found.sum(), piece)
        variant, image, head = self._places(maps)
        self.gradient[variant, image, :, head] = slope.flatten(1, 2)
        return found.detach()

    def _places(self, some: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return variant, image and head of maps by their numbers."""
        _, n_images, _, n_heads, _ = self.logits.shape
        k = torch.arange(some.start, some.stop, device=self.logits.device)
        return k // (n_images * n_heads), k // n_heads % n_images, k % n_heads

    def _read(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self.to_pixels.upsampled(maps)
        log_sum = pixels.logsumexp(-1)
        if self.centres is None:
            return log_sum, torch.zeros_like(log_sum)
        return log_sum, torch.softmax(pixels, -1) @ self.centres


class _CompiledReader:
    """Through compiled sums of exponentials, and the gradient written out.

    With s = Σ eᶻ and μ = Σ centre·eᶻ / s, ∂(log s)/∂z_c = p_c and ∂μ/∂z_c = p_c·(centre_c - μ), so
    that a pixel's logits have the gradient e_c/s · (g_μ·centre_c + g_log - g_μ·μ): a straight line
    in the centre, whose two coefficients are all that goes back to ``pull_back``.
    """

    def __init__(
        self, to_pixels: PixelMaps, logits: Tensor, centres: Tensor | None, gradient: Tensor | None
    ) -> None:
        self.side, self.sums = to_pixels.side, _compiled_sums()
        self.logits = logits.detach().contiguous().numpy()
        self.centres = np.empty(0, np.float32) if centres is None else centres.numpy()
        self.gradient = None if gradient is None else gradient.numpy()
        self.axis = axis_of(to_pixels.grid, self.side)
        self.map_bytes = 4 * FLOATS_PER_PIXEL * self.side**2
        self.threads = torch.get_num_threads()
        self.step = self.sums.LANES * self.threads

    def read(self, maps: slice) -> tuple[Tensor, Tensor]:
        """Return log Σ eᶻ and the mean of the centres."""
        total, weighted, shift = self._sums(maps)
        return self._read(total, weighted, shift)

    def losses(self, maps: slice, loss_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the losses of maps, and keep the gradient of their logits."""
        assert self.gradient is not None
        total, weighted, shift = self._sums(maps)
        read = [value.requires_grad_() for value in self._read(total, weighted, shift)]
        with torch.enable_grad():
            found = loss_of(read[0], read[1])
            of_log, of_mean = torch.autograd.grad(
                found.sum(), read, allow_unused=True, materialize_grads=True
            )
        if len(self.centres):
            constant = torch.addcmul(of_log, of_mean, read[1].detach(), value=-1).div_(total)
            slope = of_mean / total
        else:
            slope = constant = of_log / total
        lines = (slope.numpy(), constant.numpy())
        self._in_threads(self.sums.pull_back, maps, *lines, after=(self.gradient,))
        return found.detach()

    def _read(self, total: Tensor, weighted: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        log_sum = total.log().add_(shift)
        if not len(self.centres):
            return log_sum, torch.zeros(1, 1, 1).expand_as(log_sum).detach()
        return log_sum, weighted / total

    def _sums(self, maps: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return Σ eᶻ⁻ˢ, Σ centre·eᶻ⁻ˢ (the former again, without centres) and the shift s."""
        shape = (maps.stop - maps.start, self.side, self.side)
        total, shift = torch.empty(shape), torch.empty(shape)
        weighted = torch.empty(shape) if len(self.centres) else total
        arrays = [array.numpy() for array in (total, weighted, shift)]
        self._in_threads(self.sums.sum_up, maps, *arrays)
        return total, weighted, shift

    def _in_threads(
        self, work: Callable[..., None], maps: slice, *own: Any, after: tuple[Any, ...] = ()
    ) -> None:
        """Let every thread do a run of the maps; ``own`` arrays hold these maps alone."""
        lanes = self.sums.LANES
        share = -(-(maps.stop - maps.start) // (lanes * self.threads)) * lanes
        limit = span_limit(self.axis)

        def one(start: int) -> None:
            stop = min(start + share, maps.stop)
            arrays = [array[start - maps.start : stop - maps.start] for array in own]
            work(self.logits, self.centres, self.axis, limit, start, stop, *arrays, *after)

        starts = range(maps.start, maps.stop, share)
        if len(starts) == 1:
            one(starts[0])
            return
        with ThreadPoolExecutor(len(starts)) as pool:
            list(pool.map(one, starts))


@cache
def _compiled_sums() -> Any:
    """Return the module of compiled sums; None where numba cannot be imported."""
    try:
        # not at the top: numba takes a while to import, and may be missing
        from vitscope.probes.pixels import sums as pixel_sums  # noqa: PLC0415
    except ImportError:
        return None
    return pixel_sums
