"""What the page shows of the attention instability, and in which order."""

from collections.abc import Iterable
from dataclasses import dataclass

from vitscope.scope.instability_summary import ReadingInstability
from vitscope.scope.outliers import OutlierSettings
from vitscope.scope.settings import ScopeSettings

MEMBERSHIPS = {
    "either": "either view",
    "first": "the first view",
    "both": "both views",
}
"""Membership -> where a token's norm exceeds τ, in words."""


@dataclass(frozen=True)
class InstabilityView:
    """The rows of the run, sorted for the page.

    Attributes:
        shifts: compared, ascending.
        shown: every shift and reading under the membership of the settings, by shift.
        own: of these, the study's own shift.
        by_membership: the study's own shift under every membership, which ``received`` ignores.
        where: where a token's norm exceeds τ, in words, by membership.
    """

    shifts: tuple[int, ...]
    shown: tuple[ReadingInstability, ...]
    own: tuple[ReadingInstability, ...]
    by_membership: tuple[ReadingInstability, ...]
    where: dict[str, str]


def chosen_reading(
    rows: Iterable[ReadingInstability], scope: ScopeSettings, outliers: OutlierSettings
) -> ReadingInstability | None:
    """Return the row at the study's own shift, under what its settings put first."""
    shown = (scope.shift, outliers.membership, outliers.attention)
    return next((r for r in rows if (r.shift, r.membership, r.reading) == shown), None)


def instability_view(
    found: Iterable[ReadingInstability], scope: ScopeSettings, outliers: OutlierSettings
) -> InstabilityView:
    """Sort the rows ``found``: the reading of the settings comes first."""
    rows = sorted(found, key=lambda r: (r.shift, r.reading != outliers.attention))
    shown = tuple(r for r in rows if r.membership == outliers.membership)
    at_own = [r for r in rows if r.shift == scope.shift]
    return InstabilityView(
        shifts=tuple(sorted({r.shift for r in rows})),
        shown=shown,
        own=tuple(r for r in shown if r.shift == scope.shift),
        by_membership=tuple(r for r in at_own if r.reading != "received"),
        where=MEMBERSHIPS,
    )
