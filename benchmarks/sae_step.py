"""One BatchTopK training step, in units of the one product it cannot avoid: x · W_enc.

Three of ours: the trainer's step; its `autograd.Function` with torch's fused Adam; the naive dense
form with autograd and default Adam. With ``--peers FOLDER`` also other libraries' own training
steps, from PyPI, in a virtual environment of their own that is made there on first use.

Every contestant has a process to itself, in which it takes turns with the product, on the same
data; its ratio is the median step over the median product of that process. One thread is CPU time,
so that a busy machine disturbs little; more threads are wall time. No feature is dead yet.

``--device cuda`` times the trainer's step on one GPU instead: ``sae_step_cuda.py``.
"""

# ruff: noqa: PLC0415  each contestant imports its own library; no interpreter has all of them

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

WIDTH, FEATURES, K = 768, 24_576, 30
LEARNING_RATE = 3e-4
N_BATCHES = 3
ATOMS = 6_000  # directions in the data: more than the width, fewer than the dictionary
ENVIRONMENT = {"WANDB_MODE": "disabled", "SPARSIFY_DISABLE_TRITON": "1"}
"""No logging; sparsify, where Triton is installed, takes it for granted that there is a GPU."""

Batch = torch.Tensor
Step = Callable[[Batch], object]


def mixtures(n_rows: int, width: int = WIDTH) -> list[Batch]:
    """Batches with mean 0 and mean squared norm d, each row a sparse mixture of directions."""
    g = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(ATOMS, width, generator=g), dim=1)
    batches = []
    for _ in range(N_BATCHES):
        weights = torch.rand(n_rows, ATOMS, generator=g) ** 100
        x = weights @ atoms
        x -= x.mean(0)
        batches.append(x * (width / x.square().sum(1).mean()) ** 0.5)
    return batches


def vitscope_trainer(batch: Batch) -> Step:
    from vitscope.sae.parameters import initial_parameters
    from vitscope.sae.plan import plan_training
    from vitscope.sae.selection import PreActivationBuffer
    from vitscope.sae.settings import SaeSettings
    from vitscope.sae.source import TensorSource
    from vitscope.sae.step import new_state, take_step

    settings = SaeSettings(expansion=FEATURES // WIDTH, k=K, batch_size=batch.shape[0])
    plan = plan_training(settings, TensorSource(batch), seed=0, fingerprint="")
    state = new_state(initial_parameters(WIDTH, FEATURES, seed=0))
    buffer = PreActivationBuffer(batch.shape[0], FEATURES, like=batch)

    def step(x: Batch) -> None:
        with torch.no_grad():
            state.silent_tokens.zero_()  # nothing dies: the step without its auxiliary loss
            take_step(state, x, plan, LEARNING_RATE, buffer)

    return step


def leaves() -> list[torch.nn.Parameter]:
    from vitscope.sae.parameters import initial_parameters

    return [
        torch.nn.Parameter(t) for t in initial_parameters(WIDTH, FEATURES, seed=0).named().values()
    ]


def vitscope_function(batch: Batch) -> Step:
    from vitscope.sae.gradients import batch_topk_autoencode
    from vitscope.sae.selection import PreActivationBuffer

    parameters = leaves()
    buffer = PreActivationBuffer(batch.shape[0], FEATURES, like=batch)
    adam = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)

    def step(x: Batch) -> None:
        adam.zero_grad()
        x_hat, _ = batch_topk_autoencode(x, *parameters, K, buffer)
        mse(x, x_hat).backward()
        constrained_step(adam, parameters[2])

    return step


def naive(_: Batch) -> Step:
    w_enc, b_enc, w_dec, b_dec = parameters = leaves()
    adam = torch.optim.Adam(parameters, lr=LEARNING_RATE)

    def step(x: Batch) -> None:
        adam.zero_grad()
        pre = ((x - b_dec) @ w_enc.T + b_enc).relu()
        top = pre.flatten().topk(K * x.shape[0], sorted=False)
        code = torch.zeros_like(pre).flatten().scatter(0, top.indices, top.values).view_as(pre)
        mse(x, code @ w_dec + b_dec).backward()
        constrained_step(adam, w_dec)

    return step


def constrained_step(adam: torch.optim.Adam, w: torch.nn.Parameter) -> None:
    assert w.grad is not None
    with torch.no_grad():
        w.grad.addcmul_((w.grad * w).sum(1, keepdim=True), w, value=-1)
        adam.step()
        w.div_(torch.linalg.vector_norm(w, dim=1, keepdim=True))


def mse(x: Batch, x_hat: Batch, *_: object) -> torch.Tensor:
    return (x_hat - x).square().mean()


def sae_lens(batch: Batch) -> Step:
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=WIDTH, d_sae=FEATURES, k=K))
    budget = SAETrainerConfig(10**9, batch.shape[0], lr=LEARNING_RATE, lr_end=LEARNING_RATE)
    return SAETrainer(budget, sae, iter([])).step


def dictionary_learning(batch: Batch) -> Step:
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer

    trainer = BatchTopKTrainer(10**6, WIDTH, FEATURES, K, 0, "none", device="cpu", seed=0)
    trainer.ae.b_dec.data = batch.mean(0)  # its step 0 would take a median
    return lambda x: trainer.update(1, x)


def overcomplete(batch: Batch) -> Step:
    from overcomplete.sae import BatchTopKSAE
    from overcomplete.sae.train import train_sae

    model = BatchTopKSAE(WIDTH, FEATURES, top_k=K * batch.shape[0])
    adam = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    return lambda x: train_sae(model, [x], mse, adam, nb_epochs=1, monitoring=0)


def saev(_: Batch) -> Step:
    import saev.config
    from saev.nn import SparseAutoencoder

    shape = saev.config.SparseAutoencoder(d_vit=WIDTH, exp_factor=FEATURES // WIDTH)
    model = SparseAutoencoder(shape)
    adam = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)

    def step(x: Batch) -> None:  # the body of its train(), which reads from disk and logs to W&B
        model.normalize_w_dec()
        _, _, loss = model(x)
        loss.loss.backward()
        model.remove_parallel_grads()
        adam.step()
        adam.zero_grad()

    return step


def sparsify(_: Batch) -> Step:
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(WIDTH, SparseCoderConfig(expansion_factor=FEATURES // WIDTH, k=K))
    adam = torch.optim.Adam(coder.parameters(), lr=LEARNING_RATE)

    def step(x: Batch) -> None:  # the body of its Trainer.fit(), which needs a language model
        coder.set_decoder_norm_to_unit_norm()
        coder(x).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()

    return step


PINS = ("matplotlib<3.11",)  # overcomplete 0.3.0 calls what 3.11 removed

OURS: dict[str, Callable[[Batch], Step]] = {
    "vitscope, trainer": vitscope_trainer,
    "vitscope, autograd.Function": vitscope_function,
    "naive dense, default Adam": naive,
}
PEERS: dict[str, tuple[str, str, Callable[[Batch], Step]]] = {
    "SAELens": ("sae-lens", "BatchTopK, its SAETrainer.step", sae_lens),
    "dictionary_learning": ("dictionary-learning", "BatchTopK, its trainer", dictionary_learning),
    "overcomplete": ("overcomplete", "BatchTopK, its train_sae", overcomplete),
    "saev": ("saev", "ReLU + L1: its PyPI release has no BatchTopK", saev),
    "sparsify": ("eai-sparsify", "TopK per token, torch's Adam", sparsify),
}


def contest(name: str, data: Path, threads: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    batches: list[Batch] = torch.load(data)
    package = PEERS[name][0] if name in PEERS else "torch"
    step = (PEERS[name][2] if name in PEERS else OURS[name])(batches[0])
    products, steps = list[float](), list[float]()
    w_enc = torch.randn(WIDTH, FEATURES) / WIDTH**0.5
    out = torch.empty(batches[0].shape[0], FEATURES)
    for number in range(rounds + 2):
        x = batches[number % len(batches)]
        started = clock()
        torch.mm(x, w_enc, out=out)
        between = clock()
        step(x)
        steps.append(clock() - between)
        products.append(between - started)
    # the first two rounds allocate, fault pages in, and have no cut to guess from
    return {"product": products[2:], "step": steps[2:], "version": version(package)}


def measure(python: Path, name: str, data: Path, threads: int, rounds: int) -> dict[str, Any]:
    command = [str(python), __file__, "--contest", name, "--data", str(data)]
    command += [f"--threads={threads}", f"--rounds={rounds}"]
    environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def peers_python(folder: Path) -> Path:
    """Make the peers' environment on first use; what pip cannot install is said in the table."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for package in (*(package for package, _, _ in PEERS.values()), *PINS):
            install = [str(python), "-m", "pip", "install", "--quiet", package]
            if subprocess.run(install, check=False).returncode:
                print(f"pip could not install {package}")
    return python


def table(rows: int, threads: int, options: argparse.Namespace) -> None:
    contestants = [(name, Path(sys.executable), "torch", "") for name in OURS]
    if options.peers and (python := peers_python(options.peers)):
        contestants += [(name, python, package, note) for name, (package, note, _) in PEERS.items()]
    contestants = [c for c in contestants if not options.only or c[0] in options.only]
    unit = 0.0
    print(f"\nB = {rows}, {threads} thread(s), {'CPU' if threads == 1 else 'wall'} time")
    print(f"{'':<29}{'product ms':>11}{'step ms':>9}{'ratio':>7}{'range':>14}{'× ours':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "batches.pt"
        torch.save(mixtures(rows), data)
        for name, python, package, note in contestants:
            n = options.rounds if name.startswith("vitscope") else options.slow_rounds
            found = measure(python, name, data, threads, n)
            if "error" in found:
                print(f"{name:<29}not run: {found['error']}", flush=True)
                continue
            product, step = (statistics.median(found[key]) for key in ("product", "step"))
            ratios = [a / b for a, b in zip(found["step"], found["product"], strict=True)]
            unit = unit or step / product
            print(
                f"{name:<29}{product * 1e3:>11.0f}{step * 1e3:>9.0f}{step / product:>7.2f}"
                f"{min(ratios):>7.2f}–{max(ratios):<6.2f}{step / product / unit:>8.1f}"
                f"  {package} {found['version']}{', ' * bool(note)}{note}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1024, 4096], help="batch sizes")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="one table each")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--slow-rounds", type=int, default=3, help="of everybody but ours")
    parser.add_argument("--peers", type=Path, help="folder of the peers' virtual environment")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="+", help="names of the table's first column")
    parser.add_argument("--contest", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contest:
        one = contest(options.contest, options.data, options.threads[0], options.rounds)
        print(json.dumps(one))
        return
    if options.device == "cuda":
        if not torch.cuda.is_available():
            parser.error("--device cuda: torch finds no CUDA device here")
        from sae_step_cuda import table_of_gpu

        table_of_gpu()
        return
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"d = {WIDTH}, m = {FEATURES}, K = {K}, fp32; {os.cpu_count()} cores{load}")
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    for threads in options.threads:
        for rows in options.rows:
            table(rows, threads, options)


if __name__ == "__main__":
    main()
