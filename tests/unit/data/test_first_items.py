"""Local benchmarks that do not fit their task files or columns are found while the study is read."""

import json
import subprocess
import sys

import polars as pl
import pytest
from datasets import Dataset as HubDataset
from datasets import DatasetDict

from helpers.plan_study import STUDY
from sft_atlas.core.provenance import ROOT
from sft_atlas.data.first_items import COUNT, first_items, problems
from sft_atlas.study import study as studies
from sft_atlas.study.schema import Benchmark

ROWS = [{"question": f"q{i}", "options": ["x", "y"], "key": i % 2} for i in range(8)]
COLUMNS = {"instruction": "question", "choices": "options", "label": "key"}
CHOICE = str(ROOT / "config/benchmarks/choice.yaml")
BOOLQ = str(ROOT / "config/benchmarks/boolq.yaml")


@pytest.fixture(params=["jsonl", "parquet"])
def path(request, tmp_path):
    if request.param == "parquet":
        pl.DataFrame(ROWS).write_parquet(tmp_path / "quiz.parquet")
    else:
        (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path / f"quiz.{request.param}"


def found(path, **entry):
    benchmarks = {"quiz": {"path": str(path), "task": CHOICE, "columns": COLUMNS} | entry}
    return problems(studies.from_config(STUDY | {"benchmarks": benchmarks}, "x"))


def test_a_benchmark_that_fits_has_no_problem_and_its_first_items_are_those_of_its_job(path):
    assert found(path) == []
    items = first_items(Benchmark(path=str(path), task=CHOICE, columns=COLUMNS, items=3), path, "benchmarks.quiz")
    assert [item["instruction"] for item in items] == [f"q{i}" for i in range(COUNT)] and items[1]["answer"] == "y"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"task": BOOLQ}, f"{BOOLQ}: doc_to_text: "),
        ({"columns": COLUMNS | {"instruction": "qestion"}}, "benchmarks.quiz: no column 'qestion'; the columns are question, options, key"),
        ({"columns": COLUMNS | {"choices": "options.text"}}, "benchmarks.quiz: no column 'options.text': 'options' holds List(String), not objects"),
        ({"columns": COLUMNS | {"label": "question"}}, "benchmarks.quiz: row 1 has 2 choices and the label 'q0'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(path, entry, problem):
    (line,) = found(path, **entry)
    assert line.startswith(problem) and "\n" not in line


def test_what_the_first_rows_cannot_tell_is_no_problem(tmp_path):
    path = tmp_path / "quiz.jsonl"
    rows = [{"question": "q", "options": ["x", "y"], "key": 1}] * 9 + [{"question": "q", "options": ["x", "y"], "key": 0}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert found(path) == [], "0 occurs later, so that numbers begin at 0"
    path.write_text('{"question": null, "kind": "a"}\n{"question": "q", "options": ["x"], "key": 0, "kind": "b"}\n')
    assert found(path, filter={"kind": ["b"]}) == [] and found(path, split="train[1:]") == []
    (tmp_path / "quiz.csv").write_text("a,b\n1,2\n")
    assert found(tmp_path / "quiz.csv") == [], "read by its job"


def test_a_parquet_file_that_is_cut_is_named(tmp_path):
    (tmp_path / "quiz.parquet").write_bytes(b"PAR1 and no more")
    (line,) = found(tmp_path / "quiz.parquet")
    assert line.startswith("benchmarks.quiz.path: ") and "is not readable as Parquet" in line


def test_a_study_without_local_benchmarks_is_read_without_polars():
    code = "import sys; from sft_atlas.data import first_items; sys.exit('polars' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "workflow_scripts")


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path):
    DatasetDict({"dev": HubDataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    (line,) = found(tmp_path / "saved")
    assert line == f"benchmarks.quiz.split: {tmp_path / 'saved'} has no split 'train'; it has dev"
    assert found(tmp_path / "saved", split="dev[:3]") == []
