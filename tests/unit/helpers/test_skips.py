"""What is skipped is seen: CI fails because of it, and `tests/run.sh` names it, with the time of every lane and the lane that died."""

import os
import subprocess
import sys

import pytest

from helpers.lab import HELPERS
from helpers.waiting import HANG
from sft_atlas.core.provenance import ROOT

TESTS = """
import pytest

@pytest.mark.skip(reason="needs a CUDA GPU; there is none here")
def test_on_a_gpu(): ...

@pytest.mark.skipif({skipped}, reason="no Slurm: slurmctld not installed")
def test_on_slurm(): ...

def test_anywhere(): ...
"""


@pytest.fixture
def folder(tmp_path):
    """A clone with small tests, one in each folder of tests, and the real conftest.py, run.sh and settings of pytest."""
    for lane in ("unit", "invariants", "install", "workflow", "slurm"):
        (tmp_path / f"tests/{lane}").mkdir(parents=True)
        (tmp_path / f"tests/{lane}/test_{lane}.py").write_text("def test_nothing(): ...\n")
    for name in ("tests/conftest.py", "tests/run.sh", "tests/helpers", "workflow_scripts", "envs", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def call(folder, *words, ci=""):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")} | {"CI": ci, "PYTHONPATH": HELPERS}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG)


@pytest.mark.parametrize(("ci", "skipped", "code"), [("true", False, 0), ("true", True, 1)])
def test_ci_fails_where_a_test_is_skipped_for_a_reason_that_is_not_listed(folder, ci, skipped, code):
    (folder / "tests/unit/test_unit.py").write_text(TESTS.replace("{skipped}", str(skipped)))
    done = call(folder, sys.executable, "-m", "pytest", "tests/unit", ci=ci)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("FAILED tests/unit/test_unit.py::test_on_slurm was skipped: no Slurm: slurmctld not installed" in done.stdout) == bool(code)


def test_the_whole_run_ends_with_times_skips_and_failures_of_every_lane(folder):
    (folder / "tests/unit/test_unit.py").write_text(TESTS.replace("{skipped}", "True"))
    (folder / "tests/slurm/test_slurm.py").write_text("import os, signal\ndef test_it(): os.kill(os.getpid(), signal.SIGKILL)\n")
    (folder / "tests/workflow/test_workflow.py").write_text("def test_it(): assert False\n")
    done = call(folder, "tests/run.sh", sys.executable)
    assert done.returncode == 1
    end = done.stdout[done.stdout.index("\nTime:") :]
    assert "needs a CUDA GPU" in end and "no Slurm: slurmctld not installed" in end
    assert "FAILED tests/workflow/test_workflow.py::test_it" in end
    assert "FAILED tests/slurm: pytest ended with status 137" in end
    for lane in ("unit and invariants", "workflow", "slurm"):
        assert f"  {lane} " in end
    (folder / "tests/slurm/test_slurm.py").write_text("def test_it(): ...\n")
    (folder / "tests/workflow/test_workflow.py").write_text("def test_it(): ...\n")
    assert call(folder, "tests/run.sh", sys.executable).returncode == 0
