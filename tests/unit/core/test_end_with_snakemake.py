"""Jobs end with the Snakemake that started them."""

import os
import shlex
import signal
import subprocess
import sys

import pytest

from helpers.processes import alive, python, started
from helpers.waiting import until
from sft_atlas.core import processes

SNAKEMAKE = """
import os, subprocess, sys
from sft_atlas.core import processes
processes.name_to_jobs()
subprocess.run(["sh", "-c", sys.argv[1] + "; true"])
"""
JOB = """
import os, sys, time
from sft_atlas.core import processes
processes.end_with_snakemake()
print(os.getpid(), processes.SNAKEMAKE in os.environ, flush=True)
time.sleep(3600)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="a process cannot be waited for by others than its parent")


@linux
def test_a_job_ends_when_snakemake_is_killed_though_the_shell_between_them_goes_on():
    with started("-c", SNAKEMAKE, f"{shlex.quote(sys.executable)} -c '{JOB}'", stdout=subprocess.PIPE) as snakemake:
        pid, named = snakemake.stdout.readline().split()
        assert named == "False"  # a process that the job starts gets the signal from the job alone
        snakemake.send_signal(signal.SIGKILL)
        until(lambda: not alive(int(pid)))


@linux
@pytest.mark.parametrize("named", ["", "99999999:1", f"{os.getppid()}:1"], ids=["none", "gone", "another process, as in a container"])
def test_a_job_whose_snakemake_is_not_to_be_seen_runs_on(named):
    job = JOB.replace("time.sleep(3600)", "import threading; print(threading.active_count(), 'psutil' in sys.modules)")
    ended = python("-c", job, env={processes.SNAKEMAKE: named})
    assert ended.returncode == 0 and ended.stdout.split()[1:] == ["False", "1", "False"], ended.stderr
