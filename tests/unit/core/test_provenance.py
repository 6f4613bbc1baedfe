"""The record of how a result was made."""

import hashlib
import json
import os
import subprocess
import sys
from importlib import metadata

from sft_atlas.core import provenance
from sft_atlas.core.provenance import PACKAGES, git_state, record_provenance, resource_usage


def test_provenance_says_how_a_result_came_to_be(tmp_path):
    (tmp_path / "rows.txt").write_bytes(b"abc")
    result = record_provenance({"rows": 3}, {"data": tmp_path / "rows.txt"}, device="cpu")
    assert result["settings"] == {"rows": 3}
    assert result["inputs"] == {"data": {"path": str(tmp_path / "rows.txt"), "sha256": hashlib.sha256(b"abc").hexdigest()}}
    assert result["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {name: metadata.version(name) for name in PACKAGES} == {name: result["versions"][name] for name in PACKAGES}
    assert result["code"] == git_state()
    assert result["machine"]["cores"] == os.cpu_count()
    assert result["device"] == "cpu"
    json.dumps(result)


def test_the_git_state_is_that_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert git_state() == {"commit": None, "dirty": None}

    def git(*words):
        call = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false", *words]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert git_state() == {"commit": None, "dirty": False}
    (tmp_path / "code.py").write_text("one")
    git("add", "code.py")
    git("commit", "-q", "-m", "first")
    (tmp_path / "notes.txt").write_text("untracked")
    assert git_state() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "code.py").write_text("two")
    assert git_state()["dirty"] is True


def test_usage_is_of_this_process():
    before = resource_usage()
    sum(i * i for i in range(300_000))
    assert resource_usage()["cpu_seconds"] >= before["cpu_seconds"] > 0
    assert 10 < before["peak_memory_mib"] < 100_000
