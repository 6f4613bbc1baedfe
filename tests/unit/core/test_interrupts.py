"""SIGINT and SIGTERM of a real Snakemake that runs jobs: it ends soon, its jobs too, and it says how to go on."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from helpers.waiting import HANG, until
from sft_atlas.core.provenance import ROOT

SNAKEFILE = f"""
import os
import signal
import sys

sys.path.insert(0, {str(ROOT / "workflow_scripts")!r})
from sft_atlas.core.interrupts import Interrupts

interrupts = Interrupts(lambda text: print(text, file=sys.stderr, flush=True))
interrupts.before_jobs()
BEFORE

rule all:
    input:
        expand("out/{{i}}", i=range(20))

rule job:
    output:
        "out/{{i}}"
    shell:
        "python job.py {{wildcards.i}} && touch {{output}}"

onstart:
    interrupts.handle(workflow.scheduler, workflow.local_exec)
    MORE

onerror:
    print(interrupts.how_to_go_on(), file=sys.stderr)
"""
SLEEP = "import pathlib, sys, time\npathlib.Path(f'began-{sys.argv[1]}').touch()\ntime.sleep(3600)\n"
SAVE = """import pathlib, signal, sys, time
def save(*_):
    time.sleep(2)
    pathlib.Path('saved').touch()
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
"""
IGNORE = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
# The signal comes while Snakemake's main thread holds the scheduler's lock; all jobs but the first end after the scheduler was told of it.
ONE = """import os, time
try:
    os.close(os.open('first', os.O_CREAT | os.O_EXCL))
except FileExistsError:
    while not os.path.exists('told'):
        time.sleep(0.05)
"""
IN_LOCK = """
    exit_gracefully = workflow.scheduler.exit_gracefully
    def exit_and_note():
        exit_gracefully()
        open("told", "w").close()
    workflow.scheduler.exit_gracefully = exit_and_note
    finish = workflow.scheduler._finish_jobs
    def finish_and_signal():
        finish()
        if workflow.scheduler.finished_jobs == 1:
            os.kill(os.getpid(), signal.{name})
    workflow.scheduler._finish_jobs = finish_and_signal
"""


@pytest.fixture
def snakemake(tmp_path):
    """Start Snakemake with jobs that run ``job`` and, in ``onstart``, some more."""
    started = []

    def start(job, onstart="pass", before=""):
        (tmp_path / "Snakefile").write_text(SNAKEFILE.replace("MORE", onstart).replace("BEFORE", before))
        (tmp_path / "job.py").write_text(job)
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--scheduler", "greedy"]
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def run_until_two_began(snakemake, folder, job):
    process = snakemake(job)
    until(lambda: len(list(folder.glob("began-*"))) == 2, process)
    return process, psutil.Process(process.pid).children(recursive=True)


def runs(job) -> bool:
    """Whether a process has not ended; one whose parent was killed may wait for the system to take note of its end."""
    try:
        return job.is_running() and job.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ended(process):
    text = process.communicate(timeout=HANG)[0]
    assert "Traceback" not in text, text
    return text


@pytest.mark.parametrize("to_group", [False, True], ids=["to Snakemake alone", "to the group, as from a terminal"])
def test_an_interrupt_ends_the_jobs(snakemake, tmp_path, to_group):
    process, jobs = run_until_two_began(snakemake, tmp_path, SLEEP)
    (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
    text = process.communicate(timeout=HANG)[0]
    assert process.returncode == 1 and "start the same command again" in text
    assert not [job for job in jobs if runs(job)] and len(list(tmp_path.glob("began-*"))) == 2


def test_a_job_that_saves_its_state_is_waited_for(snakemake, tmp_path):
    process, _ = run_until_two_began(snakemake, tmp_path, SAVE + SLEEP)
    process.send_signal(signal.SIGINT)
    ended(process)
    assert (tmp_path / "saved").exists()


def test_a_second_interrupt_kills(snakemake, tmp_path):
    process, jobs = run_until_two_began(snakemake, tmp_path, IGNORE + SLEEP)
    process.send_signal(signal.SIGINT)
    assert any("Ctrl-C again kills them at once" in line for line in process.stdout)
    time.sleep(2)  # two that come within a second are one
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert "start the same command again" in ended(process)
    assert not [job for job in jobs if runs(job)]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_that_finds_the_scheduler_locked_does_not_hang(snakemake, tmp_path, name):
    text = ended(snakemake(ONE, IN_LOCK.format(name=name)))
    assert f"Stopped by {name}" in text and len(list((tmp_path / "out").iterdir())) < 20


def test_an_interrupt_before_the_jobs_is_a_line(snakemake):
    process = snakemake("", before="os.kill(os.getpid(), signal.SIGINT)")
    assert "Interrupted." in ended(process).splitlines() and process.returncode
