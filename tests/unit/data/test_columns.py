"""Columns inside other columns and constant columns, from each kind of file, without a flattener."""

import json

import polars as pl
import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.data.fetch_benchmark import benchmark_items
from sft_atlas.data.records import read_rows, to_pairs
from sft_atlas.study.schema import Benchmark, Dataset

ARC = [
    {"question": "Sky?", "choices": {"text": ["red", "blue"], "label": ["A", "B"]}, "answerKey": "B"},
    {"question": "Sum?", "choices": {"text": ["3", "0.50", "4"], "label": ["1", "2", "3"]}, "answerKey": "2"},
]
ARC_COLUMNS = {"instruction": "question", "choices": "choices.text", "choice_labels": "choices.label", "label": "answerKey"}


def write(folder, rows, ending):
    path = folder / f"items.{ending}"
    if ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif ending == "json":
        path.write_text(json.dumps(rows))
    else:
        pl.DataFrame(rows).write_parquet(path)
    return path


def items(path, columns, **settings):
    entry = Benchmark(path=str(path), task="task.yaml", columns=columns, **settings)
    return benchmark_items(read_rows(entry, path, "benchmark"), entry, "benchmarks.x")


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_options_and_their_labels_are_read_from_inside_a_column(tmp_path, ending):
    found = items(write(tmp_path, ARC, ending), ARC_COLUMNS)
    assert [item["choices"] for item in found] == [["red", "blue"], ["3", "0.50", "4"]]
    assert [(item["label"], item["answer"]) for item in found] == [(1, "blue"), (1, "0.50")]
    assert found[0].keys() == {"question", "choices", "answerKey", "label", "instruction", "answer"}


def test_options_that_are_numbers_keep_their_spelling(tmp_path):
    rows = [{"q": "half?", "c": {"text": [3, 0.5]}, "key": 1}, {"q": "ten?", "c": {"text": [10, 1.25]}, "key": 0}]
    found = items(write(tmp_path, rows, "jsonl"), {"instruction": "q", "choices": "c.text", "label": "key"})
    assert [item["choices"] for item in found] == [["3", "0.5"], ["10", "1.25"]] and found[1]["answer"] == "10"


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_field_of_each_object_of_a_list_and_a_position_in_a_list(tmp_path, ending):
    rows = [
        {"turns": [{"say": "a?"}, {"say": "b?"}], "answers": {"text": ["x", "y"]}},
        {"turns": [{"say": "c?"}], "answers": {"text": ["z"]}},
    ]
    path = write(tmp_path, rows, ending)
    found = items(path, {"instruction": "turns.0.say", "response": "answers.text"})
    assert [(item["instruction"], item["answer"], item["answers"]) for item in found] == [("a?", "x", ["x", "y"]), ("c?", "z", ["z"])]
    assert items(path, {"instruction": "turns.say", "response": "answers.text"})[0]["turns"] == ["a?", "b?"]


def test_constants_stand_for_columns_that_the_source_lacks(tmp_path):
    rows = [{"question": "q", "mc1": {"choices": ["right", "wrong"]}}, {"question": "r", "mc1": {"choices": ["true", "false", "no"]}}]
    path = write(tmp_path, rows, "jsonl")
    found = items(path, {"instruction": "question", "choices": "mc1.choices", "constants": {"label": 0}})
    assert [(item["label"], item["answer"]) for item in found] == [(0, "right"), (0, "true")]
    rows = [{"text": "Good film.", "label": 1}, {"text": "Bad film.", "label": 2}]
    path = write(tmp_path, rows, "jsonl")
    columns = {
        "instruction": "ask",
        "input": "text",
        "choices": "options",
        "label_base": 1,
        "constants": {"ask": "Is it positive?", "options": ["yes", "no"]},
    }
    assert [(item["instruction"], item["answer"]) for item in items(path, columns)] == [
        ("Is it positive?\nGood film.", "yes"),
        ("Is it positive?\nBad film.", "no"),
    ]


def test_a_training_set_has_nested_and_constant_columns_too(tmp_path):
    path = write(tmp_path, [{"data": {"in": "a", "out": "b", "lang": "en"}}, {"data": {"in": "c", "out": "d", "lang": "zh"}}], "jsonl")
    columns = {"instruction": "task", "input": "data.in", "response": "data.out", "constants": {"task": "Translate."}}
    entry = Dataset(path=str(path), columns=columns, filter={"data.lang": ["zh"]})
    rows = to_pairs(read_rows(entry, path, "train"), entry.columns, "datasets.x")
    assert rows.select("instruction", "response").rows() == [("Translate.\nc", "d")]


def test_a_column_with_a_dot_in_its_name_is_that_column(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("a.b,a,response\nx,y,z\n")
    assert items(path, {"instruction": "a.b"})[0]["instruction"] == "x"


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"choices": "choices.txt"}, r"no column 'choices\.txt': 'choices' has text, label; correct `columns`"),
        ({"choices": "question.text"}, r"no column 'question\.text': 'question' holds String, not objects"),
        ({"choices": "options.text"}, r"no column 'options\.text'; the columns are question, choices, answerKey"),
        ({"constants": {"question": "x"}}, "columns.constants has 'question', which is a column of the source"),
        ({"label": "question"}, r"row 1 has 2 choices with the labels \[\"A\", \"B\"\]; `label` must be one of them, not 'Sky\?'"),
    ],
)  # fmt: skip
def test_a_column_that_is_not_there_is_an_error_with_those_that_are(tmp_path, columns, problem):
    with pytest.raises(AtlasError, match=problem):
        items(write(tmp_path, ARC, "parquet"), ARC_COLUMNS | columns)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [({"split": "tset"}, 'Unknown split "tset"'), ({"split": "train", "subset": "en"}, "BuilderConfig 'en' not found")],
)
def test_a_split_or_configuration_that_the_hub_lacks_is_one_line(tmp_path, entry, problem):
    write(tmp_path, ARC, "parquet")  # datasets reads a folder as it reads a repository
    with pytest.raises(AtlasError, match=problem) as caught:
        named = Benchmark(hub="a/b", revision="a" * 40, task="task.yaml", columns=ARC_COLUMNS, **entry)
        read_rows(named.model_copy(update={"hub": str(tmp_path)}), None, "benchmark")
    assert "correct `split`, `subset` or `files`" in str(caught.value) and "\n" not in str(caught.value)
