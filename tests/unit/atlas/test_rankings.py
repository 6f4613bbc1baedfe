"""Rankings of training sets: a planted best set is found and sure, equal sets are not told apart, and gaps do not favour a set."""

import numpy as np
import polars as pl
import pytest

from sft_atlas.atlas.rankings import rankings

BENCHMARKS = ("sums", "chains", "spell")


def study(models, sets):
    return {
        "seed": 0,
        "models": {name: {} for name in models},
        "datasets": {name: {"label": name.upper(), "merged": False, "without": None} for name in sets},
        "benchmarks": {"sums": {"group": "mathematics"}, "chains": {"group": "mathematics"}, "spell": {"group": "language"}},
        "recipes": {"full": {"method": "full"}},
        "runs": [
            {
                "model": model,
                "dataset": name,
                "recipe": "full",
                "folder": "full",
                "seed": 0,
                "method": "full",
                "rows": 10,
                "schedule": "cosine",
            }
            for model in models
            for name in sets
        ],
    }


def tables(effects, models=8, noise=0.002, lost=()):
    """Gains and scores of sets with these effects (fractions) on every benchmark; ``lost``: (model, set, benchmark) without a score."""
    rng, names = np.random.default_rng(0), [f"m{i}" for i in range(models)]
    rows = []
    for model in names:
        base = rng.uniform(0.2, 0.5)
        for dataset, effect in effects.items():
            for benchmark in BENCHMARKS:
                if (model, dataset, benchmark) not in lost:
                    score = base + effect + rng.normal(0, noise)
                    rows.append((model, dataset, "full", "full", 10, "cosine", 1, benchmark, score, score - base, 0.005, 0.004, 400))
    columns = [
        "model",
        "dataset",
        "recipe",
        "method",
        "rows",
        "schedule",
        "epoch",
        "benchmark",
        "score",
        "gain",
        "stderr",
        "score_stderr",
        "n",
    ]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    gains = frame.drop("score_stderr").with_columns(z=pl.col("gain") / pl.col("stderr"))
    return gains, frame.select(*columns[:9], stderr="score_stderr", n="n"), study(names, list(effects))


def part(table, **keys):
    rows = pl.DataFrame(table, strict=False)
    return rows.filter(pl.col(name) == value for name, value in keys.items())


def test_a_set_that_is_better_everywhere_is_first_and_sure():
    found = rankings(*tables({"poor": 0.0, "good": 0.1, "fair": 0.05}))
    own = part(found["sets"], topic="group mathematics")
    assert own["dataset"].to_list() == ["good", "fair", "poor"]
    assert own["gain"][0] == pytest.approx(10, abs=0.5) and own["low"][0] < 10.2 and own["high"][0] > 9.8
    assert own["behind"][1] == pytest.approx(5, abs=0.5) and own["behind_q"][1] < 0.05 and own["behind_n"][1] == 8
    assert own["first_on"].to_list() == [8, 0, 0]
    models = part(found["models"], topic="group mathematics")
    assert set(models["dataset"]) == {"good"} and set(models["second"]) == {"fair"}
    assert all(close == [] for close in models["close"].to_list())
    assert models["items"].to_list() == [800] * 8


def test_equal_sets_are_not_told_apart():
    found = rankings(*tables({"a": 0.05, "b": 0.05, "c": 0.05}, noise=0.005))
    own = part(found["sets"], topic="all")
    assert own["behind_q"].drop_nulls().drop_nans().min() > 0.05
    assert any(len(close) == 2 for close in part(found["models"], topic="all")["close"].to_list())


def test_a_lost_score_takes_its_benchmark_out_of_the_comparison_on_that_model():
    """The set without its score on a hard benchmark would be better than the others for that reason alone."""
    full, lost = (rankings(*tables({"a": 0.0, "b": 0.1}, lost=lost)) for lost in ((), (("m0", "a", "sums"),)))
    sizes = part(lost["models"], topic="group mathematics")["benchmarks"].to_list()
    assert sizes == [1] + [2] * 7 and part(full["models"], topic="group mathematics")["benchmarks"].to_list() == [2] * 8
    assert part(lost["models"], topic="benchmark sums")["sets"].to_list() == [1] + [2] * 7


def test_few_base_models_have_intervals_over_items_that_say_so():
    own = part(rankings(*tables({"a": 0.0, "b": 0.1}, models=2))["sets"], topic="all")
    assert own["interval"].to_list() == ["normal, item noise only"] * 2 and own["n"].to_list() == [2, 2]


def test_one_training_set_is_not_ranked():
    found = rankings(*tables({"a": 0.0}))
    assert found["sets"]["topic"] == [] and found["models"]["topic"] == []
