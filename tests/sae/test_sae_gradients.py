import pytest
import torch
from tests.sae.dense_sae import dense_top_k, random_parameters
from torch import Tensor

from vitscope.errors import SaeError
from vitscope.sae.gradients import batch_topk_autoencode
from vitscope.sae.selection import PreActivationBuffer

WIDTH, FEATURES, BATCH, K = 12, 50, 37, 3


Leaves = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def leaves(seed: int, b_enc_shift: float = 0.0) -> Leaves:
    """x, w_enc, b_enc, w_dec, b_dec; decoder rows not unit."""
    parameters = random_parameters(WIDTH, FEATURES, seed=seed)
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCH, WIDTH, generator=g, dtype=torch.float64)
    b_enc, w_dec = parameters.b_enc + b_enc_shift, parameters.w_dec * 1.7
    tensors = (x, parameters.w_enc, b_enc, w_dec, parameters.b_dec)
    for tensor in tensors:
        tensor.requires_grad_()
    return tensors


def dense(x: Tensor, w_enc: Tensor, b_enc: Tensor, w_dec: Tensor, b_dec: Tensor) -> tuple:
    pre = (x - b_dec) @ w_enc.T + b_enc
    mask = dense_top_k(pre, K * BATCH)
    return (pre * mask) @ w_dec + b_dec, pre[mask]


@pytest.mark.parametrize("b_enc_shift", [0.0, -2.5, -100.0])
@pytest.mark.parametrize("use", ["both", "reconstruction", "values"])
def test_outputs_and_gradients_equal_dense_autograd(b_enc_shift: float, use: str) -> None:
    inputs, reference = leaves(1, b_enc_shift), leaves(1, b_enc_shift)
    ours, code = batch_topk_autoencode(*inputs, K)
    x_hat, values = dense(*reference)
    torch.testing.assert_close(ours, x_hat, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(code.values, values, rtol=1e-12, atol=1e-12)

    def loss(x: Tensor, x_hat: Tensor, values: Tensor) -> Tensor:
        # uneven in every entry; x and b_dec get gradients of other origin too
        weights = torch.linspace(0.5, 2, x_hat.numel(), dtype=x_hat.dtype).view_as(x_hat)
        terms = {
            "reconstruction": (weights * (x - x_hat) ** 4).sum(),
            "values": (values.sqrt() * torch.arange(1, values.numel() + 1)).sum(),
        }
        return sum(terms.values()) if use == "both" else terms[use]  # type: ignore[return-value]

    loss(inputs[0], ours, code.values).backward()
    loss(reference[0], x_hat, values).backward()
    names = ("x", "w_enc", "b_enc", "w_dec", "b_dec")
    for name, mine, theirs in zip(names, inputs, reference, strict=True):
        expected = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
        actual = torch.zeros_like(mine) if mine.grad is None else mine.grad
        scale = max(1.0, float(expected.abs().max()))
        assert float((actual - expected).abs().max()) <= 1e-10 * scale, name


def test_a_buffer_used_again_changes_nothing() -> None:
    kept = PreActivationBuffer(BATCH, FEATURES, like=torch.empty(0, dtype=torch.float64))
    for seed in range(3):
        fresh, reused = leaves(seed), leaves(seed)
        first, of_first = batch_topk_autoencode(*fresh, K)
        second, of_second = batch_topk_autoencode(*reused, K, kept)
        batch_topk_autoencode(*leaves(seed + 10), K, kept)  # between forward and backward
        assert torch.equal(of_first.features, of_second.features)
        first.square().sum().backward()
        second.square().sum().backward()
        for one, two in zip(fresh, reused, strict=True):
            assert torch.equal(one.grad, two.grad)  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused() -> None:
    x, w_enc, b_enc, w_dec, b_dec = leaves(0)
    with pytest.raises(SaeError, match=r"a feature a row in both matrices"):
        batch_topk_autoencode(x, w_enc, b_enc, w_dec.T, b_dec, K)
    with pytest.raises(SaeError, match="k is -1"):
        batch_topk_autoencode(x, w_enc, b_enc, w_dec, b_dec, -1)
    kept = PreActivationBuffer(3, FEATURES, like=x.detach())
    with pytest.raises(SaeError, match=r"buffer is for 3 rows"):
        batch_topk_autoencode(x, w_enc, b_enc, w_dec, b_dec, K, kept)
