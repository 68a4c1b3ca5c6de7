"""Stage «extract»: patch tokens of the training images, as shards on disk."""

from vitscope.distributed import rank_0_goes_on
from vitscope.stages.context import Context, StageOutcome
from vitscope.store.atomic import write_json
from vitscope.store.stage import StageOutput
from vitscope.tokens.extraction import MANIFEST_SCHEMA, extract_tokens


def run_extract(context: Context) -> StageOutcome:
    """Write the drawn tokens; whole shards of an interrupted run are kept."""
    study, run = context.study, context.run

    def body(fingerprint: str) -> StageOutput:
        if not study.activations.cache:
            rank_0_goes_on()
            return _nothing_kept(context, fingerprint)
        extraction = extract_tokens(
            context.backbone,
            context.images("train").usable,
            run.activations,
            study.activations,
            context.reading,
            seed=study.seed,
            fingerprint=fingerprint,
            stretch=context.stretch,
        )
        summary = {"images": extraction.n_images, "tokens": extraction.n_tokens}
        return StageOutput(extraction.files, summary | extraction.rates)

    settings = study.activations.model_dump()
    if study.activations.cache:  # the same shards, whatever a stream's window would be
        del settings["cache"], settings["window_images"]
    return context.finish(
        "extract",
        settings=settings,
        after=("images",),
        extra_inputs={"backbone": context.backbone_digest},
        body=body,
        shared=True,
    )


def _nothing_kept(context: Context, fingerprint: str) -> StageOutput:
    """Leave a note in place of shards: training streams, and must notice other images."""
    folder = context.run.activations
    for shard in folder.glob("part-*.safetensors"):
        shard.unlink()
    note = folder / "manifest.json"
    write_json(note, {"schema": MANIFEST_SCHEMA, "streamed": True, "fingerprint": fingerprint})
    return StageOutput([note], {"images": len(context.images("train").usable), "tokens": 0})
