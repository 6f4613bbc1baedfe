"""A run that SIGTERM or SIGINT stops saves its state at once, and ends with the weights of an undisturbed run."""

import json
import os
import signal
import subprocess
import sys

import polars as pl
import pytest

from helpers.processes import forked
from helpers.tiny import ROWS, TEMPLATE, distance, weights
from helpers.waiting import HANG, until
from sft_atlas.core.provenance import ROOT
from sft_atlas.train import checkpointing, resume_state
from sft_atlas.train.interruption import Interrupted

RECIPE = {"epochs": 3, "save_epochs": "all", "batch_size": 2, "weight_decay": 0.1, "warmup_ratio": 0.1}  # 4 steps an epoch
LORA = {"method": "lora", "learning_rate": 1e-2, "lora": {"rank": 4, "alpha": 8, "dropout": 0.2}}


def signal_at(step: int, number: int, monkeypatch) -> None:
    """Have this process send itself a signal in the given optimiser step."""
    ends = checkpointing.CheckpointCallback.on_step_end

    def signalling(self, args, state, control, **more):
        if state.global_step == step:
            os.kill(os.getpid(), number)
        return ends(self, args, state, control, **more)

    monkeypatch.setattr(checkpointing.CheckpointCallback, "on_step_end", signalling)


@pytest.mark.parametrize(
    ("method", "step", "number"), [({}, 6, signal.SIGTERM), ({}, 8, signal.SIGINT), (LORA, 1, signal.SIGTERM), (LORA, 4, signal.SIGTERM)]
)
def test_a_stopped_run_goes_on_where_it_was(cases, tmp_path, monkeypatch, method, step, number):
    """In the middle of an epoch and at its end; the epochs kept before are there, and no other."""
    case, recipe = cases("llama"), RECIPE | method
    with (
        monkeypatch.context() as patch,
        pytest.raises(Interrupted, match=f"stopped by {signal.Signals(number).name} after optimiser step {step} of 12"),
    ):
        signal_at(step, number, patch)
        case.train(tmp_path / "run", **recipe)
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    assert resume_state.complete_checkpoints(tmp_path / "run/trainer")[-1].name == f"checkpoint-{step}"
    assert sorted(path.name for path in (tmp_path / "run").glob("epoch-*")) == [f"epoch-{epoch}" for epoch in range(1, step // 4 + 1)]
    resumed, last = case.train(tmp_path / "run", **recipe)
    whole, undisturbed = case.train(tmp_path / "whole", **recipe)
    assert resumed["resumed"]
    hashes = [json.loads((tmp_path / name / resume_state.HASHES).read_text()) for name in ("run", "whole")]
    assert hashes[0] == hashes[1]
    assert distance(weights(last), weights(undisturbed)) == 0
    steps = [[entry[key] for entry in facts["log"] if "loss" in entry for key in ("loss", "learning_rate")] for facts in (resumed, whole)]
    assert steps[0] == steps[1]


def test_in_the_last_step_there_is_nothing_to_save(cases, tmp_path, monkeypatch):
    signal_at(12, signal.SIGTERM, monkeypatch)
    facts, _ = cases("llama").train(tmp_path / "run", **RECIPE)
    assert facts["steps"] == 12 and not (tmp_path / "run/trainer/checkpoint-12").exists()


def test_all_processes_stop_at_the_same_step(cases, tmp_path):
    """The signal reaches one of two processes, in the middle of the second epoch."""
    case, recipe = cases("llama"), RECIPE | {"gpus": 2}

    def train(rank: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if rank == 1:
                signal_at(6, signal.SIGTERM, patch)
            with pytest.raises(Interrupted, match="after optimiser step 6 of 12"):
                case.train(tmp_path / "run", **recipe)

    forked(2, train)
    assert resume_state.complete_checkpoints(tmp_path / "run/trainer")[-1].name == "checkpoint-6"
    forked(2, lambda rank: case.train(tmp_path / "run", **recipe))
    _, whole = case.train(tmp_path / "whole", **RECIPE)
    assert distance(weights(tmp_path / "run/epoch-3"), weights(whole)) < 2e-4


def test_a_job_passes_the_signal_to_its_processes(cases, tmp_path):
    """Of a job with two processes, started by torchrun, only the job itself is sent SIGTERM. An accelerate configuration does not matter."""
    case = cases("llama")
    pl.DataFrame(ROWS).write_parquet(tmp_path / "train.parquet")
    recipe = {"method": "full", "batch_size": 8, "epochs": 60, "learning_rate": 1e-5}
    call = [
        sys.executable, str(ROOT / "workflow_scripts/run.py"), "train", "--base", str(case.base.path.parent / "llama.json"), "--data", str(tmp_path / "train.parquet"),
        "--model", "m", "--dataset", "d", "--recipe", "r", "--template", json.dumps(TEMPLATE),
        "--settings", case.settings(**recipe, gpus=2, micro_batch_size=2).model_dump_json(),
        "--state", str(tmp_path / "state"), "--output", str(tmp_path / "out"), "--log", str(tmp_path / "log"),
    ]  # fmt: skip
    hostile = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "7", "PET_NPROC_PER_NODE": "1"}
    job = subprocess.Popen(call, env=os.environ | hostile)
    try:
        until(lambda: job.poll() or ((tmp_path / "log").exists() and (tmp_path / "log").read_text().count("resumed from None") == 2))
        job.terminate()
        assert job.wait(HANG) == 1
    finally:
        job.kill()
    saved = resume_state.complete_checkpoints(tmp_path / "state/trainer")[-1]
    assert saved and f"stopped by SIGTERM after optimiser step {saved.name.split('-')[1]} of 60" in (tmp_path / "log").read_text()
    assert subprocess.run(call, timeout=HANG).returncode == 0, (tmp_path / "log").read_text()[-3000:]
    record = json.loads((tmp_path / "out/train.json").read_text())
    assert record["resumed"] and record["steps"] == 60 and record["autocast"] is None
    _, whole = case.train(tmp_path / "whole", **recipe)
    assert distance(weights(tmp_path / "out/epoch-60/weights"), weights(whole)) < 2e-4
