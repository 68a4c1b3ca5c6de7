"""Where a study's training gets its tokens: the shards of stage «extract», or the backbone."""

from vitscope.distributed import current_ranks
from vitscope.sae.source import TokenSource
from vitscope.stages.context import Context
from vitscope.tokens.sampling import Holding
from vitscope.tokens.sources import ShardSource, StreamSource


def token_source(context: Context) -> TokenSource:
    """Return the tokens of a study whose stage «extract» has finished, some of them held out."""
    study, refs = context.study, context.images("train").usable
    holding = Holding(
        kind=study.sae.held_out,
        n_tokens=max(study.sae.threshold_tokens, study.sae.evaluation_tokens),
        share=study.sae.held_out_share,
    )
    if study.activations.cache:
        return ShardSource.open(
            context.run.activations,
            seed=study.seed,
            image_ids=[ref.id for ref in refs],
            holding=holding,
        )
    return StreamSource(
        backbone=context.backbone,
        refs=refs,
        settings=study.activations,
        loader=context.reading,
        seed=study.seed,
        holding=holding,
        stretch=context.stretch,
        ranks=current_ranks(),
    )
