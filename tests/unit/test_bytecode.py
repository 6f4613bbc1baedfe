"""Bytecode is kept where Python would keep none, in the user's cache."""

import os
import subprocess
import sys

import pytest

from helpers.waiting import HANG
from sft_atlas.core.provenance import ROOT

PROGRAM = """
import os, subprocess, sys
import user_cache
if len(sys.argv) > 1: # root may write everywhere
    sys.dont_write_bytecode, user_cache.writable = False, lambda folder: folder != sys.argv[1]
    user_cache.keep_bytecode(os.environ, sys.argv[1])
import probed
subprocess.run([sys.executable, "-c", "import probed_too"], check=True)
print(sys.pycache_prefix)
"""


@pytest.fixture
def run(tmp_path):
    """Run the program with a cache of its own; returns the folder of bytecode, the names of what lies in the cache, and whether any is beside."""
    code = tmp_path / "code"
    code.mkdir()
    for name in ("probed", "probed_too"):
        (code / f"{name}.py").write_text("")

    def call(*arguments, **more):
        bare = {key: value for key, value in os.environ.items() if key not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")}
        own = {"PYTHONPATH": f"{ROOT / 'envs'}{os.pathsep}{code}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
        command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
        done = subprocess.run(command, env=bare | own | more, capture_output=True, text=True, check=True, timeout=HANG)
        compiled = {path.name.split(".")[0] for path in (tmp_path / "cache").rglob("*.pyc")}
        return done.stdout.strip(), compiled, (code / "__pycache__").exists()

    return call


def test_where_python_is_told_to_keep_none_processes_share_one_folder(run, tmp_path):
    folder, compiled, beside = run(PYTHONDONTWRITEBYTECODE="1")
    assert folder == str(tmp_path / "cache/sft-atlas/bytecode")
    assert compiled >= {"probed", "probed_too"} and not beside


def test_where_the_environment_belongs_to_somebody_else_too(run, tmp_path):
    folder, compiled, _ = run(tmp_path / "theirs")
    assert folder == str(tmp_path / "cache/sft-atlas/bytecode") and compiled >= {"probed", "probed_too"}


def test_what_was_compiled_with_the_environment_is_used(run, tmp_path):
    (tmp_path / "theirs/snakemake/__pycache__").mkdir(parents=True)
    assert run(tmp_path / "theirs")[0] == "None"


def test_where_python_keeps_it_beside_the_sources_nothing_changes(run):
    assert run() == ("None", set(), True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_folder_of_somebody_else_is_not_trusted(run, tmp_path):
    (tmp_path / "cache/sft-atlas/bytecode").mkdir(parents=True)
    os.chown(tmp_path / "cache/sft-atlas/bytecode", 65534, 65534)
    assert run(PYTHONDONTWRITEBYTECODE="1") == ("None", set(), False)


def test_a_cache_that_cannot_be_made_changes_nothing(run, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/sft-atlas").touch()
    assert run(PYTHONDONTWRITEBYTECODE="1") == ("None", set(), False)
