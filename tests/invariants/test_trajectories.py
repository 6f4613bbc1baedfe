"""Training still follows the committed reference trajectories."""

import json

import pytest

from helpers.trajectories import FILE, RECIPES, trajectory


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_follows_the_reference(cases, tmp_path, recipe):
    """Losses, gradient norms and learning rates of a tiny Llama are those of the committed reference, within 0.1 %."""
    reference = json.loads(FILE.read_text())["trajectories"][recipe]
    found = trajectory(cases("llama"), tmp_path, recipe)
    assert found["learning_rate"] == pytest.approx(reference["learning_rate"], rel=1e-4, abs=1e-9)
    assert found["loss"] == pytest.approx(reference["loss"], rel=1e-3)
    assert found["grad_norm"] == pytest.approx(reference["grad_norm"], rel=5e-3)
