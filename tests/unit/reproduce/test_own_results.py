"""A study's own results in the form of the published scores."""

import shutil

import polars as pl
import pytest

from helpers import paper_part
from sft_atlas.reproduce import own_results
from sft_atlas.study.study import from_config
from sft_atlas.tables.collect import collect


def test_scores_and_gains_are_those_of_the_tables(planted):
    study, root, own, *_ = planted[1.0]
    table = collect(study.resolved(), "gains", root).frame
    row = table.filter(model="olmo-7b", dataset="lima", recipe="lora", epoch=3, benchmark="mmlu-zh").row(0, named=True)
    mine = own.data.cells.filter(model="olmo-7b", dataset="lima", method="lora", benchmark="cmmlu-0").row(0, named=True)
    assert mine["gain"] == pytest.approx(100 * row["gain"]) and mine["score"] == pytest.approx(100 * row["score"])
    assert own.data.cells.height == 6 * 6 * 2 * 8, "last epochs of single sets, eight benchmarks"


def test_models_sets_and_benchmarks_have_the_papers_labels(planted):
    described = planted[1.0][2].data.study
    assert described["models"]["olmo-7b"] == {"label": "OLMo 7B", "family": "olmo", "language": "en"}
    assert described["benchmarks"]["cmmlu-0"]["label"] == "MMLU-zh 0-shot"
    assert list(described["datasets"])[:2] == ["alpaca_cleaned", "lima"] and described["datasets"]["all"]["merged"]


def test_a_rating_is_a_fraction_of_its_range(planted):
    """A rating of 5.5 is stored as 0.55 with scale 10; from 1 to 10 it is in the middle."""
    own = planted[1.0][2]
    rated = pl.col("benchmark") == "truthfulqa"
    scores = own.tables["scores"].with_columns(
        pl.when(rated).then(10.0).otherwise("scale").alias("scale"), pl.when(rated).then(0.55).otherwise("score").alias("score")
    )
    gains = own.tables["gains"].with_columns(pl.when(rated).then(0.09).otherwise("gain").alias("gain"))
    data = own_results.published_form(own.study, own.tables | {"scores": scores, "gains": gains}, own.names)
    part = data.gains.filter(benchmark="truthfulqa-0")
    assert part["score"].unique().to_list() == pytest.approx([0.5]) and part["gain"].unique().to_list() == pytest.approx([0.1])


def test_results_that_are_missing_stay_missing(planted, tmp_path):
    """A base model without scores has runs without gains, and no row is invented."""
    study, root, *_ = planted[1.0]
    own = own_results.read(study.resolved(), tmp_path)
    assert own.data.scores.is_empty() and own.data.cells.is_empty() and own.scored_by == {}
    part = tmp_path / "part"
    shutil.copytree(root / "runs/olmo-7b/lima", part / "runs/olmo-7b/lima")
    own = own_results.read(study.resolved(), part)
    assert own.data.gains["gain"].null_count() == own.data.gains.height == 2 * 3 * 8


def test_two_benchmarks_never_share_a_name():
    config = paper_part.config()
    config["benchmarks"]["mmlu-again"] = config["benchmarks"]["mmlu"]
    found = own_results.names(from_config(config, "part.yaml").resolved())
    assert found.benchmarks["mmlu"] == "mmlu-0" and found.benchmarks["mmlu-again"] == "mmlu-again-0"
