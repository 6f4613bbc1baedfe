"""Interactive figures: their numbers are those of the selections that the figures draw; what cannot be shown gives no chart."""

import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from sft_atlas.analyse import consistency, select
from sft_atlas.atlas import charts
from sft_atlas.atlas.contents import Contents


@pytest.fixture(scope="module")
def shown():
    study, _, frames = synthetic.collected()
    return Contents(study, frames, frames)


def test_every_chart_of_a_full_study_has_panels_of_one_shape(shown):
    for name in charts.CHARTS:
        panels = charts.panels(name, shown)
        assert panels, name
        for panel in panels:
            if panel["kind"] == "matrix":
                shape = len(panel["rows"]), len(panel["columns"])
                assert all(np.shape(panel[key]) == shape for key in ("values", "muted", "hints"))
            else:
                assert len({len(panel[key]) for key in ("x", "y", "hints", "models", "addresses")}) == 1
    assert charts.panels("training_curves", shown) == []


def test_effects_over_base_models_are_those_of_the_analysis(shown):
    cells = select.of_leading_method(consistency.cells(shown.tables["gains"], shown.study))
    row = consistency.consistency(cells, "gain", shown.study["seed"]).row(0, named=True)
    panel = charts.panels("consistency", shown)[1]
    assert panel["values"][0][0] == pytest.approx(row["effect"], abs=1e-4)
    assert panel["muted"][0][0] is True and "cannot be decided" in panel["hints"][0][0]  # three base models


def test_points_are_in_percentage_points_and_lead_to_checkpoints(shown):
    panel = charts.panels("lora_full", shown)[0]
    model, dataset, folder, epoch = panel["addresses"][0].split("/")
    own = shown.tables["gains"].filter(synthetic.at(model, dataset, folder, int(epoch)))
    assert any(abs(100 * gain - panel["x"][0]) < 0.01 for gain in own["gain"])


def test_a_study_without_the_runs_has_no_chart():
    study, _, frames = synthetic.collected()
    none = {name: frame.filter(pl.lit(False)) for name, frame in frames.items()}
    empty = Contents(study, none, none)
    assert all(charts.panels(name, empty) == [] for name in charts.CHARTS)
