"""Results get back the time stamps and records that a copy loses, and nothing that was changed looks finished."""

import base64
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from sft_atlas.core import snakemake_records, snapshot
from sft_atlas.core.job import PACKAGE

ROOT = Path("results/s")
MADE = {"data.parquet": 10, "runs/a/epoch-1/weights/model.safetensors": 20, "runs/a/epoch-1/weights/.snakemake_timestamp": 21, "table": 30}
RECORDS = {
    "results/s/table": {"input": ["models/mine", "results/s/data.parquet"], "input_checksums": {"results/s/data.parquet": "sha256:1"}, "params": ["1"]},
    "results/s/deleted": {"input": [], "params": ["'results/s/state'"]},
}  # fmt: skip


@pytest.fixture
def original(tmp_path, monkeypatch):
    """A finished study in a clone, with a base model of the user's in the clone; returns the clone, which is the current folder."""
    clone = tmp_path / "original"
    for name, modified in MADE.items():
        file = clone / ROOT / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"content of {name}" * (not name.endswith("timestamp")))
        os.utime(file, ns=(modified, modified))
    (clone / "models/mine").mkdir(parents=True)
    (clone / "models/mine/config.json").write_text("{}")
    os.utime(clone / "models/mine", ns=(5, 5))
    monkeypatch.chdir(clone)
    snapshot.begin(ROOT)
    snakemake_records.write(RECORDS)
    snapshot.end(ROOT, changed=True)
    return clone


def copied(original, monkeypatch, *parts):
    """Another clone with copies of some parts, and new time stamps; becomes the current folder."""
    clone = original.parent / "copy"
    for part in parts or (".snakemake", "results", "models"):
        shutil.copytree(original / part, clone / part, copy_function=shutil.copyfile)
        os.utime(clone / part)
    for path in clone.rglob("*"):
        os.utime(path)
    monkeypatch.chdir(clone)
    return clone


def times():
    return {name: os.stat(ROOT / name).st_mtime_ns for name in MADE if (ROOT / name).exists()}


def test_nothing_is_done_where_the_results_are_where_they_were(original):
    assert snapshot.restore(ROOT) is None


def test_a_copied_clone_gets_its_time_stamps_back_once(original, monkeypatch):
    copied(original, monkeypatch)
    restored = snapshot.restore(ROOT)
    assert times() == MADE and os.stat("models/mine").st_mtime_ns == 5
    assert restored.message("results/s") == "results/s was copied or moved here: restored the time stamps of 5 files"
    assert snapshot.restore(ROOT) is None


def test_a_copy_of_a_copy_works_too(original, monkeypatch):
    clone = copied(original, monkeypatch)
    snapshot.restore(ROOT)
    clone.rename(clone.parent / "between")
    copied(clone.parent / "between", monkeypatch)
    snapshot.restore(ROOT)
    assert times() == MADE and snakemake_records.read() == RECORDS


def test_a_moved_clone_needs_nothing_and_says_nothing(original, monkeypatch):
    original.rename(original.parent / "moved")
    monkeypatch.chdir(original.parent / "moved")
    assert snapshot.restore(ROOT).message("results/s") == ""
    assert times() == MADE and snakemake_records.read() == RECORDS


def test_results_alone_bring_their_records_and_replace_those_of_former_results(original, monkeypatch):
    clone = copied(original, monkeypatch, "results")
    snakemake_records.write({"results/s/table": {"params": ["2"]}, "results/s/former": {}, "results/t/table": {"params": []}})
    message = snapshot.restore(ROOT).message("results/s")
    assert "the time stamps of 4 files and 2 records of Snakemake" in message
    assert times() == MADE and snakemake_records.read() == RECORDS | {"results/t/table": {"params": []}}
    shutil.rmtree(clone / ".snakemake")  # a clone made anew around the same results
    snapshot.restore(ROOT)
    assert snakemake_records.read() == RECORDS


def test_other_results_at_the_same_path_are_noticed_also_where_the_disk_reuses_the_inode(original):
    saved = original.parent / "saved"
    shutil.copytree(ROOT, saved, copy_function=shutil.copyfile)
    snakemake_records.write({"results/s/table": {"params": ["another run"]}})
    (ROOT / "table").write_text("of another run")
    snapshot.save(ROOT)
    shutil.rmtree(ROOT)
    shutil.copytree(saved, ROOT, copy_function=shutil.copyfile)
    snapshot.restore(ROOT)
    assert times() == MADE and snakemake_records.read() == RECORDS


def with_environment(envs):
    """A record of a job in a conda environment, hashed by Snakemake."""
    from snakemake.deployment.conda import Env

    environment = Env(MagicMock(), envs_dir=envs)
    environment._content, environment._content_deploy, environment._content_pin = b"dependencies: [python]", b"", b""
    stack = hashlib.md5(environment.hash.encode()).hexdigest()
    return {"conda_env": base64.b64encode(environment.content).decode(), "software_stack_hash": stack}


@pytest.mark.parametrize("parts", [(".snakemake", "results"), ("results",)], ids=["the clone", "results alone"])
def test_conda_environments_of_the_new_place_are_no_reason_to_repeat_a_job(original, monkeypatch, parts):
    another = {"conda_env": with_environment(snapshot.ENVS)["conda_env"], "software_stack_hash": "of another environment"}
    snakemake_records.write({"results/s/table": with_environment(snapshot.ENVS), "results/s/deleted": another})
    snapshot.save(ROOT)
    copied(original, monkeypatch, *parts)
    expected = with_environment(snapshot.ENVS)
    snapshot.restore(ROOT)
    assert snakemake_records.read() == {"results/s/table": expected, "results/s/deleted": another}
    assert expected != with_environment(original / snapshot.ENVS)


def test_results_under_another_name_have_records_of_that_name(original, monkeypatch):
    copied(original, monkeypatch, "results")
    ROOT.rename("results/new")
    snapshot.restore(Path("results/new"))
    records = snakemake_records.read()
    assert set(records) == {"results/new/table", "results/new/deleted"} and records["results/new/deleted"]["params"] == [
        "'results/new/state'"
    ]


@pytest.mark.parametrize("content", ["other content", "C" + "content of data.parquet"[1:]], ids=["another size", "the same size"])
@pytest.mark.parametrize("edited", ["before the copy", "after it"])
def test_a_file_that_was_changed_counts_as_new(original, monkeypatch, content, edited):
    if edited == "before the copy":
        (ROOT / "data.parquet").write_text(content)
    copied(original, monkeypatch)
    (ROOT / "data.parquet").write_text(content)
    assert "1 files differ from the last run and count as new (results/s/data.parquet)" in snapshot.restore(ROOT).message("results/s")
    assert times()["data.parquet"] > time.time_ns() - 60e9 and times() | {"data.parquet": 10} == MADE
    assert os.stat("models/mine").st_mtime_ns == 5


def test_a_folder_counts_as_new_where_a_file_in_it_was_changed(original, monkeypatch):
    copied(original, monkeypatch)
    Path("models/mine/config.json").write_text("[]")
    (ROOT / "runs/a/epoch-1/weights/model.safetensors").write_text("other")
    snapshot.restore(ROOT)
    assert times()["runs/a/epoch-1/weights/.snakemake_timestamp"] > 21 and os.stat("models/mine").st_mtime_ns > 5


def test_large_files_are_compared_by_blocks(original, monkeypatch):
    monkeypatch.setattr(snapshot, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(snapshot, "BLOCK_BYTES", 8)
    large = bytearray(5000)
    (ROOT / "large").write_bytes(large)
    os.utime(ROOT / "large", ns=(7, 7))
    snapshot.save(ROOT)
    copied(original, monkeypatch)
    snapshot.restore(ROOT)
    assert os.stat(ROOT / "large").st_mtime_ns == 7
    large[-1] = 1
    (ROOT / "large").write_bytes(large)
    Path(snapshot._stamp_file(ROOT, snapshot.FOLDER)).unlink()
    assert snapshot.restore(ROOT).differing == ["results/s/large"]


def test_only_files_that_were_written_are_read_again(original, monkeypatch):
    read = []
    monkeypatch.setattr(snapshot, "digest", lambda path: read.append(str(path)) or "digest")
    (ROOT / "table").write_text("new")
    snapshot.save(ROOT)
    assert read == ["results/s/table", "models/mine"]


def test_files_that_were_moved_or_compared_are_not_read_once_more(original, monkeypatch):
    copied(original, monkeypatch)
    (ROOT / "table").write_text("new")
    read, digest = [], snapshot.digest
    monkeypatch.setattr(snapshot, "digest", lambda path: read.append(str(path)) or digest(path))
    snapshot.restore(ROOT)
    assert read.count("results/s/data.parquet") == 1 and snapshot._read(ROOT)["files"]["table"][3] == digest(ROOT / "table")


def test_a_file_that_was_rewritten_under_its_old_time_is_read_again(original):
    with snakemake_records.keep_time(ROOT / "data.parquet"):
        (ROOT / "data.parquet").write_text("C" + "content of data.parquet"[1:])
    snapshot.save(ROOT)
    assert snapshot._read(ROOT)["files"]["data.parquet"][3] == snapshot.digest(ROOT / "data.parquet")


@pytest.fixture
def another_run(original):
    """A process whose run began and goes on."""
    code = "import sys, pathlib; from sft_atlas.core import snapshot; snapshot.begin(pathlib.Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    process = subprocess.Popen([sys.executable, "-c", code, ROOT], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_run_that_was_killed_is_made_up_for_by_the_next(another_run):
    (ROOT / "new").write_text("made by a run that was killed")
    another_run.kill()
    another_run.wait()
    snapshot.begin(ROOT)
    assert "new" in snapshot._read(ROOT)["files"]


@pytest.mark.parametrize("changed", [False, True])
def test_a_second_call_leaves_a_run_beside_it_recorded(another_run, changed):
    snapshot.begin(ROOT)
    (ROOT / "new").write_text("made by the other run")
    snapshot.end(ROOT, changed)
    assert [run["pid"] for run in snapshot._runs(ROOT, snapshot.FOLDER)] == [another_run.pid]
    another_run.kill()
    another_run.wait()
    snapshot.begin(ROOT)
    assert "new" in snapshot._read(ROOT)["files"]
    assert [run["pid"] for run in snapshot._runs(ROOT, snapshot.FOLDER)] == [os.getpid()]


def test_a_run_on_another_machine_stays_recorded_and_may_have_been_killed(original):
    elsewhere = {"pid": 1, "process_began": 0.0, "host": "another machine"}
    snapshot._change_stamp(ROOT, snapshot.FOLDER, running=[elsewhere])
    (ROOT / "new").write_text("made there")
    snapshot.begin(ROOT)
    snapshot.end(ROOT, changed=False)
    assert "new" in snapshot._read(ROOT)["files"] and snapshot._runs(ROOT, snapshot.FOLDER) == [elsewhere]


def test_a_snapshot_that_is_cut_off_or_of_another_version_is_no_snapshot(original, monkeypatch):
    clone = copied(original, monkeypatch)
    whole = (ROOT / snapshot.NAME).read_bytes()
    for content in (whole[:50], gzip.compress(b'{"format": 99}')):
        (clone / ROOT / snapshot.NAME).write_bytes(content)
        assert snapshot.restore(ROOT) is None


def test_files_of_another_user_are_named_and_end_nothing(original, monkeypatch):
    copied(original, monkeypatch)

    def refuse(*arguments, **options):
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert "5 files belong to another user" in snapshot.restore(ROOT).message("results/s")


def test_a_snapshot_does_not_name_the_folder_of_its_user(original):
    assert str(original).encode() not in gzip.decompress((ROOT / snapshot.NAME).read_bytes())


def test_logs_and_states_of_runs_are_left_out(original):
    for name in ("logs/train.log", "state/m/trainer", ".table.1.part"):
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).touch()
    snapshot.save(ROOT)
    assert set(snapshot._read(ROOT)["files"]) == set(MADE)
