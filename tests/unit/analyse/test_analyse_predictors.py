"""The table of predictors on the synthetic study: what was planted is found, what was not is not, subsets and matrices are right."""

import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from sft_atlas.analyse import select
from sft_atlas.analyse.analyse_predictors import PREDICTORS, SCHEMA, designs, known_before, table


@pytest.fixture(scope="module")
def planted():
    study, _, frames = synthetic.collected()
    return study, frames


def test_a_cell_of_the_design_is_the_gain_and_the_value_of_its_run(planted):
    study, frames = planted
    result = designs(frames, study)
    assert set(result) == {name for name in PREDICTORS if not name.startswith("semantic")}
    design, model = result["perplexity_response"], "birch-1b"
    row = frames["perplexity"].filter(model=model, dataset="logic", scope="response").row(0, named=True)
    gains = select.single(frames["gains"], study).filter(model=model, dataset="logic", method="full")["gain"]
    at = design.clusters.tolist().index(model), design.sets.index("logic")
    assert design.x[at] == pytest.approx(np.log(row["perplexity"])) and design.gain[at] == pytest.approx(gains.mean())
    cells = result["lexical_nearest"]
    assert cells.x.shape == (3 * 8, 6)
    near = frames["similarity"].filter(dataset="words", benchmark="gates")["nearest"].item()
    at = 2 * 8 + list(synthetic.BENCHMARKS).index("gates"), cells.sets.index("words")
    assert cells.x[at] == pytest.approx(near) and cells.clusters[at[0]] == "cedar-2b"


def test_what_was_planted_is_found(planted):
    frame = planted[1]["predictors"]
    row = frame.filter(subset="all", predictor="perplexity_response", statistic="correlation").row(0, named=True)
    assert row["effect"] < -0.8 and row["high"] < 0 and row["q"] < 0.05
    slope = frame.filter(subset="all", predictor="perplexity_response", statistic="slope").row(0, named=True)
    assert slope["high"] < 0 and slope["p"] < 0.01
    held_out = frame.filter(subset="all", predictor="perplexity_response", statistic="new dataset").row(0, named=True)
    assert held_out["effect"] > 0.5 and held_out["rmse"] < held_out["baseline_rmse"]


def test_what_was_not_planted_is_not_found():
    frame = synthetic.collected(effect=0.0, seed=3)[2]["predictors"]
    assert frame.filter(pl.col("statistic").is_in(["correlation", "slope"]), pl.col("q") < 0.05).is_empty()
    assert frame.filter(pl.col("statistic").str.starts_with("new"), pl.col("q") < 0.05, pl.col("low") > 0).is_empty()


def test_statistics_are_repeated_without_each_group(planted):
    study, frames = planted
    assert set(frames["predictors"]["subset"]) == {"all", "without last"}
    assert set(frames["predictors"].filter(subset="without last")["sets"]) == {5}
    assert "chat" not in designs(frames, study, ["chat"])["words"].sets


def test_q_is_within_subset_and_statistic(planted):
    from scipy.stats import false_discovery_control

    part = planted[1]["predictors"].filter(subset="all", statistic="correlation")
    p = part["p"].to_numpy()
    assert part["q"].to_numpy()[np.isfinite(p)] == pytest.approx(false_discovery_control(p[np.isfinite(p)]))


def test_an_empty_study_gives_an_empty_table(planted):
    study, frames = planted
    empty = table({name: frame.clear() for name, frame in frames.items()}, study)
    assert empty.is_empty() and dict(empty.schema) == SCHEMA


def test_known_before_has_no_row_twice(planted):
    known = known_before(planted[1])
    assert known.height == known.select("model", "dataset", "benchmark", "predictor").unique().height
