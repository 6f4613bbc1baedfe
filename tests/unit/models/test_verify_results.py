"""Every damaged file of a study's results is named, with what to do; whole results are called whole."""

import json

import polars as pl
import pytest

from helpers.damage import cut, empty, invert
from sft_atlas.core import snapshot
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import sha256, write_json, write_table
from sft_atlas.evaluate import import_scores
from sft_atlas.models import verify_results


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Results with a file of each kind, as the last run left them."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "results/toy"
    weights = root / "runs/ant/red/lora/epoch-1/weights"
    weights.mkdir(parents=True)
    (weights / "adapter_config.json").write_text('{"r": 8}')
    write_json(
        root / "runs/ant/red/lora/train.json",
        {"configuration_sha256": {"1": {"adapter_config.json": sha256(weights / "adapter_config.json")}}},
    )
    write_table(root / "tables/gains.parquet", pl.DataFrame({"x": range(2000)}))
    items = root / "benchmarks/quiz/test.jsonl"
    items.parent.mkdir(parents=True)
    items.write_text(json.dumps({"instruction": "a", "answer": "b"}) + "\n")
    write_json(items.with_name("manifest.json"), {"file": items.name, "sha256": sha256(items)})
    (root / "findings.md").write_text("# Findings\n" * 400)
    snapshot.save(root)
    return root


def test_whole_results_are_whole(results, run_script, capfd):
    assert verify_results.verify(results) == (6, [])
    run_script(verify_results, results=results)


@pytest.mark.parametrize("harm", [cut, empty, invert])
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("runs/ant/red/lora/train.json", "delete it and run again"),
        ("runs/ant/red/lora/epoch-1/weights/adapter_config.json", "train.json and run again: the run is trained again"),
        ("tables/gains.parquet", "delete it and run again"),
        ("benchmarks/quiz/test.jsonl", "delete it and run again"),
        ("findings.md", "delete it and run again"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_its_remedy(results, run_script, harm, name, remedy):
    harm(results / name)
    problems = verify_results.verify(results)[1]
    assert any(str(results / name) in problem and remedy in problem for problem in problems)
    with pytest.raises(AtlasError, match=r"of 6 files of .*toy are damaged; do what the lines above say"):
        run_script(verify_results, results=results)


def test_a_folder_that_is_not_there_is_said(run_script, tmp_path):
    with pytest.raises(AtlasError, match="there are no results in"):
        run_script(verify_results, results=tmp_path / "nope")


def test_a_file_of_imported_scores_that_has_changed_is_named(results, run_script):
    source = results.parent / "theirs.csv"
    source.write_text("name,quiz:acc:0\nx,0.5\n")
    stated = {"theirs": {"format": "csv", "files": [str(source)]}}
    run_script(import_scores, imports=json.dumps(stated), output=results / "imported")
    count, problems = verify_results.verify(results)
    assert count == 9 and problems == []
    source.write_text("name,quiz:acc:0\nx,0.75\n")
    (problem,) = verify_results.verify(results)[1]
    assert "theirs.csv has changed since its scores were imported; run `snakemake import_scores`" in problem
    source.unlink()  # such as where the results were copied to another machine
    assert verify_results.verify(results)[1] == []
