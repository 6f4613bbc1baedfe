"""No benchmark item among the training rows: found by hash, refused or listed."""

import json

import polars as pl
import pytest

from sft_atlas.core import job
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import text_hash
from sft_atlas.data import check_overlap


def pairs(*rows, source=None):
    """A frame of instruction, response and source from (instruction, response) tuples."""
    schema = {"instruction": pl.String, "response": pl.String, "source": pl.String}
    return pl.DataFrame([(*row, source) for row in rows], schema=schema, orient="row")


def test_overlap_is_found_regardless_of_case_and_white_space():
    training = {"a/1": ["  What is\n2 + 2? ", "x", "X"], "b/1": ["y"]}
    found = check_overlap.overlap(training, {"quiz": ["what IS 2 +\t2?", "z", "Z "]})
    columns = ("dataset", "benchmark", "train_items", "benchmark_items", "shared")
    assert found.select(columns).rows() == [("a/1", "quiz", 2, 2, 1), ("b/1", "quiz", 1, 2, 0)]
    assert found["examples"].to_list() == [[text_hash("what is 2 + 2?")], []]


@pytest.fixture
def overlapping(tmp_path):
    """Command-line words for one training set that shares one of two items with a benchmark."""
    train, items = tmp_path / "data/sums/2/train.parquet", tmp_path / "benchmarks/quiz/test.jsonl"
    for path in (train, items):
        path.parent.mkdir(parents=True)
    pairs(("What is 2 + 2?", "4"), ("What is 1 + 1?", "2")).write_parquet(train)
    items.write_text('{"instruction": "what is  2 + 2?", "answer": "4"}\n{"instruction": "What is 3 + 3?", "answer": "6"}\n')
    return ["--training", str(train), "--benchmarks", str(items), "--output", str(tmp_path / "tables/overlap.parquet")]


def check(words):
    check_overlap.main(job.parser(check_overlap).parse_args(words))


def test_overlap_is_an_error_with_the_pair_and_leaves_no_table(overlapping, tmp_path):
    with pytest.raises(AtlasError) as caught:
        check([*overlapping, "--policy", "error"])
    assert "sums/2 x quiz: 1 of 2 items" in str(caught.value)
    assert "`on_overlap: report`" in str(caught.value)
    assert not (tmp_path / "tables/overlap.parquet").exists()


def test_overlap_is_listed_where_the_study_allows_it(overlapping, tmp_path, caplog):
    check([*overlapping, "--policy", "report"])
    assert pl.read_parquet(tmp_path / "tables/overlap.parquet")["shared"].to_list() == [1]
    record = json.loads((tmp_path / "tables/overlap.json").read_text())
    assert (record["pairs"], record["pairs_with_overlap"], sorted(record["inputs"])) == (1, 1, ["benchmarks/quiz", "sums/2"])
    assert "sums/2 x quiz: 1 of 2 items" in caplog.text


def test_disjoint_sets_pass_the_strict_check(overlapping, tmp_path):
    (tmp_path / "benchmarks/quiz/test.jsonl").write_text('{"instruction": "What is 3 + 3?", "answer": "6"}\n')
    check(overlapping)
    assert pl.read_parquet(tmp_path / "tables/overlap.parquet")["shared"].to_list() == [0]


def test_benchmarks_that_share_items_are_recorded_with_how_many(overlapping, tmp_path, caplog):
    other = tmp_path / "benchmarks/other/test.jsonl"
    other.parent.mkdir()
    items = [("What is  3 + 3?", "6"), ("What is 2 + 2?", "four"), ("What is 5 + 5?", "10")]  # the second has another answer
    other.write_text("".join(json.dumps({"instruction": text, "answer": answer}) + "\n" for text, answer in items))
    words = [*overlapping, "--policy", "report"]
    words.insert(words.index("--output"), str(other))
    check(words)
    record = json.loads((tmp_path / "tables/overlap.json").read_text())
    assert record["benchmarks_with_shared_items"] == [["quiz", "other", 1, 2]]
