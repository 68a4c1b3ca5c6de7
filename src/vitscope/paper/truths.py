"""What must come out on the planted backbone, in the names of the paper's numbers."""

import numpy as np

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.planted.truth import expected_cds, expected_instability
from vitscope.images.verify import read_image_table
from vitscope.paper.measured import Measured
from vitscope.paper.runs import FinishedRun
from vitscope.paper.studies import PLANTED
from vitscope.selfcheck.truth_tables import read_truth
from vitscope.store.atomic import read_json

ERRORS = 2.0
"""Standard errors of a truth that is itself drawn, to either side."""


def truths_of(run: FinishedRun) -> dict[str, Measured]:
    """Return the truth behind a run; nothing where there is none, or where it was read otherwise.

    Groups are those of the closed forms, cut at the run's own γ.
    """
    study = run.study
    if run.model != PLANTED or study.sae.path is None or run.readings:
        return {}
    backbone, found = PlantedBackbone(), dict[str, Measured]()
    shift = study.scope.shift
    if run.has("partition"):
        gamma = float(read_json(run.run.table("partition"))["gamma"])
        cds = np.asarray([expected_cds(backbone.spec, a, shift).max for a in backbone.truth])
        found["dictionary"] = Measured(float(cds.size))
        found["high"] = Measured(float((cds > gamma).sum()))
        found["low"] = Measured(float((cds <= gamma).sum()))
    if run.has("evaluate"):
        truth = read_truth(backbone, read_image_table(run.run.images("train")).usable, shift)
        found["fvu.all"] = Measured(truth.fvu_all)
        found["fvu.outlier"] = Measured(truth.fvu_outlier)
        found["l0.all"] = Measured(backbone.spec.atoms_per_token)
    if run.has("instability") and study.outliers.membership == "either":
        for s in sorted({shift, *study.instability.shifts}):
            drawn = expected_instability(backbone.spec, s)[study.outliers.attention]
            for name, (value, error) in zip(("out", "non"), drawn, strict=True):
                low, high = float(value - ERRORS * error), float(value + ERRORS * error)
                found[f"emd.{name}.{s}"] = Measured(float(value), low, high, "draws")
    return found
