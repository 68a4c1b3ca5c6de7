"""Weights before the first step, fitted to the data as far as that can be had for nothing."""

from dataclasses import replace

import torch
from torch import Tensor

from vitscope.axes import Float, Rows
from vitscope.sae.activation import ABOVE_THRESHOLD
from vitscope.sae.finish import sae_at
from vitscope.sae.methods import JumpRelu, ReluL1, TokenTopK
from vitscope.sae.normalisation import Normalisation
from vitscope.sae.parameters import Parameters, initial_parameters
from vitscope.sae.plan import TrainingPlan
from vitscope.sae.threshold import ROWS_AT_ONCE, fit_threshold

TOKENS = 4096
"""Tokens that the scale and JumpReLU's θ are fitted on."""

TOWARDS_BEST = 0.5
"""How far the encoder's scale goes from 1 towards the best: its exponent. Measured on scenes tokens
(4,096 features, 400 steps): 0 leaves an FVU of 0.133, 0.25 of 0.073, 0.5 of 0.052 with 0.3 % dead;
1 leaves 0.044, but 63 % dead, since features that begin ahead then stay ahead."""

FEATURES_AT_ONCE = 1024
"""Features whose activations on the sample are held at a time."""

LEAST_THETA = 1e-3
"""θ is learned as a logarithm: it must not begin at 0."""


def started(plan: TrainingPlan, sample: Rows) -> Parameters:
    """Return random unit decoder rows, and the encoder their transpose times a scale.

    At scale 1 the rows that a token selects overlap, and their sum overshoots it many times over:
    the first hundred steps would only shrink codes. The scale lies half-way, by factors, to the one
    whose reconstruction of ``sample`` has the smallest error.

    Args:
        plan: of the training.
        sample: normalised inputs.
    """
    x, method = sample[:TOKENS], plan.objective.method
    drawn = initial_parameters(x.shape[1], plan.n_features, seed=plan.seed).named()
    parameters = Parameters(**{name: tensor.to(x.device) for name, tensor in drawn.items()})
    identity = Normalisation(torch.zeros_like(parameters.b_dec), 1.0)
    sae = sae_at(parameters, identity, plan)
    if not isinstance(method, ReluL1 | TokenTopK):
        sae = replace(sae, activation=ABOVE_THRESHOLD)
        sae = replace(sae, threshold=fit_threshold(sae, x))
    along = squared = 0.0
    for rows in x.split(ROWS_AT_ONCE):
        x_hat = sae.decode(sae.encode(rows))
        along += float((rows * x_hat).sum())
        squared += float(x_hat.square().sum())
    scale = (along / squared) ** TOWARDS_BEST if along > 0 else 1.0
    parameters.w_enc.mul_(scale)
    if not isinstance(method, JumpRelu):
        return parameters
    theta = _thetas_of_equal_use(parameters.w_enc, x, plan.settings.k)
    return replace(parameters, log_threshold=theta.clamp_min_(LEAST_THETA).log_())


def _thetas_of_equal_use(w_enc: Float[Tensor, "m d"], x: Rows, k: int) -> Float[Tensor, "m"]:
    """Return every feature's θ at which it is active on K / m of the tokens, as all others are.

    With one θ for all, features that begin a little weaker would get no gradient at all.
    """
    n_active = min(max(1, round(x.shape[0] * k / w_enc.shape[0])), x.shape[0])
    blocks = (x @ rows.T for rows in w_enc.split(FEATURES_AT_ONCE))
    return torch.cat([block.topk(n_active, dim=0).values[-1] for block in blocks])
