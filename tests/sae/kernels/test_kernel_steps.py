"""Whole steps on the kernels against the CPU's steps, and what the host learns of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.sae.dense_sae import dense_top_k, random_parameters
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vitscope.sae.kernels import revival
from vitscope.sae.kernels.device_step import DeviceStep
from vitscope.sae.kernels.device_stepper import DeviceStepper
from vitscope.sae.kernels.verdict import LOSS
from vitscope.sae.plan import TrainingPlan, plan_training
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TensorSource
from vitscope.sae.state import TrainingState, new_state
from vitscope.sae.step import BadStepError, take_step

WIDTH, FEATURES, BATCH, K = 5, 15, 7, 2
FIGURES = ("step", "loss", "auxiliary", "fvu", "l0", "dead_share")


def batch(number: int) -> Tensor:
    g = torch.Generator().manual_seed(100 + number)
    return torch.randn(BATCH, WIDTH, generator=g) + 0.2


def planned(**given: object) -> TrainingPlan:
    settings = SaeSettings.model_validate(
        {"expansion": FEATURES // WIDTH, "k": K, "batch_size": BATCH, "steps": 1000, **given}
    )
    return plan_training(settings, TensorSource(batch(0)), seed=0, fingerprint="")


def fresh(seed: int = 1) -> TrainingState:
    state = new_state(random_parameters(WIDTH, FEATURES, seed=seed, dtype=torch.float32))
    state.parameters.b_enc[-1] = -50.0  # one feature never fires
    return state


def rate(number: int) -> float:
    return 1e-3 * (1 + number % 4)


def assert_alike(ours: TrainingState, reference: TrainingState, tolerance: float) -> None:
    tensors = reference.parameters.named() | reference.optimiser.state_tensors()
    found = ours.parameters.named() | ours.optimiser.state_tensors()
    for name, tensor in tensors.items():
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance, msg=name)
    assert torch.equal(ours.silent_tokens, reference.silent_tokens)


@pytest.mark.parametrize(("aux_k", "steps"), [(2, 30), (30, 9)])  # fewer than are dead, and more
def test_thirty_steps_equal_the_cpus(aux_k: int, steps: int) -> None:
    plan = planned(dead_after_tokens=2 * BATCH, aux_k=aux_k)
    reference, ours = fresh(), fresh()
    stepper, start = DeviceStepper(ours, plan, torch.float32), ours.parameters.w_enc.clone()
    revived = 0
    with torch.no_grad():
        for number in range(steps):
            expected = take_step(reference, batch(number), plan, rate(number))
            stepper.take(batch(number), rate(number))
            revived += expected.auxiliary > 0
            if number % 7 == 6:
                stepper.read()
                for name in FIGURES:
                    assert getattr(ours.figures, name) == pytest.approx(
                        getattr(expected, name), rel=1e-5
                    )
    assert revived > steps // 3
    assert (ours.parameters.w_enc - start).abs().max() > 0.005
    assert_alike(ours, reference, 1e-5)


@pytest.mark.parametrize("segment", [1, 2, 64])
def test_a_feature_on_every_token_in_segments_of_any_size(segment: int) -> None:
    plan = planned(aux_coefficient=0)
    reference, ours = fresh(), fresh()
    for state in (reference, ours):
        state.parameters.b_enc[4] = 30.0
        state.parameters.b_enc[5] = 20.0
    step = DeviceStep(ours, plan, BATCH, torch.float32, segment=segment)
    with torch.no_grad():
        for number in range(3):
            take_step(reference, batch(number), plan, 1e-2)
            step.take(batch(number), 1e-2)
    assert_alike(ours, reference, 2e-5)


@pytest.mark.parametrize("shift", [-3.0, -100.0])
def test_few_and_no_positive_entries(shift: float) -> None:
    plan = planned(aux_coefficient=0)
    reference, ours = fresh(), fresh()
    stepper = DeviceStepper(ours, plan, torch.float32)
    with torch.no_grad():
        for state in (reference, ours):
            state.parameters.b_enc.add_(shift)
        for number in range(2):
            take_step(reference, batch(number), plan, 1e-2)
            stepper.take(batch(number), 1e-2)
        stepper.read()
    assert ours.figures is not None
    assert reference.figures is not None
    assert ours.figures.l0 == reference.figures.l0 < K
    assert_alike(ours, reference, 1e-5)


def test_a_second_run_is_equal_to_the_bit() -> None:
    plan = planned(dead_after_tokens=BATCH)
    states = [fresh(), fresh()]
    for state in states:
        step = DeviceStep(state, plan, BATCH, torch.float32, segment=2)
        with torch.no_grad():
            for number in range(3):
                step.take(batch(number), 1e-2)
    for name, tensor in states[0].parameters.named().items():
        assert torch.equal(tensor, states[1].parameters.named()[name])


def test_rounded_products_use_a_rounded_encoder_and_keep_float32_weights() -> None:
    ours = fresh()
    step = DeviceStep(ours, planned(aux_coefficient=0), BATCH, torch.bfloat16)
    with torch.no_grad():
        for number in range(3):
            parameters, x = ours.parameters, batch(number)
            rounded = step._rounded.float()
            # half a unit in the last place; the interpreter cuts bits off, a GPU rounds
            assert ((rounded - parameters.w_enc).abs() <= parameters.w_enc.abs() / 2**7).all()
            centred = (x - parameters.b_dec).bfloat16().float()
            pre = centred @ rounded.T + parameters.b_enc
            codes = pre * dense_top_k(pre, K * BATCH)
            off = codes @ parameters.w_dec + parameters.b_dec - x
            step.take(x, 1e-2)
            loss = float(off.square().sum() / x.numel())
            assert float(step.figures[LOSS.value]) == pytest.approx(loss, rel=1e-5)
    assert not torch.equal(ours.parameters.w_enc, ours.parameters.w_enc.bfloat16().float())


def spoilt(kind: str, state: TrainingState) -> Tensor:
    x = batch(2)
    if kind == "inputs":
        x[3, 2] = torch.nan
        x[6, 0] = torch.inf
    elif kind == "weights":
        state.parameters.w_enc[5, 1] = torch.nan
    else:
        state.parameters.b_dec[0] = 1e30
    return x


@pytest.mark.filterwarnings(
    "ignore:(invalid value|overflow):RuntimeWarning"
)  # numpy's, of the kernel
@pytest.mark.parametrize("kind", ["inputs", "weights", "loss"])
def test_a_bad_step_is_not_taken_nor_is_any_after_it(kind: str) -> None:
    plan = planned(dead_after_tokens=2 * BATCH)
    state = fresh()
    stepper = DeviceStepper(state, plan, torch.float32)
    with torch.no_grad():
        for number in range(2):
            stepper.take(batch(number), 1e-2)
        stepper.read()
        x = spoilt(kind, state)
        tensors = state.parameters.named() | state.optimiser.state_tensors()
        tensors["silent_tokens"] = state.silent_tokens
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        for given in (x, batch(3), batch(4)):  # the device goes on; the host does not know yet
            stepper.take(given, 1e-2)
        with pytest.raises(BadStepError) as caught:
            stepper.read()
    assert caught.value.step == 3
    assert state.step == 2
    assert caught.value.rows == ([3, 6] if kind == "inputs" else [])
    what = {
        "inputs": "activations contain",
        "weights": "pre-activations",
        "loss": "the loss is inf",
    }
    assert what[kind] in str(caught.value)
    for name, tensor in before.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)


READS = {
    "_local_scalar_dense",
    "nonzero",
    "bincount",
    "masked_select",
    "equal",
    "unique_consecutive",
}


class HostReads(TorchDispatchMode):
    """Names of the operations that would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        name = func.overloadpacket.__name__  # pyright: ignore[reportAttributeAccessIssue]
        by_mask = name in {"index", "index_put_"} and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if name in READS or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))  # pyright: ignore[reportCallIssue]


def test_the_host_reads_nothing_in_a_step_but_which_features_can_be_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(revival, "HORIZON", 3)
    plan = planned(dead_after_tokens=5 * BATCH)
    stepper = DeviceStepper(fresh(), plan, torch.float32)
    looks = list[int]()
    with torch.no_grad():
        for number in range(7):
            with HostReads() as reads:
                stepper.take(batch(number), 1e-3)
            assert reads.seen in ([], ["nonzero"])
            looks += [number] if reads.seen else []
        with HostReads() as reads:
            stepper.read()
    assert looks == [2, 5]  # before, none can have been silent for long enough
    assert "_local_scalar_dense" in reads.seen


def test_a_training_on_kernels_ends_like_one_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitscope.sae import stepper, training

    g = torch.Generator().manual_seed(0)
    source = TensorSource(torch.randn(60, WIDTH, generator=g))
    settings = SaeSettings(
        expansion=3, k=K, batch_size=20, steps=7, log_every=3, evaluate_every=5,
        dead_after_tokens=40, checkpoint_every=4, held_out="none",
    )  # fmt: skip
    expected = training.train_sae(source, settings, seed=0, log=tmp_path / "cpu.jsonl")
    monkeypatch.setattr(stepper, "has_kernels", lambda *_: True)
    found = training.train_sae(source, settings, seed=0, log=tmp_path / "kernels.jsonl")
    torch.testing.assert_close(found.sae.w_enc, expected.sae.w_enc, rtol=1e-5, atol=1e-5)
    assert found.sae.threshold == pytest.approx(expected.sae.threshold, rel=1e-4)
    assert replace(found.final, loss=0, auxiliary=0, fvu=0) == replace(
        expected.final, loss=0, auxiliary=0, fvu=0
    )
    lines = [(tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("cpu", "kernels")]
    assert len(lines[0]) == len(lines[1]) > 2
