"""The lock that a killed Snakemake leaves behind."""

import argparse
import subprocess

import pytest

from helpers.processes import started
from sft_atlas.core import release_lock
from sft_atlas.core.errors import AtlasError


def test_no_lock_means_nothing_to_release(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", None)
    release_lock.main(argparse.Namespace())


def test_a_lock_is_not_released_while_snakemake_runs_here(tmp_path, monkeypatch):
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    (tmp_path / "snakemake").write_text("import time; print('up', flush=True); time.sleep(3600)")
    monkeypatch.chdir(tmp_path)
    with started("snakemake", cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "up\n"
        with pytest.raises(AtlasError, match=rf"Snakemake is already running in this folder \(process {process.pid}\)"):
            release_lock.main(argparse.Namespace())
