"""The dry run of a study under all the conditions of conditions.py at once; GitHub Actions installs and runs the study so as well."""

import subprocess
import sys

from helpers.folders import ROOT


def test_snakemake_starts_where_programs_tend_to_break():
    command = [sys.executable, "tests/install/conditions.py", "--venv", ROOT / ".venv", "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dry run: passed" in done.stdout
