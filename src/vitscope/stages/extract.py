"""Stage «extract»: patch tokens of the training images, as shards on disk."""

from vitscope.activations.extract import extract_activations
from vitscope.artifacts.stage import StageOutput
from vitscope.stages.context import Context, StageOutcome


def run_extract(context: Context) -> StageOutcome:
    """Write the drawn tokens; whole shards of an interrupted run are kept."""
    study, run = context.study, context.run

    def body(fingerprint: str) -> StageOutput:
        extraction = extract_activations(
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

    return context.finish(
        "extract",
        settings=study.activations.model_dump(),
        after=("images",),
        extra_inputs={"backbone": context.backbone_digest},
        body=body,
    )
