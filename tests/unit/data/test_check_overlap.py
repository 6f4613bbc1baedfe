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
    training = {"a/1": pairs(("  What is\n2 + 2? ", "4"), ("x", "a"), ("X", "b")), "b/1": pairs(("y", "c"))}
    items = [{"instruction": text, "answer": "4"} for text in ("what IS 2 +\t2?", "z", "Z ")]
    found = check_overlap.overlap(training, {"quiz": items})
    columns = ("dataset", "benchmark", "train_items", "benchmark_items", "shared")
    assert found.select(columns).rows() == [("a/1", "quiz", 2, 2, 1), ("b/1", "quiz", 1, 2, 0)]
    assert found["examples"].to_list() == [[text_hash("what IS 2 + 2?")], []]


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


LONG = "A farmer has seven goats and buys five more at the market. How many goats does the farmer have now?"
SOLUTION = "Seven goats and five goats make twelve goats, so the farmer has twelve goats in all."


@pytest.mark.parametrize(
    ("instruction", "response", "questions", "answers"),
    [
        (f"Answer the question.\n\nQ: {LONG}\nA:", "12", 1, 0),
        ("Write three sums.", f"1. {LONG} 2. ...", 1, 0),
        (LONG.replace("seven", "“seven”").replace(" ", "  ").upper(), "12", 1, 0),
        ("Sieben Ziegen und fünf?", f"Let us see. {SOLUTION}", 0, 1),
        (LONG.replace("five", "six"), "13", 0, 0),
        ("What is 2 + 2?", "12", 0, 0),
        ("Is it true that what is 3 + 3? stands here", "yes", 0, 0),
    ],
    ids=["another prompt", "in a response", "another spelling", "a solution alone", "other numbers", "another", "too short to be told"],
)  # fmt: skip
def test_items_are_found_in_other_forms_and_no_others(instruction, response, questions, answers):
    items = [{"instruction": LONG, "answer": SOLUTION}, {"instruction": "What is 3 + 3?", "answer": "6"}]
    found = check_overlap.overlap({"goats/1": pairs((instruction, response))}, {"quiz": items}).row(0, named=True)
    assert (found["shared"], found["answers"], len(found["examples"])) == (questions, answers, questions)


def test_every_turn_of_a_conversation_is_looked_at():
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": LONG}]
    frame = pairs(("Hello", "Hi")).with_columns(messages=pl.lit(json.dumps([*turns, {"role": "assistant", "content": "12"}])))
    assert check_overlap.overlap({"chat/1": frame}, {"quiz": [{"instruction": LONG, "answer": "12"}]})["shared"].to_list() == [1]


def test_one_set_under_two_names_is_named_and_a_part_in_common_is_not(overlapping, tmp_path, caplog):
    rows = [(f"question {i}", f"answer {i}") for i in range(10)]
    sources = {
        "one": rows,
        "same": [(text.upper(), answer) for text, answer in rows[::-1]],
        "part": [*rows[:4], *[("x", str(i)) for i in range(6)]],
    }
    for name, listed in sources.items():
        (tmp_path / f"data/{name}").mkdir()
        pairs(*listed).write_parquet(tmp_path / f"data/{name}/source.parquet")
    words = [*overlapping, "--policy", "report", "--sources", *[str(tmp_path / f"data/{name}/source.parquet") for name in sources]]
    check(words)
    assert "training sets one and same share 10 of 10 rows: they are one set under two names" in caplog.text and "part" not in caplog.text
    assert json.loads((tmp_path / "tables/overlap.json").read_text())["training_sets_with_the_same_rows"] == [["one", "same", 10, 10]]


def test_an_item_among_its_own_examples_is_refused(overlapping, tmp_path):
    (tmp_path / "data/sums/2/train.parquet").unlink()
    pairs(("Something else", "1")).write_parquet(tmp_path / "data/sums/2/train.parquet")
    shots = tmp_path / "benchmarks/quiz/shots.jsonl"
    shots.write_text('{"instruction": "What is 3+3 ?", "answer": "6"}\n{"instruction": "What is 2 + 2?", "answer": "5"}\n')
    with pytest.raises(AtlasError, match="shots of quiz: 1 of its items"):
        check([*overlapping, "--shots", str(shots)])
