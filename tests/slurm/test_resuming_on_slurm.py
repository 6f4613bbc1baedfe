"""Training that is cut off on a cluster: nothing is lost, nothing is done twice, and the weights are those of an undisturbed run."""

import json
import os
import signal

import pytest

from helpers.cluster import ClusterFolder, Folder, on_cluster, stop
from helpers.held import held
from helpers.waiting import HANG, until

TARGET = "results/tiny/runs/llama-strings/spelling/full/train.json"
LAST = "results/tiny/runs/llama-strings/spelling/full/epoch-6/weights"
STATE = "state/llama-strings/spelling/full/trainer"
STEP = 4  # the first after an epoch is kept: three steps are an epoch


@pytest.fixture
def longer(finished, lab, tmp_path) -> ClusterFolder:
    """The finished study with a recipe of more epochs."""
    return lengthened(finished, lab, tmp_path / "longer")


def lengthened(finished, lab, path) -> ClusterFolder:
    copied = finished.copy(path)
    folder = on_cluster(ClusterFolder(copied.path, copied.study), lab)
    folder.study["recipes"]["full"] |= {"epochs": 6, "save_epochs": [1, 6]}
    folder.write(folder.study)
    return folder


@pytest.fixture(scope="module")
def undisturbed(finished, lab, tmp_path_factory) -> dict:
    """The record of the same training, not interrupted and without Slurm."""
    folder = lengthened(finished, lab, tmp_path_factory.mktemp("undisturbed"))
    Folder(folder.path, folder.study).run(TARGET, LAST)
    return record(folder)


def record(folder) -> dict:
    return json.loads((folder.path / TARGET).read_text())


def an_epoch_is_kept(folder):
    return lambda: list(folder.result(STATE).glob("checkpoint-*/complete"))


def states(lab, folder) -> dict[str, list[str]]:
    """How each of the folder's Slurm jobs stood at each of its ends, requeued ones included."""
    found = {}
    for line in lab.run(
        "sacct", "--noheader", "--parsable2", "--allocations", "--duplicates", "--format=JobID,State,WorkDir%200"
    ).splitlines():
        job, state, where = line.split("|")
        if where == str(folder.path):
            found.setdefault(job, []).append(state.split()[0])
    return found


def start_now(lab, job: str, *more: str) -> None:
    """Have Slurm start a requeued job once nothing of its first start is left; it would let two minutes pass.

    Started earlier, it fails at once where the end of the first start is reported after the second has begun: that is taken for its own.
    """
    until(lambda: not lab.steps(), explain=lab.situation)
    until(lambda: lab.run("squeue", "--noheader", f"--jobs={job}", "--format=%T") == "PENDING", explain=lab.situation)
    lab.run("scontrol", "update", f"JobId={job}", "StartTime=now", *more)


def test_training_goes_on_when_its_node_fails(longer, lab, undisturbed):
    process = longer.start(TARGET, LAST)
    try:
        with held(longer, STEP):
            until(an_epoch_is_kept(longer), process, longer.situation)
            [job] = longer.waiting_and_running()
            node = lab.run("squeue", "--noheader", f"--jobs={job}", "--format=%N")
            lab.kill_node(node)
        start_now(lab, job)
        longer.finish(process)
    finally:
        stop(process)
        lab.start_node(node)
    until(lambda: lab.state(node) == "idle", explain=lab.situation)
    assert states(lab, longer)[job] == ["NODE_FAIL", "COMPLETED"]  # the same job, started again by Slurm
    assert record(longer)["resumed"] and record(longer)["weights_sha256"] == undisturbed["weights_sha256"]


def test_trainer_states_may_be_on_the_nodes_own_disk(longer, lab, undisturbed, tmp_path):
    longer.site(scratch=f"{tmp_path}/disk-of-$SLURMD_NODENAME")
    process = longer.start(TARGET, LAST)
    try:
        with held(longer, STEP):
            until(an_epoch_is_kept(longer), process, longer.situation)
            [job] = longer.waiting_and_running()
            node = lab.run("squeue", "--noheader", f"--jobs={job}", "--format=%N")
            assert longer.result(STATE).resolve().is_relative_to(tmp_path / f"disk-of-{node}")
            lab.run("scontrol", "requeue", job)
        start_now(lab, job, f"ReqNodeList={node}")
        longer.finish(process)
    finally:
        stop(process)
    assert record(longer)["resumed"] and record(longer)["weights_sha256"] == undisturbed["weights_sha256"]
    assert not list(tmp_path.rglob("checkpoint-*")) and not longer.result(STATE).is_symlink()


def test_a_killed_snakemake_finds_its_jobs_again(longer, lab, undisturbed):
    process = longer.start(TARGET, LAST)
    try:
        with held(longer, STEP):
            until(an_epoch_is_kept(longer), process, longer.situation)
            [job] = longer.waiting_and_running()
            process.kill()  # the main process alone, as a crash of the login node would
            process.wait(HANG)
            longer.unlock()
            process = longer.start(TARGET, LAST)
            waiting = f"Waiting for them instead of submitting them again. To give them up: scancel {job}"
            until(lambda: waiting in longer.printed, process, longer.situation)
            assert longer.waiting_and_running() == [job]
        longer.finish(process)
    finally:
        stop(process)
    assert states(lab, longer) == {job: ["COMPLETED"]}  # one submission in all
    assert not record(longer)["resumed"] and record(longer)["weights_sha256"] == undisturbed["weights_sha256"]
    assert not longer.planned(TARGET, LAST)
    # It was recorded with its settings: a change of them is noticed.
    longer.study["recipes"]["full"]["learning_rate"] = 1e-4
    longer.write(longer.study)
    assert longer.planned(TARGET, LAST)["train_full"] == 1


def test_a_killed_snakemake_finds_a_group_of_jobs_again(finished, lab, tmp_path):
    copied = finished.copy(tmp_path / "copy")
    folder = on_cluster(ClusterFolder(copied.path, copied.study), lab)
    targets = [f"results/tiny/runs/llama-strings/base/base/epoch-0/{name}" for name in ("scores/tasks.parquet", "likelihood.parquet")]
    for target in targets:
        (folder.path / target).unlink()
    process = folder.start(*targets)
    try:
        [job] = until(folder.waiting_and_running, process, folder.situation)
        until(lambda: lab.run("squeue", "--noheader", f"--jobs={job}", "--format=%T") == "RUNNING", process, folder.situation)
        lab.run("scontrol", "suspend", job)
        process.kill()
        process.wait(HANG)
        folder.unlock()
        process = folder.start(*targets)
        until(lambda: f"scancel {job} " in folder.printed, process, folder.situation)
        lab.run("scontrol", "resume", job)
        folder.finish(process)
    finally:
        stop(process)
    assert states(lab, folder) == {job: ["COMPLETED"]}
    assert not folder.planned(*targets)


def test_settings_that_changed_meanwhile_stop_the_call(longer, lab):
    process = longer.start(TARGET, LAST)
    try:
        with held(longer, STEP):
            until(an_epoch_is_kept(longer), process, longer.situation)
            [job] = longer.waiting_and_running()
            process.kill()
            process.wait(HANG)
            longer.unlock()
            longer.study["recipes"]["full"]["learning_rate"] = 1e-4
            longer.write(longer.study)
            printed = longer.run(TARGET, LAST, ok=False)
            assert f"scancel {job}" in printed and "settings that have changed in the study file" in printed
            assert longer.waiting_and_running() == [job]
            lab.run("scancel", job)
    finally:
        stop(process)


def test_ctrl_c_cancels_the_jobs(longer, lab):
    process = longer.start(TARGET, LAST)
    try:
        with held(longer, STEP):
            until(an_epoch_is_kept(longer), process, longer.situation)
            [job] = longer.waiting_and_running()
            os.killpg(process.pid, signal.SIGINT)
            process.wait(HANG)
            until(lambda: not longer.waiting_and_running(), explain=longer.situation)
    finally:
        stop(process)
    assert states(lab, longer) == {job: ["CANCELLED"]}
    assert not (longer.path / TARGET).exists() and an_epoch_is_kept(longer)()


def test_two_nodes_train_one_run(longer, lab, undisturbed):
    """One process on each node, which meet by torchrun's rendezvous; each node gives one GPU."""
    longer.study["recipes"]["full"] |= {"gpus": 2, "nodes": 2}
    longer.write(longer.study)
    longer.run(TARGET, LAST)
    [job] = states(lab, longer)
    columns = lab.run("sacct", "--noheader", "--parsable2", f"--jobs={job}", "--allocations", "--format=NNodes,AllocTRES%80,State").split(
        "|"
    )
    assert columns[0] == "2" and "gres/gpu:h100=2" in columns[1] and columns[2].strip() == "COMPLETED"
    log = (longer.path / "results/tiny/logs/train/llama-strings/spelling/full.log").read_text()
    assert log.count("resumed from None") == 2
    assert record(longer)["train_loss"] == pytest.approx(undisturbed["train_loss"], rel=1e-3)


def test_a_run_that_slurm_ends_saves_its_state_before(longer, lab, undisturbed):
    """No resume checkpoint is due in so short a run: the signal alone makes it save one."""
    log = longer.path / "results/tiny/logs/train/llama-strings/spelling/full.log"
    log.unlink()  # that of the finished study
    process = longer.start(TARGET, LAST)
    try:
        with held(longer, 1):
            until(lambda: log.exists() and "resumed from None" in log.read_text(), process, longer.situation)
            [job] = longer.waiting_and_running()
            lab.run("scancel", "--signal=TERM", job)  # to all processes of its steps, as before a time limit or a preemption
            until(lambda: "the state is saved" in log.read_text(), process, longer.situation)
        lab.run("scontrol", "requeue", job)
        start_now(lab, job)
        longer.finish(process)
    finally:
        stop(process)
    assert record(longer)["resumed"] and record(longer)["weights_sha256"] == undisturbed["weights_sha256"]
    assert (
        states(lab, longer)[job][0] == "REQUEUED"
    )  # Slurm started the same job again; if that start failed, Snakemake submitted another one
