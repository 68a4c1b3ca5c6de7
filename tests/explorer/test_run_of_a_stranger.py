"""A run that came from elsewhere: looking at it executes nothing that it names."""

import pytest
from tests.stages.stranger import hostile

from vitscope.errors import BackboneError
from vitscope.saved_gamma import save_gamma
from vitscope.stages.explore import load_models, read_run
from vitscope.store.run_directory import RunDirectory


def test_code_that_a_run_names_is_executed_only_on_request(copied_run: RunDirectory) -> None:
    mark = hostile(copied_run)
    assert read_run(copied_run.root).name
    with pytest.raises(BackboneError, match=r"is Python code, .*stranger\.py:build, .* --run-code"):
        load_models(copied_run.root)
    with pytest.raises(BackboneError, match="--run-code"):
        save_gamma(copied_run.root, 0.5)
    assert not mark.exists()
    with pytest.raises(BackboneError, match="asked"):
        load_models(copied_run.root, run_code=True).backbone  # noqa: B018
    assert mark.exists()
