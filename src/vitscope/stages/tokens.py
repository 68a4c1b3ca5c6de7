"""Where a study's training gets its tokens: the shards of stage «extract», or the backbone."""

from vitscope.distributed import current_ranks
from vitscope.sae.source import TokenSource
from vitscope.stages.context import Context
from vitscope.tokens.held_out import Holding
from vitscope.tokens.shard_source import ShardSource
from vitscope.tokens.stream_source import StreamSource


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
        reading=context.reading,
        seed=study.seed,
        holding=holding,
        stretch=context.stretch,
        ranks=current_ranks(),
    )
