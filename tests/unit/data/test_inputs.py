"""What decides whether local data are read again: their content, not their time stamps."""

import os

import pytest

from sft_atlas.data import inputs
from sft_atlas.study import study as studies
from sft_atlas.study.paths import Paths


@pytest.fixture
def content():
    study = {
        "study": "s",
        "models": {"m": {"pretrain": {"architecture": "llama", "mixture": {"prose": 1}}}},
        "datasets": {"a": {"path": "a.jsonl"}},
        "benchmarks": {"t": {"task": "config/benchmarks/generate.yaml", "tasks": {"prose": 1}, "size": 4}},
        "suites": {"one": {"benchmarks": ["t"]}},
        "recipes": {"full": {"method": "full", "rows": 4, "epochs": 1, "learning_rate": 1e-3, "batch_size": 2}},
        "blocks": {"single": {"models": "*", "datasets": "*", "recipes": ["full"]}},
    }
    study = studies.from_config(study, "study")
    # As in two calls: a call reads a file once.
    return lambda path: inputs.DataInputs(study, Paths("results/s")).content_of(str(path))


def test_an_older_file_that_takes_the_place_is_other_content_and_a_new_time_stamp_is_not(tmp_path, content):
    file = tmp_path / "a.jsonl"
    file.write_text("one")
    before = content(file)
    os.utime(file, (1, 1))
    assert content(file) == before
    file.write_text("two")
    os.utime(file, (1, 1))
    assert content(file) != before


def test_a_file_rewritten_inside_a_folder_is_other_content_and_a_readme_is_not(tmp_path, content):
    (tmp_path / "model/inner").mkdir(parents=True)
    (tmp_path / "model/inner/config.json").write_text("{}")
    before = content(tmp_path / "model")
    (tmp_path / "model/README.md").write_text("About the model")
    assert content(tmp_path / "model") == before
    (tmp_path / "model/inner/config.json").write_text("[]")
    assert content(tmp_path / "model") != before
