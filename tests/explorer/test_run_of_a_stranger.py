"""A run that came from elsewhere: looking at it, and cutting it, executes nothing that it names."""

import numpy as np
import pytest
from tests.stages.stranger import hostile

from vitscope.errors import ArtifactError, BackboneError
from vitscope.explorer.live import LiveRun
from vitscope.store.atomic import read_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_table, write_table


def test_code_that_a_run_names_is_executed_only_on_request(copied_run: RunDirectory) -> None:
    mark = hostile(copied_run)
    live = LiveRun(copied_run.root)
    assert live.run.name
    with pytest.raises(BackboneError, match=r"is Python code, .*stranger\.py:build, .* --run-code"):
        live.loaded()
    assert not mark.exists()
    with pytest.raises(BackboneError, match="asked"):
        LiveRun(copied_run.root, run_code=True).loaded()
    assert mark.exists()


def test_gamma_of_a_stranger_s_run_is_saved_without_its_code(copied_run: RunDirectory) -> None:
    mark, before = hostile(copied_run), copied_run.study.read_bytes()
    # the stamp tells of another backbone: nothing may be loaded to find out what this one is
    with pytest.raises(ArtifactError, match="stage 'backbone'"):
        LiveRun(copied_run.root).save_gamma(0.5)
    assert copied_run.study.read_bytes() == before
    stamp = read_json(copied_run.stamp("backbone"))
    assert not mark.exists() and stamp["settings"]["name"] == "scenes-vit"


@pytest.mark.parametrize("name", ["cells_first", "cells_second", "feature", "rank"])
def test_pairs_counted_in_numbers_that_are_not_whole_are_refused(
    copied_run: RunDirectory, name: str
) -> None:
    table = read_table(copied_run.pairs)
    write_table(copied_run.pairs, table | {name: np.full(len(table[name]), np.nan)}, {})
    with pytest.raises(ArtifactError, match=rf"column {name} has float64, and not whole numbers"):
        LiveRun(copied_run.root)
