"""Scores of checkpoints on the items that occur in none of their training sets."""

import polars as pl
import pytest

from sft_atlas.evaluate.score_clean_items import clean_scores


def test_scores_without_the_overlapping_items():
    def sample(dataset, item, score):
        key = {"model": "m", "dataset": dataset, "recipe": "base" if dataset == "base" else "full", "epoch": 0 if dataset == "base" else 1}
        return key | {"suite": "s", "benchmark": "q", "item": item, "score": score, "cluster": None}

    base = [sample("base", i, value) for i, value in enumerate([0.0, 0.0, 1.0, 0.0])]
    tuned = [sample(name, i, value) for name in ("a", "all") for i, value in enumerate([1.0, 1.0, 1.0, 0.0])]
    samples = pl.DataFrame([*base, *tuned], schema_overrides={"cluster": pl.String})
    flags = pl.DataFrame(
        [("a", 5, "q", 0), ("b", 5, "q", 1), ("a", 9, "q", 2)], schema=["dataset", "rows", "benchmark", "item"], orient="row"
    )
    result = clean_scores(samples, flags, {"all": ("a", "b")}, {("m", "a", "full"): 5, ("m", "all", "full"): 5})
    columns = ("dataset", "score", "n", "score_clean", "n_clean", "base_score_clean")
    assert result.select(columns).rows() == [
        ("base", 0.25, 4, 0.25, 4, 0.25), ("a", 0.75, 4, pytest.approx(2 / 3), 3, pytest.approx(1 / 3)), ("all", 0.75, 4, 0.5, 2, 0.5),
    ]  # fmt: skip
    assert result.filter(dataset="all")["stderr_clean"].item() == pytest.approx(0.5)
