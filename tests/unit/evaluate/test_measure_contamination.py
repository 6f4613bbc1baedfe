"""Contamination: runs of words that training texts share with benchmark items."""

import pytest

from sft_atlas.evaluate.measure_contamination import ItemIndex, measure

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
