"""What training changes, before the first step, and as the SAE that it is on raw activations."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vitscope.axes import Float, Rows
from vitscope.draws import draw_key
from vitscope.errors import SaeError
from vitscope.sae.model import AboveThreshold, AboveThresholds, SparseAutoencoder, TopK
from vitscope.sae.plan import TrainingPlan
from vitscope.sae.settings import JumpRelu, ReluL1, TokenTopK
from vitscope.sae.threshold import THRESHOLD_ROWS, fit_threshold

_SEED_BITS = 63
"""Bits of a draw key that torch's generators take as a seed."""

START_TOKENS = 4096
"""Tokens that the encoder's first scale and JumpReLU's first θ are fitted on."""

TOWARDS_BEST = 0.5
"""How far the encoder's scale goes from 1 towards the best: its exponent. Measured on scenes tokens
(4,096 features, 400 steps): 0 leaves an FVU of 0.133, 0.25 of 0.073, 0.5 of 0.052 with 0.3 % dead;
1 leaves 0.044, but 63 % dead, since features that begin ahead then stay ahead."""

_FEATURES_AT_ONCE = 1024
"""Features whose activations on the sample are held at a time."""

_LEAST_THETA = 1e-3
"""θ is learned as a logarithm: it must not begin at 0."""


_WIDENED_ROWS = 8192
"""Rows widened to float64 at a time."""


@dataclass(frozen=True, eq=False)
class Parameters:
    """The trainable tensors; also the shape in which their gradients travel.

    Attributes:
        w_enc: encoder, transposed against :class:`SparseAutoencoder`: a feature is a row in both
            matrices, so that sparse gradients and row blocks are contiguous.
        b_enc: encoder bias.
        w_dec: decoder, unit rows.
        b_dec: decoder bias.
        log_threshold: logarithm of every feature's θ, where the method learns one.
    """

    w_enc: Float[Tensor, "m d"]
    b_enc: Float[Tensor, "m"]
    w_dec: Float[Tensor, "m d"]
    b_dec: Float[Tensor, "d"]
    log_threshold: Float[Tensor, "m"] | None = None

    def named(self) -> dict[str, Tensor]:
        """Return the tensors by name, in a fixed order."""
        learned = {} if self.log_threshold is None else {"log_threshold": self.log_threshold}
        return {
            "w_enc": self.w_enc,
            "b_enc": self.b_enc,
            "w_dec": self.w_dec,
            "b_dec": self.b_dec,
            **learned,
        }

    def to(self, device: torch.device | str) -> "Parameters":
        """Return the same parameters on ``device``."""
        return Parameters(**{name: tensor.to(device) for name, tensor in self.named().items()})

    def finite(self) -> bool:
        """Whether no tensor has NaN or infinity."""
        return all(bool(tensor.isfinite().all()) for tensor in self.named().values())


@dataclass(frozen=True, eq=False)
class Normalisation:
    """``x_n = (x - mean) · scale``: mean zero, mean squared norm d.

    One scalar for the whole data set, so that the geometry, outlier norms included, is kept
    (protocol, section 2).

    Attributes:
        mean: per dimension.
        scale: √(d / mean ‖x − mean‖²).
    """

    mean: Float[Tensor, "d"]
    scale: float

    def apply(self, x: Rows) -> Rows:
        """Return raw activations ``x`` normalised."""
        return (x - self.mean) * self.scale

    def fold(self, parameters: Parameters) -> Parameters:
        """Return the parameters that do on raw activations what ``parameters`` do on normalised.

        With x_n = (x − μ)·s, ``(x_n − b_dec) @ W + b_enc`` is s times
        ``(x − (μ + b_dec/s)) @ W + b_enc/s``, and back x = μ + x_n/s. So codes come out divided by
        s, and both weight matrices stay as they are, the decoder's rows unit.
        """
        log_threshold = parameters.log_threshold
        return replace(
            parameters,
            b_enc=parameters.b_enc / self.scale,
            b_dec=self.mean + parameters.b_dec / self.scale,
            log_threshold=None if log_threshold is None else log_threshold - math.log(self.scale),
        )


def fit_normalisation(sample: Rows) -> Normalisation:
    """Estimate mean and scale on ``sample``, in float64.

    Raises:
        SaeError: the sample has NaN or infinity, fewer than two tokens, or does not vary.
    """
    n, width = sample.shape
    if n < 2:
        raise SaeError(f"{n} tokens are too few to train on; give more images or tokens per image")
    zero = torch.zeros(width, dtype=torch.float64, device=sample.device)
    mean = sum((part.double().sum(0) for part in sample.split(_WIDENED_ROWS)), zero) / n
    squares = [(part.double() - mean).square().sum() for part in sample.split(_WIDENED_ROWS)]
    mean_square = float(torch.stack(squares).sum()) / n
    if not mean_square < float("inf"):
        raise SaeError(
            f"the sample of {n} activations contains NaN or infinity; extract them again in fp32"
        )
    # float32 rounding of equal rows can leave a variance of about eps² · ‖mean‖²
    floor = torch.finfo(torch.float32).eps ** 2 * float(mean.square().sum())
    if mean_square <= floor:
        raise SaeError(f"all {n} sampled activations are equal: there is nothing to learn")
    return Normalisation(mean=mean.to(sample.dtype), scale=(width / mean_square) ** 0.5)


def as_autoencoder(
    parameters: Parameters, normalisation: Normalisation, plan: TrainingPlan, threshold: float = 0.0
) -> SparseAutoencoder:
    """Return the SAE in training as it works on raw activations; its matrices are views.

    Args:
        parameters: on normalised inputs.
        normalisation: of the inputs.
        plan: of the training.
        threshold: θ on normalised inputs, where the method has one.
    """
    folded = normalisation.fold(parameters)
    method, activation = plan.objective.method, AboveThreshold()
    if isinstance(method, TokenTopK):
        activation = TopK()
    elif folded.log_threshold is not None:
        activation = AboveThresholds(folded.log_threshold.exp())
    return SparseAutoencoder(
        w_enc=folded.w_enc.T,
        b_enc=folded.b_enc,
        w_dec=folded.w_dec,
        b_dec=folded.b_dec,
        threshold=threshold / normalisation.scale,
        k=0 if isinstance(method, ReluL1) else plan.settings.k,
        activation=activation,
    )


def initial_parameters(width: int, n_features: int, *, seed: int) -> Parameters:
    """Return random unit decoder rows, the encoder their transpose, and biases of zero.

    ``b_dec`` is zero because the inputs are centred.
    """
    source = torch.Generator().manual_seed(draw_key("sae-init", seed) >> (128 - _SEED_BITS))
    w_dec = normalize(torch.randn(n_features, width, generator=source), dim=1)
    return Parameters(
        w_enc=w_dec.clone(),
        b_enc=torch.zeros(n_features),
        w_dec=w_dec,
        b_dec=torch.zeros(width),
    )


def started_parameters(plan: TrainingPlan, sample: Rows) -> Parameters:
    """Return random unit decoder rows, and the encoder their transpose times a scale.

    At scale 1 the rows that a token selects overlap, and their sum overshoots it many times over:
    the first hundred steps would only shrink codes. The scale lies half-way, by factors, to the one
    whose reconstruction of ``sample`` has the smallest error.

    Args:
        plan: of the training.
        sample: normalised inputs.
    """
    x, method = sample[:START_TOKENS], plan.objective.method
    drawn = initial_parameters(x.shape[1], plan.n_features, seed=plan.seed)
    parameters = drawn.to(x.device)
    identity = Normalisation(torch.zeros_like(parameters.b_dec), 1.0)
    sae = as_autoencoder(parameters, identity, plan)
    if not isinstance(method, ReluL1 | TokenTopK):
        sae = replace(sae, threshold=fit_threshold(sae, x))
    # the scale c with the least Σ‖x − c·x̂‖² is Σ x·x̂ / Σ‖x̂‖²
    along = squared = 0.0
    for rows in x.split(THRESHOLD_ROWS):
        x_hat = sae.decode(sae.encode(rows))
        along += float((rows * x_hat).sum())
        squared += float(x_hat.square().sum())
    scale = (along / squared) ** TOWARDS_BEST if along > 0 else 1.0
    parameters.w_enc.mul_(scale)
    if not isinstance(method, JumpRelu):
        return parameters
    theta = _thetas_of_equal_use(parameters.w_enc, x, plan.settings.k)
    return replace(parameters, log_threshold=theta.clamp_min_(_LEAST_THETA).log_())


def _thetas_of_equal_use(w_enc: Float[Tensor, "m d"], x: Rows, k: int) -> Float[Tensor, "m"]:
    """Return every feature's θ at which it is active on K / m of the tokens, as all others are.

    With one θ for all, features that begin a little weaker would get no gradient at all.
    """
    n_active = min(max(1, round(x.shape[0] * k / w_enc.shape[0])), x.shape[0])
    blocks = (x @ rows.T for rows in w_enc.split(_FEATURES_AT_ONCE))
    return torch.cat([block.topk(n_active, dim=0).values[-1] for block in blocks])
