"""Training sets and benchmarks that read the same rows are named, also if the samples differ; those that do not are not."""

import json
import re

import pytest

from helpers.plan_study import DEVICE, STUDY
from sft_atlas.plan.forecast import Forecast
from sft_atlas.plan.plan import page
from sft_atlas.study import study as studies
from sft_atlas.study.shared_items import warnings

HUB = {"hub": "org/set", "revision": "a" * 40}


@pytest.fixture
def said(tmp_path, monkeypatch):
    """A function from datasets and benchmarks to the warnings of a study of them."""
    monkeypatch.chdir(tmp_path)

    def say(datasets, benchmarks, results=tmp_path / "none"):
        benchmarks = {name: {"task": "task.yaml"} | entry for name, entry in benchmarks.items()}
        config = STUDY | {"datasets": datasets, "benchmarks": benchmarks, "suites": {"short": {"benchmarks": list(benchmarks)}}}
        config |= {"blocks": {"single": {"models": "*", "datasets": "*", "recipes": ["full"]}}, "plan": {"parallel": 1}}
        return warnings(studies.from_config(config, "x"), results)

    return say


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.jsonl").write_text(text)


PAIRS = {
    "same file": ({"path": "a.jsonl"}, {"path": "./sub/../a.jsonl"}, "the same file|files with the same content"),
    "copy": ({"path": "a.jsonl"}, {"path": "copy.jsonl"}, r"files with the same content \(a.jsonl, copy.jsonl\)"),
    "link": ({"path": "a.jsonl"}, {"path": "link.jsonl"}, "files with the same content"),
    "other samples": ({"path": "a.jsonl", "seed": 1}, {"path": "a.jsonl", "items": 3, "seed": 2}, r"the same file \(a.jsonl\)"),
    "slices that meet": ({"path": "a.jsonl", "split": "train[:20]"}, {"path": "a.jsonl", "split": "test[10:]"}, "the same file"),
    "slices apart": ({"path": "a.jsonl", "split": "train[:10]"}, {"path": "a.jsonl", "split": "train[10:20]"}, None),
    "other content": ({"path": "a.jsonl"}, {"path": "b.jsonl"}, None),
    "filters apart": ({"path": "a.jsonl", "filter": {"k": ["x"]}}, {"path": "a.jsonl", "filter": {"k": ["y"]}}, None),
    "filters that meet": ({"path": "a.jsonl", "filter": {"k": ["x"]}}, {"path": "a.jsonl", "filter": {"j": ["y"]}}, "the same file"),
    "hub": (HUB | {"split": "test"}, HUB | {"hub": "Org/set", "revision": "b" * 40, "split": "test"}, r"the same rows of the hub \(org/set, test\)"),
    "hub, parts of a split": (HUB | {"split": "train+test"}, HUB | {"split": "test[:10%]"}, "the same rows of the hub"),
    "hub, other split": (HUB | {"split": "train"}, HUB | {"split": "test"}, None),
    "hub, other configuration": (HUB | {"subset": "en"}, HUB | {"subset": "zh"}, None),
    "hub, other files": (HUB | {"files": ["a.json"]}, HUB | {"files": ["b.json"]}, None),
    "generated": ({"tasks": {"chain_sum": 1}, "size": 50}, {"tasks": {"chain_sum": 1}, "size": 50}, None),
}  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_a_training_set_and_a_benchmark_of_the_same_rows(said, tmp_path, pair):
    dataset, benchmark, expected = PAIRS[pair]
    (tmp_path / "sub").mkdir()
    write(tmp_path, a='{"x": 1}\n', b='{"x": 2}\n', copy='{"x": 1}\n')
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    lines = said({"set": dataset}, {"quiz": benchmark})
    if expected is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith("datasets.set and benchmarks.quiz read ")
        assert re.search(expected, line), line
        assert line.endswith("even if the samples drawn differ; name other files or splits")


def test_benchmarks_of_the_same_rows_are_named_singly_and_those_that_are_asked_differently_together(said, tmp_path):
    write(tmp_path, a='{"x": 1}\n', b='{"x": 2}\n')
    path = {"path": "a.jsonl"}
    lines = said(
        {"set": {"path": "b.jsonl"}},
        {"one": path | {"items": 5}, "two": path | {"items": 5, "seed": 3}, "other": path | {"task": "other.yaml"}},
    )
    assert lines == [
        "benchmarks.one and benchmarks.two read the same file (a.jsonl): a mean over benchmarks counts the items more than once",
        "benchmarks that read the same rows and ask them in different ways (one, other, two): a mean over benchmarks counts the items more than once",
    ]
    tasks = {"tasks": {"chain_sum": 1}, "size": 50}
    assert said({"set": {"path": "b.jsonl"}}, {"one": tasks, "two": tasks | {"seed": 1}}) == []
    assert "read the same generated items" in said({"set": {"path": "b.jsonl"}}, {"one": tasks, "two": tasks | {"size": 20}})[0]


def test_benchmarks_whose_prepared_items_are_the_same_are_named(said, tmp_path):
    write(tmp_path, a='{"x": 1}\n', b='{"x": 2}\n', c='{"x": 3}\n')
    (tmp_path / "tables").mkdir()
    found = [["one", "two", 7, 9], ["one", "gone", 3, 9]]
    (tmp_path / "tables/overlap.json").write_text(json.dumps({"benchmarks_with_shared_items": found}))
    lines = said({"set": {"path": "c.jsonl"}}, {"one": {"path": "a.jsonl"}, "two": {"path": "b.jsonl"}}, tmp_path)
    assert lines == ["benchmarks.one and benchmarks.two share 7 of 9 items: a mean over benchmarks counts the items more than once"]
    assert (
        said({"set": {"path": "c.jsonl"}}, {"one": {"path": "a.jsonl"}, "two": {"path": "a.jsonl"}}, tmp_path)[0].count("the same file")
        == 1
    )


def test_the_plan_lists_the_warnings(tmp_path):
    config = json.loads(json.dumps(STUDY))
    config["datasets"]["red"] = {"path": "quiz.jsonl"}
    text = page(Forecast(studies.from_config(config, "small.yaml"), DEVICE, tmp_path))
    assert (
        "- datasets.red and benchmarks.quiz read the same file (quiz.jsonl): the model is trained on rows of the benchmark's source" in text
    )
