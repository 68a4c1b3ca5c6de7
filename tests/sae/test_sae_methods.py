"""TopK, ReLU + L1, JumpReLU and Matryoshka against dense autograd, and trained."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.sae.dense_methods import dense_method_loss
from tests.sae.dense_sae import autograd_leaves, dense_top_k, random_parameters
from tests.sae.kept_batches import fill, kept_batch
from tests.sae.planted_codes import hungarian_cosine, mixtures, unit_atoms
from torch import Tensor

from vitscope.distributed import ALONE
from vitscope.errors import ConfigError
from vitscope.sae import losses
from vitscope.sae.losses import TrainingBatch
from vitscope.sae.model import AboveThresholds, TopK
from vitscope.sae.objective import Evaluation, evaluate
from vitscope.sae.optimiser import THETA_RATE, UnitDecoderAdam
from vitscope.sae.parameters import Parameters
from vitscope.sae.selection import PreActivationBuffer
from vitscope.sae.settings import (
    BatchTopK,
    JumpRelu,
    Matryoshka,
    Method,
    MethodName,
    Objective,
    ReluL1,
    SaeSettings,
    TokenTopK,
)
from vitscope.sae.source import TensorSource
from vitscope.sae.storage import load_saved_sae, save_sae
from vitscope.sae.training import train_sae

WIDTH, FEATURES, BATCH, K = 12, 40, 70, 3
METHODS: dict[str, Method] = {
    "batch-topk": BatchTopK(),
    "topk": TokenTopK(),
    "matryoshka": Matryoshka((5, 6, 23, 40)),
    "relu": ReluL1(0.7),
    "jumprelu": JumpRelu(0.6, 0.5),
}


def problem(method: Method, seed: int = 0) -> tuple[Parameters, Tensor]:
    g = torch.Generator().manual_seed(seed)
    parameters = random_parameters(WIDTH, FEATURES, seed=seed)
    if isinstance(method, JumpRelu):
        thresholds = 0.05 + 2 * torch.rand(FEATURES, generator=g, dtype=torch.float64)
        parameters = replace(parameters, log_threshold=thresholds.log())
    return parameters, torch.randn(BATCH, WIDTH, generator=g, dtype=torch.float64) + 0.2


def require_gradients(found: Evaluation, parameters: Parameters, x: Tensor, method: Method) -> None:
    leaves = autograd_leaves(parameters)
    loss = dense_method_loss(leaves, x, method, K)
    loss.backward()
    torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-12, atol=0)
    for name, gradient in found.gradients.whole(parameters).named().items():
        expected = leaves.named()[name].grad
        assert expected is not None
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14, msg=name)
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("share", [0.0, 1.0])  # of entries up to which gated codes are sparse
@pytest.mark.parametrize("name", METHODS)
def test_every_gradient_equals_dense_autograd(
    name: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = METHODS[name]
    monkeypatch.setattr(losses.reconstruct_gated, "__kwdefaults__", {"sparse_up_to": share})
    for seed in range(4):
        parameters, x = problem(method, seed)
        found = evaluate(parameters, x, Objective(K, 4, 0.0, method))
        require_gradients(found, parameters, x, method)
        if isinstance(method, ReluL1 | JumpRelu):
            assert (found.code is None) == (share == 0)
        whole = found.gradients.rows.block(0, FEATURES, parameters.w_dec)
        radial = whole.radial
        torch.testing.assert_close(radial, (whole.w_dec * parameters.w_dec).sum(1))


@pytest.mark.parametrize("name", ["relu", "jumprelu"])
def test_sparse_and_dense_forms_agree(name: str) -> None:
    method = METHODS[name]
    assert isinstance(method, ReluL1 | JumpRelu)
    parameters, x = problem(method)
    kept = PreActivationBuffer(BATCH, FEATURES, like=x)
    centred = x - parameters.b_dec
    kept.encode(centred, parameters.w_enc, parameters.b_enc)
    batch = TrainingBatch(x, centred, kept, parameters, BATCH, 0, ALONE)
    sparse, dense = (
        losses.reconstruct_gated(batch, method, K, sparse_up_to=share) for share in (1.0, 0.0)
    )
    assert sparse.n_active == dense.n_active > 0
    assert set(sparse.fired.tolist()) == set(dense.fired.tolist())
    torch.testing.assert_close(sparse.loss, dense.loss)
    torch.testing.assert_close(sparse.errors, dense.errors)


@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.0, -1.0, -4.0]))
def test_the_k_largest_of_each_token_are_a_full_sort_s(seed: int, k: int, shift: float) -> None:
    g = torch.Generator().manual_seed(seed)
    kept = PreActivationBuffer(33, 20, like=torch.empty(0))
    for batch in range(3):  # the bound of one batch is tried on the next, larger or smaller
        pre = (torch.randn(33, 20, generator=g) * 3 ** (batch - 1)).round(decimals=1) + shift
        fill(kept, pre)
        code = kept.largest_of_each(k)
        expected = pre * torch.cat([dense_top_k(row[None], k) for row in pre])
        assert torch.equal(code.dense(), expected)
        assert torch.equal(code.rows, code.rows.sort().values)


def test_entries_above_their_feature_s_bound() -> None:
    pre = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    bounds = torch.linspace(0, 1.5, 9)
    kept = kept_batch(pre)
    wanted = pre * (pre > bounds)
    n = int((wanted > 0).sum())
    code = kept.above(bounds, n)
    assert code is not None
    assert torch.equal(code.dense(), wanted)
    assert kept.above(bounds, n - 1) is None


def test_a_matryoshka_of_one_prefix_is_batch_topk() -> None:
    parameters, x = problem(BatchTopK())
    one, other = (
        evaluate(parameters, x, Objective(K, 4, 0.0, method)).gradients.whole(parameters).named()
        for method in (Matryoshka((FEATURES,)), BatchTopK())
    )
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, other[name], rtol=1e-12, atol=1e-15)


def test_penalties_rise() -> None:
    def at(method: Method, progress: float) -> Method:
        return Objective(K, 4, 0.0, method).at(progress).method

    assert at(ReluL1(2.0), 0.05) == ReluL1(1.0)
    assert at(JumpRelu(2.0, 0.3), 0.5) == JumpRelu(2.0, 0.3)
    assert at(BatchTopK(), 0.0) == BatchTopK()


def test_thresholds_move_by_adam_and_fall_where_nothing_is_near() -> None:
    method = JumpRelu(0.6, 0.5)
    parameters, x = problem(method)
    assert parameters.log_threshold is not None
    parameters.log_threshold[0] = 9.0  # far above every activation
    before = parameters.log_threshold.clone()
    found = evaluate(parameters, x, Objective(K, 4, 0.0, method))
    of_theta = found.gradients.log_threshold
    assert of_theta is not None
    UnitDecoderAdam(parameters).step(found.gradients, 1e-3)
    touched, rate = of_theta.abs() > 1e-6, THETA_RATE * 1e-3
    assert touched.sum() > 10
    moved = parameters.log_threshold - before
    torch.testing.assert_close(moved[touched], -rate * of_theta[touched].sign(), rtol=1e-3, atol=0)
    assert float(of_theta[0]) == 0
    assert float(moved[0]) == pytest.approx(-rate)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_saves_and_loads(name: MethodName, tmp_path: Path) -> None:
    atoms = unit_atoms(48, 24, seed=0)
    tokens = mixtures(atoms, 12_000, 3, noise=0.02, seed=1)
    settings = SaeSettings(
        expansion=4, k=4, batch_size=256, learning_rate=5e-3, steps=400, method=name,
        evaluate_every=0, l1_coefficient=3.0, evaluation_tokens=1000,
    )  # fmt: skip
    source = TensorSource(tokens[2000:], apart=tokens[:2000])
    sae = train_sae(source, settings, seed=0).sae
    assert float(hungarian_cosine(atoms, sae.w_dec).mean()) >= 0.75
    save_sae(tmp_path, sae)
    again = load_saved_sae(tmp_path)
    assert torch.equal(again.encode(tokens[:50]), sae.encode(tokens[:50]))
    if name == "topk":
        assert again.activation == TopK()
    if name == "jumprelu":
        assert isinstance(again.activation, AboveThresholds)
    if name != "relu":
        assert float((sae.encode(tokens[:2000]) > 0).sum(1).double().mean()) == pytest.approx(
            4, rel=0.15
        )


@pytest.mark.parametrize("prefixes", [[], [0.5], [0.5, 0.5, 1.0], [0.0, 1.0], [0.5, 2.0, 1.0]])
def test_prefixes_must_ascend_to_one(prefixes: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"prefixes"):
        SaeSettings.parse({"prefixes": prefixes}, source="x")
