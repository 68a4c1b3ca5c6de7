"""From the state of a training to an SAE that others can use."""

from dataclasses import asdict, replace

from vitscope.backbones.backbone import Site
from vitscope.sae.activation import ABOVE_THRESHOLD, AboveThresholds, Activation, TopK
from vitscope.sae.methods import LABELS, ReluL1, TokenTopK, one_threshold
from vitscope.sae.model import Info, SparseAutoencoder
from vitscope.sae.normalisation import Normalisation
from vitscope.sae.parameters import Parameters
from vitscope.sae.plan import TrainingPlan
from vitscope.sae.state import TrainingState
from vitscope.sae.threshold import ThresholdFit, fit_with_interval
from vitscope.sae.watch import look
from vitscope.tokens.sampling import HeldOut


def sae_at(
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
    method, activation = plan.objective.method, ABOVE_THRESHOLD
    if isinstance(method, TokenTopK):
        activation: Activation = TopK()
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


def finished_sae(
    held: HeldOut,
    plan: TrainingPlan,
    state: TrainingState,
    normalisation: Normalisation,
    site: Site | None,
) -> SparseAutoencoder:
    """Fold the normalisation into the weights, fit θ on held-out tokens, record how it was made."""
    sae = sae_at(state.parameters, normalisation, plan)
    theta: Info = {}
    if one_threshold(plan.objective.method):
        fit = fit_with_interval(sae, held, seed=plan.seed)
        sae, theta = replace(sae, threshold=fit.value), _of_threshold(fit, held)
    found = {f"held_out_{name}": value for name, value in asdict(look(sae, held.tokens)).items()}
    whole = replace(
        sae,
        w_enc=sae.w_enc.contiguous(),
        w_dec=sae.w_dec.clone(),
        site=site,
        info={**_of_training(plan, state, normalisation), **theta, "held_out": held.kind, **found},
    )
    return whole.to("cpu")


def _of_threshold(fit: ThresholdFit, held: HeldOut) -> Info:
    told: Info = {"threshold_tokens": held.tokens.shape[0], "threshold_images": fit.n_images}
    if fit.low == fit.low:  # NaN is no JSON
        told |= {"threshold_low": fit.low, "threshold_high": fit.high}
    return told


def _of_training(plan: TrainingPlan, state: TrainingState, normalisation: Normalisation) -> Info:
    assert state.figures is not None
    return {
        "method": LABELS[plan.settings.method],
        "expansion": plan.settings.expansion,
        "seed": plan.seed,
        "steps": state.step,
        "steps_planned": plan.n_steps,
        "batch_size": plan.batch,
        "tokens": state.step * plan.batch,
        "learning_rate": plan.settings.learning_rate,
        "matmul_dtype": plan.matmul_dtype,
        "aux_k": plan.objective.aux_k,
        "dead_after_tokens": plan.dead_after,
        "dead_share": state.figures.dead_share,
        "input_scale": normalisation.scale,
    }
