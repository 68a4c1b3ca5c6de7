"""Kinds of miss where the truth is known: planted atoms fire far above θ, or not at all."""

from collections import Counter

import vitscope as vs
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.planted.spec import Kind, list_atoms
from vitscope.selfcheck.truth import oracle_sae


def test_nothing_flickers_edges_are_borders_and_what_relocates_departs() -> None:
    backbone = PlantedBackbone()
    run = vs.score(backbone, oracle_sae(backbone), vs.SceneSet(60, seed=1, side=120))
    pairs, atoms = run.scoring.scores, list_atoms(backbone.spec)
    missed = {
        kind: Counter(atoms[feature].kind for feature in pairs.feature[rows].tolist())
        for kind, rows in pairs.misses.items()
    }
    assert missed["flicker"].total() == 0 and not pairs.untold.any()
    # an atom that relocates lands beyond the overlap, close by, now and then
    assert missed["border"][Kind.BORDER] > 10
    assert missed["border"][Kind.GLOBAL] < missed["border"][Kind.BORDER] / 4
    # of a border atom's kind each view shows one, chosen by what is in it: it departs, too
    assert missed["departure"][Kind.GLOBAL] > 2 * missed["departure"][Kind.BORDER]
    assert Kind.LOCAL not in missed["border"] | missed["departure"]
