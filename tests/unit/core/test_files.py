"""Outputs that appear whole or not at all, and locked folders."""

import re
import signal
import subprocess

import polars as pl
import pytest

from helpers.processes import python, started
from helpers.waiting import HANG
from sft_atlas.core.files import atomic, read_json, write_json, write_table


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "deep/er/result.txt"
    with atomic(path) as part:
        part.write_text("new")
        assert not path.exists()
        assert part.parent == path.parent
    assert path.read_text() == "new"
    assert listing(tmp_path) == ["deep", "deep/er", "deep/er/result.txt"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["result.txt"]


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic(path):
        pass
    assert path.read_text() == "old"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "old.bin").write_text("old")
    with atomic(folder) as part:
        part.mkdir()
        (part / "new.bin").write_text("new")
        assert listing(folder) == ["old.bin"]
    assert listing(tmp_path) == ["weights", "weights/new.bin"]


def test_a_failure_keeps_the_old_folder(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "old.bin").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(folder) as part:
        part.mkdir()
        (part / "new.bin").write_text("half")
        raise ZeroDivisionError
    assert listing(tmp_path) == ["weights", "weights/old.bin"]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    code = f"import os; from sft_atlas.core.files import atomic\nwith atomic({str(path)!r}) as part: part.write_text('half'); os.kill(os.getpid(), 9)"
    assert python("-c", code).returncode == -9
    assert path.read_text() == "old"


def test_json_is_sorted_readable_and_whole(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"b": "é", "a": [1]})
    assert re.sub(r',\n "checksum": "[0-9a-f]{64}"', "", path.read_text(encoding="utf-8")) == '{\n "a": [\n  1\n ],\n "b": "é"\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": [1], "b": "é"}
    assert listing(tmp_path) == ["facts.json"]


def test_a_table_is_written_whole(tmp_path):
    frame = pl.DataFrame({"score": [0.5]})
    write_table(tmp_path / "tables/scores.parquet", frame)
    assert pl.read_parquet(tmp_path / "tables/scores.parquet").equals(frame)
    assert listing(tmp_path) == ["tables", "tables/scores.parquet"]


HOLD = """
import sys, time
from pathlib import Path
from sft_atlas.core.files import lock_folder

with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_folder_in_use_is_waited_for_and_freed_when_its_holder_is_killed(tmp_path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started("-c", HOLD, tmp_path / "state", 3600, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        with started("-c", HOLD, tmp_path / "state", 0, **pipes) as waiting:
            assert waiting.stderr.readline() == f"{tmp_path / 'state'} is in use by another process; waiting for it to end\n"
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.3)
            holder.send_signal(signal.SIGKILL)
            assert waiting.wait(HANG) == 0
            assert waiting.stdout.read() == "held\n"


def test_a_folder_is_free_again_after_use_and_no_empty_one_stays(tmp_path):
    (tmp_path / "other").touch()
    for _ in range(2):
        assert python("-c", HOLD, tmp_path / "a/state", 0).stdout == "held\n"
        assert not (tmp_path / "a").exists() and (tmp_path / "other").exists()


def test_who_waited_for_a_folder_that_was_removed_holds_the_new_one(tmp_path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started("-c", HOLD, tmp_path / "state", 1, **pipes) as first:
        first.stdout.readline()
        with started("-c", HOLD, tmp_path / "state", 3600, **pipes) as second:
            assert second.stdout.readline() == "held\n"
            assert first.wait(HANG) == 0
            with started("-c", HOLD, tmp_path / "state", 0, **pipes) as third:
                assert "is in use" in third.stderr.readline()
