"""Which other runs stand beside this one in its report."""

from pathlib import Path

from vitscope.settings import Settings


class BesideSettings(Settings):
    """Runs whose figures are drawn beside this one's: a control, another layer, another model."""

    runs: tuple[Path, ...] = ()
    """Run directories that have finished; an untrained copy of the backbone says what the figures
    show without anything learned."""
