"""The paper's qualitative claims, each with its rule; every run is judged by all that apply."""

from collections.abc import Sequence

from vitscope.paper.attention_claims import MORE, others_rise, outliers_move_more, outliers_peak
from vitscope.paper.claims import SURE, Claim, Found, Verdict
from vitscope.paper.feature_claims import (
    ABSENT,
    FIRM,
    SIGNIFICANT,
    STEEP,
    awcds_rises,
    fewer_active_on_outliers,
    two_modes,
)
from vitscope.paper.probe_claims import (
    MUCH,
    high_removal_improves,
    high_removal_spares_dense,
    low_loss_shrinks,
    low_removal_hurts_dense,
)

_EVERY_SIZE = "A family whose sizes were not all run supports nothing."

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "outliers-move-more",
        "Attention of outlier tokens moves far more between shifted views than that of others.",
        "supplement, D.1 and Table 7; E and Table 9",
        f"The 95 % interval of D̄_out / D̄_non lies above {MORE} at every shift compared: supported; "
        "below it at one: contradicted. The bound is ours: the paper's smallest ratio is 1.9.",
        ("table7", "table9"),
        outliers_move_more,
    ),
    Claim(
        "outliers-peak",
        "The instability of outlier tokens peaks around s = 3 and s = 4.",
        "supplement, E.2 and Table 9",
        f"Images are drawn anew with all their shifts; the largest mean is at 3 or 4 in {SURE:.0%} "
        f"of the draws: supported; in {1 - SURE:.0%} or fewer: contradicted.",
        ("table9",),
        outliers_peak,
    ),
    Claim(
        "others-rise",
        "The instability of other tokens rises with s.",
        "supplement, E.2 and Table 9",
        f"In {SURE:.0%} of the same draws every step from one shift to the next rises: supported; "
        f"in {1 - SURE:.0%} or fewer: contradicted.",
        ("table9",),
        others_rise,
    ),
    Claim(
        "awcds-rises",
        "awCDS rises steeply for outlier tokens.",
        "supplement, D.1 and Figure 7",
        f"Mean awCDS of the bins above τ is more than {STEEP} times that of the 40th to 60th "
        "percentile, with ends of the bins' intervals set against each other: supported; less: "
        "contradicted.",
        ("figure7",),
        awcds_rises,
    ),
    Claim(
        "two-modes",
        "CDS has a dominant low mode and a separated high one; the high group is smaller.",
        "supplement, A.1, D.1, Table 4 and Figure 6",
        f"The dip test and Silverman's reject one mode (p < {SIGNIFICANT}), a valley is there in "
        f"{FIRM:.0%} of bootstrap draws, and low-CDS features are more at both ends of γ's "
        "interval: supported. The high group is larger at both ends, or neither test rejects and "
        f"at most {ABSENT:.0%} of the draws have a valley: contradicted.",
        ("table4", "figure6"),
        two_modes,
    ),
    Claim(
        "l0-lower",
        "Outlier tokens have fewer active features than tokens on average.",
        "supplement, Table 6",
        "The 95 % interval (jackknife over chunks of images) of L0 on outliers less L0 on all lies "
        "below 0: supported; above: contradicted.",
        ("table6",),
        fewer_active_on_outliers,
    ),
    Claim(
        "high-removal-improves",
        "Removing high-CDS features improves ImageNet accuracy at every size.",
        "supplement, D.2 and Figure 8; main paper, Table 3",
        "The 95 % interval of the change, search by search, lies above 0 at every size: supported; "
        f"below 0 at one: contradicted. {_EVERY_SIZE}",
        ("table3", "figure8"),
        high_removal_improves,
    ),
    Claim(
        "low-loss-shrinks",
        "What removing low-CDS features costs in accuracy shrinks as models grow.",
        "supplement, D.2 and Figure 8",
        "From each size to the next the 95 % interval of the difference of losses lies on the "
        f"shrinking side: supported; on the other at one step: contradicted. {_EVERY_SIZE}",
        ("figure8",),
        low_loss_shrinks,
    ),
    Claim(
        "low-removal-hurts-dense",
        "Removing low-CDS features hurts segmentation and depth much.",
        "supplement, D.2 and Table 8; main paper, Table 3",
        f"Both lose more than {MUCH:.0%} of the original's figure, with the whole 95 % interval: "
        "supported; one loses less: contradicted. The bound is ours.",
        ("table3", "table8"),
        low_removal_hurts_dense,
    ),
    Claim(
        "high-removal-spares-dense",
        "Removing high-CDS features changes segmentation and depth little.",
        "supplement, D.2 and Table 8; main paper, Table 3",
        f"Both change by less than {MUCH:.0%} either way, with the whole 95 % interval: supported; "
        "one changes by more: contradicted. The bound is ours.",
        ("table3", "table8"),
        high_removal_spares_dense,
    ),
)
"""In the order of the paper's figures."""


def judge(found: Sequence[Found]) -> tuple[Verdict, ...]:
    """Return a verdict for every claim and every run, or family, that has what it looks at."""
    return tuple(verdict for claim in CLAIMS for verdict in claim.judge(found))
