"""Which other runs a score is held against."""

from pathlib import Path

from vitscope.settings import Settings


class StabilitySettings(Settings):
    """How firm the scores are, beyond what the run's own pairs can say."""

    against: tuple[Path, ...] = ()
    """Other run directories, scored: another shift, another image set, another seed of the SAE."""
