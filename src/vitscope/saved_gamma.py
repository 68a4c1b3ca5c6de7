"""γ set in a finished run: its study and its partition change together, or not at all."""

from pathlib import Path

from vitscope.backbones.user_model import require_trust
from vitscope.errors import RunLockedError
from vitscope.pipeline import run_study
from vitscope.store.atomic import write_text
from vitscope.store.run_directory import RunDirectory
from vitscope.study import load_study


def save_gamma(folder: Path, gamma: float | None, *, run_code: bool = False) -> None:
    """Make γ the partition of the run in ``folder``, as `vitscope partition` would.

    The stages after «partition» are then not up to date, and the next `vitscope run` redoes them.

    Args:
        folder: a run directory in which every stage before «partition» stands.
        gamma: γ by hand; None proposes it anew from the histogram.
        run_code: whether a backbone that its study names as Python code is executed.

    Raises:
        RunLockedError: another process works in the run.
        ArtifactError: the run cannot be written, or an earlier stage is not up to date: nothing
            has changed then.
        ConfigError: γ is no number between 0 and 1.
        BackboneError: the backbone is Python code that may not be executed.
    """
    run = RunDirectory(folder)
    study, before = load_study(run.study), run.study.read_text(encoding="utf-8")
    require_trust(study.backbone.name, folder, run_code)
    scope = study.scope.parse(
        study.scope.model_dump(exclude={"gamma"}) | {"gamma": gamma}, source="scope"
    )
    changed = study.model_copy(update={"scope": scope})
    try:
        run_study(changed, folder, only=["partition"])
    except RunLockedError:
        raise  # whoever holds the run has its own study there
    except BaseException:
        if run.study.read_text(encoding="utf-8") != before:
            write_text(run.study, before)
        raise
