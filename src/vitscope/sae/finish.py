"""From the last step's state to an SAE that others can use."""

from dataclasses import replace

from vitscope.backbones.backbone import Site
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.normalisation import Normalisation
from vitscope.sae.plan import TrainingPlan
from vitscope.sae.source import TokenSource
from vitscope.sae.state import TrainingState
from vitscope.sae.threshold import fit_threshold


def finished_sae(
    source: TokenSource,
    plan: TrainingPlan,
    state: TrainingState,
    normalisation: Normalisation,
    site: Site | None,
) -> SparseAutoencoder:
    """Fold the normalisation into the weights, fit θ on raw tokens, and record how it was made."""
    assert state.figures is not None
    folded = normalisation.fold(state.parameters)
    sample = source.sample(plan.settings.threshold_tokens)
    sae = SparseAutoencoder(
        w_enc=folded.w_enc.T.contiguous(),
        b_enc=folded.b_enc,
        w_dec=folded.w_dec.clone(),
        b_dec=folded.b_dec,
        threshold=0.0,
        k=plan.settings.k,
        site=site,
        info={
            "method": "BatchTopK",
            "expansion": plan.settings.expansion,
            "seed": plan.seed,
            "steps": state.step,
            "batch_size": plan.batch,
            "tokens": state.step * plan.batch,
            "learning_rate": plan.settings.learning_rate,
            "aux_k": plan.objective.aux_k,
            "dead_after_tokens": plan.dead_after,
            "dead_share": state.figures.dead_share,
            "input_scale": normalisation.scale,
            "threshold_tokens": sample.shape[0],
        },
    )
    return replace(sae, threshold=fit_threshold(sae, sample)).to("cpu")
