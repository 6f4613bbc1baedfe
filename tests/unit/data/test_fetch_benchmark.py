"""Benchmark items: instruction and answer, choices and labels, and the seeded sample."""

import json

import polars as pl
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.data import fetch_benchmark
from sft_atlas.data.fetch_benchmark import benchmark_items
from sft_atlas.study.schema import Benchmark

ROWS = [{"instruction": "Name a colour.", "response": "red"}, {"instruction": "Name a\u2028number.", "response": "7"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def pairs(*rows, source=None):
    """A frame of instruction, response and source from (instruction, response) tuples."""
    schema = {"instruction": pl.String, "response": pl.String, "source": pl.String}
    return pl.DataFrame([(*row, source) for row in rows], schema=schema, orient="row")


def numbered(count):
    return pairs(*((f"question {i}", f"answer {i}") for i in range(count)))


def benchmark(**settings):
    return Benchmark(path="items.jsonl", task="task.yaml", **settings)


def test_items_keep_their_fields_and_gain_instruction_and_answer():
    frame = pl.DataFrame({"question": [" 1 + 1? "], "solution": ["two: #### 2\n"], "level": [3]})
    items = benchmark_items(frame, benchmark(columns={"instruction": "question", "response": "solution"}), "benchmarks.x")
    assert items == [{"question": " 1 + 1? ", "solution": "two: #### 2\n", "level": 3, "instruction": "1 + 1?", "answer": "two: #### 2"}]


CHOICES = {
    "list column, index": ({"options": [["x", "y"], ["z", "w"]], "label": [1, 0]}, "options"),
    "list column, letters": ({"options": [["x", "y"], ["z", "w"]], "label": ["B", "a"]}, "options"),
    "list column, index as text": ({"options": [["x", "y"], ["z", "w"]], "label": ["1", "0"]}, "options"),
    "one column per option": ({"first": ["x", "z"], "second": ["y", "w"], "label": [1, 0]}, ["first", "second"]),
    "true and false": ({"options": [["x", "y"], ["z", "w"]], "label": [True, False]}, "options"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_choices_and_label_are_made_from_the_sources_columns(case):
    columns, choices = CHOICES[case]
    frame = pl.DataFrame({"instruction": ["p", "q"], **columns})
    items = benchmark_items(frame, benchmark(columns={"choices": choices}), "benchmarks.x")
    found = [(item["instruction"], item["choices"], item["label"], item["answer"]) for item in items]
    assert found == [("p", ["x", "y"], 1, "y"), ("q", ["z", "w"], 0, "z")]


@pytest.mark.parametrize("label", ["C", "-1", "2", "yes", None], ids=str)
def test_a_label_that_is_none_of_the_choices_is_an_error_with_the_item(label):
    frame = pl.DataFrame({"instruction": ["p", "q"], "options": [["x", "y"], ["z", "w"]], "label": ["A", label]})
    with pytest.raises(AtlasError, match=rf"benchmarks\.x: row 2 has 2 choices and the label {label!r}"):
        benchmark_items(frame, benchmark(columns={"choices": "options", "label_base": 0}), "benchmarks.x")


FOUR = {"a": "Rome", "b": "Oslo", "c": "Bern", "d": "Riga"}


def labels_of(keys, label_base=None, options=FOUR):
    """The labels that items get from a column of keys and one column per option."""
    frame = pl.DataFrame({"question": ["q"] * len(keys), "key": keys, **{name: [text] * len(keys) for name, text in options.items()}})
    columns = {"instruction": "question", "choices": list(options), "label": "key"} | (
        {"label_base": label_base} if label_base is not None else {}
    )
    return [item["label"] for item in benchmark_items(frame, benchmark(columns=columns), "benchmarks.x")]


def test_label_base_says_where_numbers_begin():
    assert labels_of([1, 2, 4], 1) == labels_of(["1", "2", "4"], 1) == labels_of([1.0, 2.0, 4.0], 1) == [0, 1, 3]
    assert labels_of([1, 2, 3], 0) == [1, 2, 3]
    assert labels_of(["A", "2", "D", "1"], 1) == [0, 1, 3, 0] and labels_of(["A", "2", "D", "1"], 0) == [0, 2, 3, 1]
    assert labels_of([0, 3]) == [0, 3] and labels_of([True, True]) == [1, 1] and labels_of(["b", " C "]) == [1, 2]
    with pytest.raises(AtlasError, match=r"row 2 has 4 choices and the label 0, which is not the number \(from 1\)"):
        labels_of([1, 0], 1)
    with pytest.raises(AtlasError, match=r"row 1 has 4 choices and the label 1\.5"):
        labels_of([1.5, 0.0])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["A", "2", "D", "1"], r"letters \(row 1: 'A'\) and numbers \(row 2: '2'\); state whether .* `columns: \{label_base: 1\}`"),
        ([1, 2, 3], r"numbers and never 0 \(row 1: 1\); state whether .*`columns: \{label_base: 1\}` or `label_base: 0`"),
        (["1", None, "4"], r"numbers and never 0 \(row 1: '1'\)"),
    ],
)
def test_ambiguous_keys_are_refused_with_what_to_write(keys, message):
    with pytest.raises(AtlasError, match=rf"benchmarks\.x: column 'key' has {message}"):
        labels_of(keys)


@pytest.mark.parametrize("listed", [False, True], ids=["a column per option", "one list"])
def test_a_null_is_no_option_and_never_the_right_one(listed):
    def items(*rows):
        options = [{"options": row} if listed else dict(zip("abc", row, strict=True)) for row, _ in rows]
        frame = pl.DataFrame([{"instruction": "q", "key": key, **columns} for columns, (_, key) in zip(options, rows, strict=True)])
        entry = benchmark(columns={"choices": "options" if listed else ["a", "b", "c"], "label": "key"})
        return [(item["choices"], item["label"], item["answer"]) for item in benchmark_items(frame, entry, "benchmarks.x")]

    found = items((["Rome", "Oslo", None], "B"), (["Rome", None, "Bern"], "C"), (["Rome", "Oslo", "Bern"], "A"))
    assert found == [(["Rome", "Oslo"], 1, "Oslo"), (["Rome", "Bern"], 1, "Bern"), (["Rome", "Oslo", "Bern"], 0, "Rome")]
    with pytest.raises(AtlasError, match=r"benchmarks\.x: row 2 has the label 'C', and that option is null"):
        items((["Rome", "Oslo", "Bern"], "A"), (["Rome", "Oslo", None], "C"))


def test_options_that_are_numbers_are_as_the_file_has_them(tmp_path, run_script):
    lines = ['{"q": "2+2?", "key": "B", "a": 3, "b": 4}', '{"q": "1/2?", "key": "A", "a": 0.50, "b": 1}']
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    entry, output = benchmark(columns={"instruction": "q", "choices": ["a", "b"], "label": "key"}), tmp_path / "quiz/test.jsonl"
    run_script(
        fetch_benchmark, name="quiz", entry=entry.model_dump_json(exclude_defaults=True), path=tmp_path / "items.jsonl", output=output
    )
    items = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(item["choices"], item["answer"]) for item in items] == [(["3", "4"], "4"), (["0.50", "1"], "0.50")]
    assert set(items[0]) == {"q", "key", "a", "b", "instruction", "answer", "choices", "label"}


@pytest.mark.parametrize("options", [["xy"], [{"text": ["x", "y"], "label": ["A", "B"]}]], ids=["text", "struct"])
def test_choices_that_are_no_list_are_an_error_and_not_letters_or_keys(options):
    frame = pl.DataFrame({"instruction": ["p"], "options": options, "label": [1]})
    with pytest.raises(AtlasError, match=r"benchmarks\.x: column 'options' holds .*, not lists"):
        benchmark_items(frame, benchmark(columns={"choices": "options"}), "benchmarks.x")


def test_missing_choice_columns_are_an_error_that_lists_the_columns():
    frame = pl.DataFrame({"instruction": ["p"], "first": ["x"], "label": [0]})
    with pytest.raises(AtlasError, match=r"benchmarks\.x: no column 'second'; the columns are instruction, first, label"):
        benchmark_items(frame, benchmark(columns={"choices": ["first", "second"]}), "benchmarks.x")


@pytest.mark.parametrize("absent", ["instruction", "response"])
def test_an_item_without_question_or_answer_is_an_error(absent):
    frame = pairs(("p", "x"), ("q", "y")).with_columns(pl.when(pl.int_range(2) == 1).then(None).otherwise(absent).alias(absent))
    with pytest.raises(AtlasError, match=r"benchmarks\.x: 1 items lack instruction or answer, the first is row 2"):
        benchmark_items(frame, benchmark(), "benchmarks.x")


def test_items_are_a_seeded_sample_in_the_order_of_the_source():
    def instructions(seed, items):
        return [int(item["instruction"].split()[1]) for item in benchmark_items(numbered(50), benchmark(items=items, seed=seed), "x")]

    assert instructions(0, None) == list(range(50))
    assert instructions(0, 10) == sorted(instructions(0, 10)) == instructions(0, 10)
    assert len(set(instructions(0, 10))) == 10
    assert instructions(0, 10) != instructions(1, 10)


def test_more_items_than_there_are_is_an_error():
    with pytest.raises(AtlasError, match=r"benchmarks\.x: `items` is 6, the source has 5 rows; lower it"):
        benchmark_items(numbered(5), benchmark(items=6), "benchmarks.x")


def test_benchmark_items_are_written_as_json_lines(tmp_path, run_script):
    (tmp_path / "items.jsonl").write_text(LINES, encoding="utf-8")
    output = tmp_path / "quiz/test.jsonl"
    run_script(
        fetch_benchmark, name="quiz", entry=benchmark().model_dump_json(exclude_defaults=True), path=tmp_path / "items.jsonl", output=output
    )
    items = [json.loads(line) for line in output.read_text(encoding="utf-8").split("\n") if line]
    assert [(item["instruction"], item["answer"]) for item in items] == [(row["instruction"], row["response"]) for row in ROWS]
    assert json.loads((output.parent / "manifest.json").read_text())["rows"] == 2


def test_items_that_the_task_file_cannot_ask_are_not_written(tmp_path, run_script):
    (tmp_path / "items.jsonl").write_text(LINES)
    entry = benchmark().model_copy(update={"task": str(ROOT / "config/benchmarks/boolq.yaml")})
    with pytest.raises(AtlasError, match=r"boolq\.yaml: doc_to_text: .*'passage' is undefined"):
        words = {"name": "quiz", "entry": entry.model_dump_json(), "path": tmp_path / "items.jsonl", "output": tmp_path / "test.jsonl"}
        run_script(fetch_benchmark, **words)
    assert not (tmp_path / "test.jsonl").exists()
