"""Trackers show a run, change nothing of it, and send nothing anywhere."""

import json
import os
import socket

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from sft_atlas.core import optional_packages
from sft_atlas.core.errors import AtlasError
from sft_atlas.study.checks import TRACKERS, tracker_missing
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train import train
from sft_atlas.train.tracking import REMOTE, Tracking

TEMPLATE = {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"}
ROWS = [{"instruction": f"Count to {i}.", "response": " ".join(map(str, range(1, i + 1))), "source": None} for i in range(1, 9)]
VALUES = {"loss", "learning_rate", "grad_norm", "tokens_per_second"}


@pytest.fixture
def environment(monkeypatch):
    """Variables that trackers set or read are as before after the test; one of a remote server is there at first."""
    names = [*REMOTE, "TENSORBOARD_LOGGING_DIR", "TRACKIO_DIR", "GRADIO_ANALYTICS_ENABLED"]
    names += [
        f"WANDB_{name}"
        for name in [
            "DIR",
            "PROJECT",
            "RUN_ID",
            "RESUME",
            "SILENT",
            "CONSOLE",
            "LOG_MODEL",
            "WATCH",
            "ERROR_REPORTING",
            "DISABLE_CODE",
            "DISABLE_GIT",
            "MODE",
        ]
    ]
    for name in names:
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/space")
    return monkeypatch


@pytest.fixture
def trained(tiny_base, run_script, tmp_path, environment):
    """A function that trains with a tracker or without, and fails where anything connects to another machine."""
    pl.DataFrame(ROWS).write_parquet(tmp_path / "train.parquet")
    held_out = tmp_path / "data/counts/8/holdout.parquet"
    held_out.parent.mkdir(parents=True)
    pl.DataFrame([{"instruction": "Say a.", "response": "a"}]).write_parquet(held_out)
    recipe = Hyperparameters(method="full", rows=8, epochs=2, learning_rate=1e-3, batch_size=4)
    connect = socket.socket.connect

    def local(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            pytest.fail(f"connects to {address}")
        return connect(self, address)

    def run(tracker):
        folder = tmp_path / str(tracker)
        keys = {"model": "tiny", "dataset": "counts", "recipe": "full", "base": tiny_base, "data": tmp_path / "train.parquet"}
        files = {"state": folder / "state", "output": folder / "output", "holdout": held_out}
        more = {"track": tracker, "tracking": tmp_path / "tracking", "study": "mine"} if tracker else {}
        environment.setattr(socket.socket, "connect", local)
        run_script(train, **keys, **files, **more, settings=recipe.model_dump_json(), template=json.dumps(TEMPLATE))
        return folder / "output"

    return run, tmp_path / "tracking"


def same(one, other):
    tensors, others = (load_file(folder / "epoch-2/weights/model.safetensors") for folder in (one, other))
    histories = [pl.read_parquet(folder / "history.parquet") for folder in (one, other)]
    records = [json.loads((folder / "train.json").read_text()) for folder in (one, other)]
    return (
        all(torch.equal(tensors[key], others[key]) for key in tensors)
        and histories[0].equals(histories[1])
        and records[0].keys() == records[1].keys()
    )


def test_tensorboard_shows_every_step_and_changes_nothing(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, folder = trained
    tracked, plain = run("tensorboard"), run(None)
    assert same(tracked, plain)
    events = EventAccumulator(str(folder / "tiny/counts/full"))
    events.Reload()
    assert {f"train/{name}" for name in VALUES} | {"eval/loss"} <= set(events.Tags()["scalars"])
    history = pl.read_parquet(tracked / "history.parquet")
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(history["loss"].to_list(), rel=1e-5)
    assert [event.value for event in events.Scalars("eval/loss")] == pytest.approx(
        history["validation_loss"].drop_nulls().to_list(), rel=1e-5
    )
    assert all(event.value > 0 for event in events.Scalars("train/tokens_per_second"))


def test_trackio_writes_a_local_database(trained):
    pytest.importorskip("trackio", reason=f"needs {optional_packages.IN_NO_LOCK['trackio']}")
    run, folder = trained
    tracked, plain = run("trackio"), run(None)
    assert same(tracked, plain)
    import sqlite3

    [database] = folder.glob("*.db")
    with sqlite3.connect(database) as opened:
        rows = [json.loads(text) for (text,) in opened.execute("select metrics from metrics where run_name = 'tiny/counts/full'")]
    assert {f"train/{name}" for name in VALUES} <= {key for row in rows for key in row}
    assert "TRACKIO_SPACE_ID" not in os.environ


def test_wandb_is_offline_without_a_key(trained, environment):
    pytest.importorskip("wandb", reason="needs wandb")
    environment.delenv("WANDB_API_KEY", raising=False)
    run, folder = trained
    tracked, plain = run("wandb"), run(None)
    assert same(tracked, plain)
    assert len(list(folder.glob("wandb/offline-run-*/run-*.wandb"))) == 1


def test_a_key_of_wandb_is_in_no_variable_of_ours(environment, tmp_path):
    tracking = Tracking("wandb", tmp_path, "mine")
    environment.delenv("WANDB_API_KEY", raising=False)
    assert tracking.environment("m/d/r")["WANDB_MODE"] == "offline"
    environment.setenv("WANDB_API_KEY", "secret-key")
    assert "WANDB_MODE" not in tracking.environment("m/d/r") and "secret-key" not in str(tracking.environment("m/d/r"))
    assert (
        tracking.environment("m/d/r")["WANDB_RUN_ID"]
        == tracking.environment("m/d/r")["WANDB_RUN_ID"]
        != tracking.environment("m/d/s")["WANDB_RUN_ID"]
    )


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_that_is_not_installed_is_an_error_with_the_line_to_install_it(monkeypatch, tmp_path, tracker):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert tracker_missing(tracker) == f"track: {tracker} is not installed; {optional_packages.how_to_install(tracker)}, or remove the key"
    assert tracker_missing(None) is None
    with pytest.raises(AtlasError, match=f"track: {tracker} is not installed"):
        Tracking(tracker, tmp_path, "mine").attach(None, "m/d/r")
