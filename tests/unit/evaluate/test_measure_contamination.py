"""Contamination: shared runs of words, and the scores of `score_clean_items` without the overlapping items."""

import polars as pl
import pytest

from sft_atlas.evaluate.measure_contamination import ItemIndex, measure
from sft_atlas.evaluate.score_clean_items import clean_scores

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


def test_shared_runs_of_words_are_found_whatever_the_case_and_the_space():
    texts = {
        ("set", 10): ["nothing here", f"Before, {LONG.upper().replace(' ', '  ')} after"],
        ("other", 10): [" ".join(LONG.split()[:12])],
    }
    matrix, flags = measure(
        texts, {"quiz": [f"who said {LONG} and why", "What is the capital of France?", "3 + 4 ="], "short": ["nothing here"]}
    )
    assert flags.rows() == [("set", 10, "quiz", 0)]
    assert matrix.filter(dataset="set", benchmark="quiz").select("items", "overlapping", "share").row(0) == (3, 1, pytest.approx(1 / 3))
    assert matrix.height == 4 and matrix["overlapping"].sum() == 1


def test_a_short_question_must_occur_as_a_whole_and_marks_count():
    index = ItemIndex({"q": ["Calculate 3 + 4 =", "What is the capital of France?", "日本の首都はどこですか"]})
    assert index.items_in(["please calculate 3 + 4 = now"]) == {("q", 0)}
    assert index.items_in(["calculate 3 - 4 ="]) == set()
    assert index.items_in(["tell me: what is the capital of france?"]) == {("q", 1)}
    assert index.items_in(["では、日本の首都はどこですか。"]) == {("q", 2)}


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
    found = clean_scores(samples, flags, {"all": ("a", "b")}, {("m", "a", "full"): 5, ("m", "all", "full"): 5})
    columns = ("dataset", "score", "n", "score_clean", "n_clean", "base_score_clean")
    assert found.select(columns).rows() == [
        ("base", 0.25, 4, 0.25, 4, 0.25), ("a", 0.75, 4, pytest.approx(2 / 3), 3, pytest.approx(1 / 3)), ("all", 0.75, 4, 0.5, 2, 0.5),
    ]  # fmt: skip
    assert found.filter(dataset="all")["stderr_clean"].item() == pytest.approx(0.5)
