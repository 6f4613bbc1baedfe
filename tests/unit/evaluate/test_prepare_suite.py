"""The file of a suite: what stands in it, and that it changes with everything behind it."""

import json

import pytest

from sft_atlas.core.files import sha256
from sft_atlas.evaluate import prepare_suite
from sft_atlas.evaluate.tasks import BenchmarkFiles, SuiteFile
from sft_atlas.study import task_files


@pytest.fixture
def prepare(tmp_path, run_script):
    """Write the suite of two benchmarks, one with examples of the same subject; gives its path."""
    (tmp_path / "common.yaml").write_text("output_type: generate_until\ndoc_to_text: instruction\ndoc_to_target: answer\n")
    (tmp_path / "task.yaml").write_text("include: common.yaml\ntask: one\n")
    for name in ("items", "shots"):
        (tmp_path / f"{name}.jsonl").write_text('{"instruction": "?", "answer": "!", "subject": "x"}\n')

    def call(by="subject", **more):
        task_files._read.cache_clear()
        benchmarks = [(name, tmp_path / "task.yaml", tmp_path / "items.jsonl") for name in ("plain", "shown")]
        shots = ("shown", tmp_path / "shots.jsonl", by)
        run_script(prepare_suite, name="both", benchmark=benchmarks, shots=[shots], output=tmp_path / "both.json", **more)
        return tmp_path / "both.json"

    return call


def test_a_suite_is_read_as_it_was_written(prepare, tmp_path):
    task, items = tmp_path / "task.yaml", tmp_path / "items.jsonl"
    shown = BenchmarkFiles("shown", task, items, tmp_path / "shots.jsonl", "subject")
    assert SuiteFile.read(prepare()) == SuiteFile("both", [BenchmarkFiles("plain", task, items), shown])
    assert SuiteFile.read(prepare(by="-")).benchmarks[1].by is None
    assert json.loads(prepare().read_text())["sha256"] == {str(path): sha256(path) for path in tmp_path.glob("*.*l")}


def test_a_longest_answer_is_in_the_file_of_a_suite_only_where_it_is_stated(prepare):
    assert "max_new_tokens" not in prepare().read_text()
    assert [file.max_new_tokens for file in SuiteFile.read(prepare(max_new_tokens=[("shown", 9)])).benchmarks] == [None, 9]


def test_the_file_changes_with_each_file_behind_it(prepare, tmp_path):
    """An edited include changes no name and no task file, yet what is scored; Snakemake compares the content of small inputs."""
    seen = {prepare().read_text()}
    for changed in sorted(tmp_path.glob("*.*l")):
        changed.write_text(changed.read_text() + " \n")
        seen.add(prepare().read_text())
    assert len(seen) == 5
