"""Few-shot examples: a seeded draw from another split, never a benchmark item."""

import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.data.fetch_shots import draw_shots
from sft_atlas.study.schema import Benchmark


def rows(count, subjects=("x",), start=0):
    return [
        {"instruction": f"question {start + i}", "answer": f"answer {start + i}", "subject": subjects[i % len(subjects)]}
        for i in range(count)
    ]


def test_examples_are_a_seeded_draw_that_the_items_do_not_change():
    pool = rows(50, start=100)
    first, left_out = draw_shots(pool, 4, None, 0, rows(9), "b")
    assert (len(first), left_out) == (4, 0)
    assert draw_shots(pool, 4, None, 0, rows(3), "b")[0] == first
    assert draw_shots(pool, 4, None, 1, rows(9), "b")[0] != first
    assert draw_shots(pool, 2, None, 0, rows(9), "b")[0] == first[:2]


def test_items_are_never_examples():
    pool = rows(6)
    shots, left_out = draw_shots(pool, 3, None, 0, rows(3), "b")
    assert left_out == 3 and {row["instruction"] for row in shots} == {f"question {i}" for i in (3, 4, 5)}
    with pytest.raises(AtlasError, match=r"b: every example is a benchmark item; name another split"):
        draw_shots(rows(3), 3, None, 0, rows(3), "b")


def test_examples_share_the_subject_of_the_items():
    shots, _ = draw_shots(rows(20, ("x", "y", "z"), start=100), 2, "subject", 0, rows(4, ("y", "x")), "b")
    assert [row["subject"] for row in shots] == ["y", "y", "x", "x"]
    with pytest.raises(AtlasError, match=r"b: shots\.count is 2, the split has 0 examples of subject 'q'"):
        draw_shots(rows(20), 2, "subject", 0, rows(1, ("q",)), "b")
    with pytest.raises(AtlasError, match=r"shots\.by names 'topic', which its examples lack"):
        draw_shots(rows(20), 2, "topic", 0, rows(1), "b")


def test_examples_come_from_the_benchmarks_own_source_unless_the_study_names_another():
    hub = {"task": "t.yaml", "hub": "a/b", "revision": "main", "subset": "s", "split": "test", "columns": {"instruction": "q"}}
    source = Benchmark(**hub, shots={"count": 2, "split": "dev"}).shot_source()
    assert (source.hub, source.subset, source.split, source.columns.instruction) == ("a/b", "s", "dev", "q")
    source = Benchmark(**hub, shots={"count": 2, "path": "x.jsonl", "columns": {}}).shot_source()
    assert (source.hub, source.path, source.columns.instruction) == (None, "x.jsonl", "instruction")
    with pytest.raises(ValueError, match="shots needs a path"):
        Benchmark(task="t.yaml", path="x.jsonl", shots={"count": 2})
