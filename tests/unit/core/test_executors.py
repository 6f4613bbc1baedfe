"""A clone in a folder with spaces and brackets can use every executor."""

import subprocess
import sys

from sft_atlas.core import executors


def test_a_python_in_a_folder_with_spaces_is_quoted_for_every_executor_once(monkeypatch, tmp_path):
    from snakemake_executor_plugin_slurm import Executor as Slurm
    from snakemake_executor_plugin_slurm_jobstep import Executor as JobStep
    from snakemake_interface_executor_plugins.executors.real import RealExecutor

    kinds = [kind for kind in executors._below(RealExecutor) if "get_python_executable" in vars(kind)]
    for kind in kinds:
        monkeypatch.setattr(kind, "get_python_executable", kind.get_python_executable)  # put back after the test
    folder = tmp_path / "größe (x) & 'y'"
    folder.mkdir()
    python = folder / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    executors.quote_python()
    executors.quote_python()
    assert Slurm.get_python_executable.quotes
    said = subprocess.run(
        f"{JobStep.get_python_executable(object.__new__(JobStep))} -c 'print(1)'", shell=True, capture_output=True, text=True
    )
    assert said.stdout == "1\n"


def test_a_plain_path_changes_nothing(monkeypatch):
    from snakemake_executor_plugin_slurm_jobstep import Executor as JobStep

    before = JobStep.get_python_executable
    monkeypatch.setattr(sys, "executable", "/opt/python")
    executors.quote_python()
    assert JobStep.get_python_executable is before
