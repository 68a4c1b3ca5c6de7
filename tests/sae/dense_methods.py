"""Every method's loss written naively: dense codes, sorts, autograd. The reference."""

from typing import Any

import torch
from tests.sae.dense_sae import dense_top_k
from torch import Tensor

from vitscope.sae.parameters import Parameters
from vitscope.sae.settings import BatchTopK, JumpRelu, Matryoshka, Method, ReluL1, TokenTopK


class _Jump(torch.autograd.Function):
    """``pre`` above θ, else 0; θ gets the rectangle's estimate (Rajamanoharan et al. 2024)."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.width = width
        return pre * (pre > theta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pre, theta = ctx.saved_tensors
        inside = ((pre - theta).abs() < ctx.width / 2) & (pre > 0)
        of_theta = -(theta / ctx.width) * inside * grads[0]
        return grads[0] * (pre > theta), of_theta.sum(0), None


class _Step(torch.autograd.Function):
    """1 where ``pre`` is above θ; the same rectangle's gradient to θ alone."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.width = width
        return (pre > theta).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pre, theta = ctx.saved_tensors
        inside = ((pre - theta).abs() < ctx.width / 2) & (pre > 0)
        return None, (-(1 / ctx.width) * inside * grads[0]).sum(0), None


def dense_method_loss(parameters: Parameters, x: Tensor, method: Method, k: int) -> Tensor:
    """The loss without its auxiliary part, differentiable in every parameter."""
    pre = (x - parameters.b_dec) @ parameters.w_enc.T + parameters.b_enc

    def error(code: Tensor) -> Tensor:
        x_hat = code @ parameters.w_dec[: code.shape[1]] + parameters.b_dec
        return ((x - x_hat) ** 2).sum() / x.numel()

    match method:
        case BatchTopK():
            return error(pre * dense_top_k(pre, k * len(x)))
        case TokenTopK():
            return error(pre * torch.cat([dense_top_k(row[None], k) for row in pre]))
        case Matryoshka(ends):
            code = pre * dense_top_k(pre, k * len(x))
            return torch.stack([error(code[:, :end]) for end in ends]).mean()
        case ReluL1(coefficient):
            code = pre.relu()
            return error(code) + coefficient * code.sum() / x.numel()
        case JumpRelu(coefficient, width):
            assert parameters.log_threshold is not None
            theta = parameters.log_threshold.exp()
            l0 = _Step.apply(pre, theta, width).sum() / len(x)
            return error(_Jump.apply(pre, theta, width)) + coefficient * (l0 / k - 1) ** 2
