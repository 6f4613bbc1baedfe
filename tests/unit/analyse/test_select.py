"""The rows that an analysis selects, and the pairs that it compares."""

import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from sft_atlas.analyse import select
from sft_atlas.tables import seeds


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


def test_the_error_of_a_mean_gain_is_unknown_where_one_of_its_gains_has_none():
    _, _, tables = synthetic.collected()
    gains = seeds.averaged("gains", tables["gains"])
    lost = gains.with_columns(
        pl.when(benchmark="sums", model="alder-1b").then(None).otherwise(pl.col(name)).alias(name) for name in ("stderr", "item_stderr")
    )
    means, fewer = select.mean_gains(gains), select.mean_gains(lost)
    assert means["gain"].equals(fewer["gain"])
    assert fewer.filter(model="alder-1b")["stderr"].is_null().all()
    assert fewer.filter(pl.col("model") != "alder-1b")["stderr"].equals(means.filter(pl.col("model") != "alder-1b")["stderr"])


def row(recipe, benchmark, gain, source="ours"):
    keys = {"model": "m", "dataset": "d", "recipe": recipe, "method": "full", "rows": 1, "schedule": "cosine", "epoch": 1}
    return {**keys, "benchmark": benchmark, "gain": gain, "stderr": 0.1, "source": source}


def test_a_benchmark_that_only_an_import_has_changes_no_mean_over_benchmarks():
    own = [row("full", "a", 0.1), row("full", "b", 0.3), row("theirs", "a", 0.2), row("theirs", "b", 0.6)]
    more = [row("theirs", "c", 5.0, "leaderboard"), row("other", "a", 0.1, "csv")]
    means = [dict(select.mean_gains(pl.DataFrame(rows)).select("recipe", "gain").rows()) for rows in (own, own + more)]
    assert means[0] == means[1] == pytest.approx({"full": 0.2, "theirs": 0.4})


def test_means_of_imported_gains_alone_are_over_the_benchmarks_that_most_checkpoints_have():
    first = [row(f"r{i}", name, 0.1 * i, "leaderboard") for i in range(3) for name in ("arc", "mmlu")]
    second = [row(f"s{i}", "bbh", 0.5, "leaderboard") for i in range(2)] + [row("r0", "bbh", 0.5, "leaderboard")]
    means = dict(select.mean_gains(pl.DataFrame(first + second)).select("recipe", "gain").rows())
    assert set(means) <= {"r0", "r1", "r2"} and means["r2"] == pytest.approx(0.2)


def test_the_recipe_of_imported_scores_is_a_main_recipe_only_where_there_is_no_other():
    study = {"datasets": {"d": {"without": None, "merged": False}}}
    runs = [(model, "theirs", "full") for model in "abc"] + [("a", "full", "full"), ("a", "imported", "lora")]
    study["runs"] = [
        {"model": model, "dataset": "d", "recipe": recipe, "method": method, "schedule": None, "imported": recipe != "full"}
        for model, recipe, method in runs
    ]
    assert select.main_recipes(study) == {"full": "full", "lora": "imported"}
