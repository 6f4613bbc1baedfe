"""Kill the workflow in the middle, start it again: nothing is lost, and the weights are those of an undisturbed run."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from helpers.held import held
from helpers.waiting import HANG, until

TARGET = "results/small/runs/llama-strings/spelling/full/train.json"
LAST = "results/small/runs/llama-strings/spelling/full/epoch-6/weights"
STEP = 4  # the first after an epoch is kept: three steps are an epoch


def start(folder, **environment):
    return subprocess.Popen(
        folder.command(TARGET, LAST),
        cwd=folder.path,
        env=folder.environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def jobs_of(folder):
    """Processes that work in the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder.path):
                found.append(process)
        except psutil.Error:
            continue
    return found


def lengthened(finished, path):
    folder = finished.copy(path)
    folder.study["recipes"]["full"] |= {"epochs": 6, "save_epochs": [1, 6]}
    folder.write(folder.study)
    return folder


@pytest.fixture
def longer(finished, tmp_path):
    """The finished study with a recipe that has more epochs."""
    return lengthened(finished, tmp_path / "longer")


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory) -> dict:
    """The record of the same training, not interrupted."""
    folder = lengthened(finished, tmp_path_factory.mktemp("undisturbed"))
    folder.run(TARGET, LAST)
    return json.loads((folder.path / TARGET).read_text())


@pytest.mark.parametrize(
    "how, environment",
    [(signal.SIGKILL, {}), (signal.SIGKILL, {"SFT_ATLAS_WARM": "0"}), (signal.SIGINT, {})],
    ids=["kill", "kill without a warm server, as on a GPU", "Ctrl-C"],
)
def test_training_goes_on_after_an_interruption(longer, undisturbed, how, environment):
    state = longer.result("state/llama-strings/spelling/full/trainer")
    process = start(longer, **environment)
    with held(longer, STEP):
        until(lambda: list(state.glob("checkpoint-*/complete")), process)
        if how == signal.SIGKILL:
            process.kill()  # the main process alone: its jobs must not go on behind the user's back
        else:
            os.killpg(process.pid, how)  # Ctrl-C reaches the whole foreground group
        process.wait(HANG)
        until(lambda: not jobs_of(longer), explain=lambda: str([each.cmdline() for each in jobs_of(longer)]))
    assert not (longer.path / TARGET).exists()
    assert list(state.glob("checkpoint-*/complete"))

    release = [sys.executable, "workflow_scripts/run.py", "release_lock"]
    subprocess.run(release, cwd=longer.path, env=longer.environment(), check=True)
    longer.run(TARGET, LAST)
    record = json.loads((longer.path / TARGET).read_text())
    assert record["resumed"] and not undisturbed["resumed"]
    assert record["weights_sha256"] == undisturbed["weights_sha256"]
    assert not state.exists()


def test_a_second_snakemake_is_not_unlocked_from_under_the_first(longer):
    process = start(longer)
    until(lambda: list((longer.path / ".snakemake/locks").glob("*")), process)
    release = [sys.executable, "workflow_scripts/run.py", "release_lock"]
    done = subprocess.run(release, cwd=longer.path, env=longer.environment(), capture_output=True, text=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(HANG)
    assert done.returncode == 1 and "already running" in done.stderr and "Traceback" not in done.stderr


def test_a_recipe_changed_meanwhile_is_not_resumed(longer):
    state = longer.result("state/llama-strings/spelling/full/trainer")
    process = start(longer)
    with held(longer, STEP):
        until(lambda: list(state.glob("checkpoint-*/complete")), process)
        process.kill()
        process.wait(HANG)
        until(lambda: not jobs_of(longer), explain=lambda: str([each.cmdline() for each in jobs_of(longer)]))
    longer.study["recipes"]["full"]["learning_rate"] = 1e-4
    longer.write(longer.study)
    subprocess.run([sys.executable, "workflow_scripts/run.py", "release_lock"], cwd=longer.path, env=longer.environment(), check=True)
    longer.run(TARGET, LAST)
    record = json.loads((longer.path / TARGET).read_text())
    assert not record["resumed"] and record["settings"]["learning_rate"] == 1e-4
