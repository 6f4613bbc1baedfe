"""The rows that an analysis selects, and the pairs that it compares."""

import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from sft_atlas.analyse import select


def test_shared_error_bounds_what_a_common_base_score_does():
    rng = np.random.default_rng(0)
    base, tuned = rng.normal(0, 0.05, 2000), rng.normal(0, 0.05, (2, 2000))
    stderr = np.full((2, 2000), 0.05 * 2**0.5)
    r = np.corrcoef(tuned - base)[0, 1]
    assert 0.4 < r < 0.6
    assert select.shared_error(tuned - base, stderr, [0, 1]) > r


def test_left_out_finds_the_whole_set_under_another_recipe():
    study, _, frames = synthetic.collected()
    renamed = pl.when(pl.col("dataset") == "all").then(pl.col("recipe") + "-merged").otherwise("recipe").alias("recipe")
    assert select.left_out(frames["scores"].with_columns(renamed), study).equals(select.left_out(frames["scores"], study))


def test_selection_is_by_run_properties_not_by_block_names():
    study, _, frames = synthetic.collected()
    cells = select.single(frames["gains"], study)
    assert set(cells["recipe"]) == {"full-256", "lora-256"}
    assert set(cells["epoch"]) == {3}
    assert set(cells["dataset"]) == set(synthetic.DATASETS)
    track = select.trajectories(frames["gains"], study)
    assert set(track["schedule"]) == {"constant"}
    assert set(track["rows"]) == {256, 2048}


def test_size_pairs_hold_everything_else_equal():
    study, _, frames = synthetic.collected()
    pairs = select.size_pairs(frames["gains"], study)
    assert pairs.height == 6
    assert set(pairs["schedule"]) == {"constant"}
    means = select.mean_gains(frames["gains"]).filter(dataset="arith", model="alder-1b", epoch=3)
    large, small = (means.filter(recipe=f"full-{rows}-constant")["gain"].item() for rows in (2048, 256))
    assert pairs.filter(dataset="arith")["difference"].item() == pytest.approx(large - small)


def test_left_out_is_against_the_whole_merged_set():
    study, _, frames = synthetic.collected()
    row = select.left_out(frames["scores"], study).filter(removed="logic", benchmark="sums").row(0, named=True)
    scores = frames["scores"].filter(model="alder-1b", recipe="full-256", epoch=3, benchmark="sums")
    expected_difference = scores.filter(dataset="without-logic")["score"].item() - scores.filter(dataset="all")["score"].item()
    assert row["difference"] == pytest.approx(expected_difference)


def test_the_run_on_the_whole_set_drops_out_of_relative_differences():
    study, _, frames = synthetic.collected()
    known = select.left_out(frames["scores"], study)
    lucky = pl.when(pl.col("dataset") == "all").then(pl.col("score") + 0.1).otherwise("score").alias("score")
    shifted = select.left_out(frames["scores"].with_columns(lucky), study)
    assert (known["difference"] - shifted["difference"]).to_list() == pytest.approx([0.1] * known.height)
    assert shifted["relative"].to_list() == pytest.approx(known["relative"].to_list())
    # Of k independent scores, the variance of one minus the mean of all is (1 - 1/k) times their variance where these are equal.
    equal = select.left_out(frames["scores"].with_columns(pl.lit(0.03).alias("stderr")), study)
    assert equal["relative_stderr"].to_list() == pytest.approx([0.03 * (1 - 1 / 6) ** 0.5] * known.height)


def test_a_pair_of_runs_counts_once_however_many_benchmarks_it_has():
    rows = [(f"m{i}", "set", f"b{j}", 0.0, 0.1 * i) for i in range(5) for j in range(3) if i or not j]
    pairs = pl.DataFrame(rows, schema=["model", "dataset", "benchmark", "full", "lora"], orient="row")
    assert select.overall_difference(pairs, seed=0).effect == pytest.approx(0.2)
