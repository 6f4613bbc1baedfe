"""An archive holds what it says, and can be read by anyone's tar."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from sft_atlas.core import snapshot
from sft_atlas.core.errors import AtlasError
from sft_atlas.report import pack

WEIGHTS = {
    "models/m/weights/model.safetensors",
    "encoder/weights/model.safetensors",
    "runs/m/d/full/epoch-2/weights/model.safetensors",
    "runs/m/d/full/epoch-2/weights/.snakemake_timestamp",
}
REST = {
    "findings.md",
    "models/m/model.json",
    "data/weights/24/train.parquet",  # a dataset of that name
    "runs/m/d/full/train.json",
    "state/judgements/m/d/full/epoch-2/judged.jsonl",
    "logs/train/m.log",
}
LEFT_OUT = {"state/m/d/full/trainer/model.safetensors", "tables/.scores.12.part"}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A finished study, whose tables are on another disk."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "results/s").mkdir(parents=True)
    (tmp_path / "results/s/tables").symlink_to(tmp_path / "disk")
    for name in {*WEIGHTS, *REST, *LEFT_OUT, "tables/scores.parquet"}:
        file = tmp_path / "results/s" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
        os.utime(file, ns=(1_500_000_000, 1_500_000_000))
    snapshot.save(Path("results/s"))
    return Path("results/s")


@pytest.mark.parametrize("weights", [True, False])
def test_an_archive_is_unpacked_by_tar_into_a_clone(results, run_script, tmp_path, capsys, weights):
    options = {"weights": ()} if weights else {}
    run_script(
        pack, results=results, study='{"study": "s", "seed": 1}', output=tmp_path / "s.tar", local=("my/model", "/data/x.jsonl"), **options
    )
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "s.tar", "-C", other], check=True)
    unpacked = {str(path.relative_to(other / results)) for path in other.rglob("*") if path.is_file()}
    assert unpacked == REST | {"tables/scores.parquet", "study.yaml", snapshot.NAME} | (WEIGHTS if weights else set())
    assert (other / results / "tables/scores.parquet").read_text() == "tables/scores.parquet"
    assert yaml.safe_load((other / results / "study.yaml").read_text()) == {"study": "s", "seed": 1}
    with tarfile.open(tmp_path / "s.tar") as tar:
        assert tar.next().name == f"results/s/{snapshot.NAME}"
    os.chdir(other)
    assert snapshot.restore(results).differing == []
    assert os.stat(results / "findings.md").st_mtime_ns == 1_500_000_000


def test_the_job_says_what_the_archive_holds_and_what_it_does_not(results, run_script, capsys, tmp_path):
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "print_to_terminal", shown.append)
        run_script(pack, results=results, study='{"study": "s"}', output=Path("results/s.tar"), local=("my/model",))
    [text] = shown
    assert "runs               1 files" in text and "models             1 files" in text
    assert "Not in it: weights, 0.0 MB." in text and "(a new benchmark, cards) trains again" in text
    assert "Not in it: state (unfinished runs)" in text and "must be at the same paths: my/model." in text
    assert "tar -xf s.tar, then snakemake --configfile results/s/study.yaml" in text


def test_there_is_nothing_to_pack_before_the_first_run(run_script, tmp_path):
    with pytest.raises(AtlasError, match="has no results yet; run snakemake first"):
        run_script(pack, results=tmp_path / "s", study="{}", output=tmp_path / "s.tar")
