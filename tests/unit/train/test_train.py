"""The training job: what a run publishes, and several processes that are started together."""

import json
import sys

import polars as pl
import pytest

from helpers.damage import cut, invert
from sft_atlas.core import job
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import sha256
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train import checkpointing, hardware, micro_batch, resume_state, train, trainer
from sft_atlas.train.micro_batch import BatchPlan

TEMPLATE = {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"}


def settings(**changes):
    return Hyperparameters(**({"method": "full", "rows": 8, "epochs": 1, "learning_rate": 1e-3, "batch_size": 8} | changes))


@pytest.fixture(scope="module")
def run(tiny_base, run_script, tmp_path_factory):
    """The folder of a run of three epochs of two steps, of which the first and the third are kept."""
    folder = tmp_path_factory.mktemp("run")
    rows = [{"instruction": f"Count to {i}.", "response": " ".join(map(str, range(1, i + 1)))} for i in range(1, 9)]
    pl.DataFrame([*rows, {"instruction": "long " * 100, "response": "x"}]).write_parquet(folder / "train.parquet")
    recipe = settings(epochs=3, save_epochs=[1, 3], batch_size=4, max_length=64).model_dump_json()
    keys = {"model": "tiny", "dataset": "counts", "recipe": "full"}
    files = {"base": tiny_base, "data": folder / "train.parquet", "state": folder / "state", "output": folder / "output"}
    run_script(train, **keys, **files, settings=recipe, template=json.dumps(TEMPLATE))
    return folder


def test_a_run_publishes_its_kept_epochs_and_leaves_no_state(run):
    assert sorted(path.name for path in (run / "output").glob("epoch-*")) == ["epoch-1", "epoch-3"]
    assert not (run / "state").exists()
    hashes = json.loads((run / "output/train.json").read_text())["weights_sha256"]
    found = {epoch: sha256(run / f"output/epoch-{epoch}/weights/model.safetensors") for epoch in ("1", "3")}
    assert {epoch: files["model.safetensors"] for epoch, files in hashes.items()} == found and found["1"] != found["3"]


def test_the_record_says_what_was_trained_on_what(run):
    record = json.loads((run / "output/train.json").read_text())
    assert (record["model"], record["dataset"], record["recipe"], record["steps"]) == ("tiny", "counts", "full", 6)
    assert record["rows_dropped"] == [8] and record["special_tokens"]["eos"] == 8
    assert record["template"] == TEMPLATE and record["settings"]["save_epochs"] == [1, 3]
    assert record["inputs"]["data"]["sha256"] == sha256(run / "train.parquet")
    history = pl.read_parquet(run / "output/history.parquet")
    assert history["step"].to_list() == [1, 2, 3, 4, 5, 6] and record["train_loss"] == pytest.approx(history["loss"].mean())


def test_a_diverged_run_publishes_nothing_and_is_not_resumed(tiny_base, run_script, tmp_path, monkeypatch):
    pl.DataFrame([{"instruction": "Add 1 and 1.", "response": "2"}] * 4).write_parquet(tmp_path / "train.parquet")
    files = {"base": tiny_base, "data": tmp_path / "train.parquet", "state": tmp_path / "state", "output": tmp_path / "output"}
    job = {"model": "tiny", "dataset": "sums", "recipe": "full", **files, "template": json.dumps(TEMPLATE)}
    fails = r"tiny/sums/full: the loss is nan at optimiser step 2 of 2"
    with pytest.raises(AtlasError, match=fails):
        run_script(train, **job, settings=settings(epochs=2, batch_size=4, save_epochs="all", learning_rate=1e30).model_dump_json())
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["preflight.txt"]
    with monkeypatch.context() as patch, pytest.raises(AtlasError, match=fails):
        patch.setattr(trainer, "fine_tune", lambda *_: pytest.fail("the run was started again"))
        run_script(train, **job, settings=settings(epochs=2, batch_size=4, save_epochs="all", learning_rate=1e30).model_dump_json())
    run_script(train, **job, settings=settings(epochs=2, batch_size=4).model_dump_json())  # another recipe is another run
    assert (tmp_path / "output/train.json").exists()


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("harmed", "steps_left"),
    [
        (("trainer/checkpoint-4/optimizer.pt",), 4),
        (("trainer/checkpoint-4/model.safetensors", "trainer/checkpoint-2/trainer_state.json"), 6),
        (("epoch-1/model.safetensors",), 6),
        (("epoch-3/model.safetensors", "effect/0.safetensors"), 2),
    ],
    ids=["newest state", "all states", "kept epoch", "effect"],
)
def test_a_run_that_finds_its_state_damaged_ends_with_the_same_weights(
    run, tiny_base, run_script, tmp_path, monkeypatch, harmed, steps_left
):
    recipe = json.loads((run / "output/train.json").read_text())["settings"]
    files = {"base": tiny_base, "data": run / "train.parquet", "state": tmp_path / "state", "output": tmp_path / "output"}
    job = {
        "model": "tiny",
        "dataset": "counts",
        "recipe": "full",
        **files,
        "settings": json.dumps(recipe),
        "template": json.dumps(TEMPLATE),
    }
    monkeypatch.setattr(checkpointing, "TIME_SHARE", 1e9)  # a state after every epoch
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(resume_state, "publish_epochs", lambda *_: 1 / 0)  # the job dies when all is trained
        run_script(train, **job)
    for index, file in enumerate(harmed):
        (invert, cut)[index](tmp_path / "state" / file)
    run_script(train, **job)
    record, undisturbed = (json.loads((folder / "output/train.json").read_text()) for folder in (tmp_path, run))
    assert record["weights_sha256"] == undisturbed["weights_sha256"]
    assert record["resumed"] == (steps_left < 6)
    assert (record["logit_change_mean"] is None) == ("effect/0.safetensors" in harmed)


def test_weights_that_are_damaged_before_they_are_published_are_trained_again(run, tiny_base, run_script, tmp_path, monkeypatch):
    recipe = json.loads((run / "output/train.json").read_text())["settings"]
    files = {"base": tiny_base, "data": run / "train.parquet", "state": tmp_path / "state", "output": tmp_path / "output"}
    job = {
        "model": "tiny",
        "dataset": "counts",
        "recipe": "full",
        **files,
        "settings": json.dumps(recipe),
        "template": json.dumps(TEMPLATE),
    }
    publish = resume_state.publish_epochs

    def harm_and_publish(state, *others):
        cut(state / "epoch-3/model.safetensors")
        return publish(state, *others)

    with monkeypatch.context() as patch, pytest.raises(AtlasError, match="epoch 3 was removed and nothing is published"):
        patch.setattr(resume_state, "publish_epochs", harm_and_publish)
        run_script(train, **job)
    assert not list((tmp_path / "output").glob("epoch-*"))
    run_script(train, **job)
    record, undisturbed = (json.loads((folder / "output/train.json").read_text()) for folder in (tmp_path, run))
    assert record["weights_sha256"] == undisturbed["weights_sha256"]


# ---------------------------------------------------------------- several processes


def test_a_worker_uses_the_gpus_of_the_job_that_started_it():
    call = [
        "--base",
        "b",
        "--model",
        "m",
        "--dataset",
        "d",
        "--recipe",
        "r",
        "--data",
        "t",
        "--settings",
        settings(gpus=4).model_dump_json(),
    ]
    call += ["--template", "{}", "--state", "s", "--output", "o"]
    assert [train.gpus(job.parser(train).parse_args([*call, *more])) for more in ([], ["--worker"])] == [4, 0]


def test_processes_that_ran_out_of_memory_are_started_again_with_less(tmp_path, monkeypatch):
    recipe, runs = settings(gpus=2), []

    def launch(*_):
        runs.append(micro_batch.load_plan(tmp_path)[0])
        if len(runs) < 3:
            micro_batch.reduce_micro_batch(runs[-1] or BatchPlan.of_recipe(recipe), "out of memory", recipe, tmp_path, "x")
            return [sys.executable, "-c", "raise SystemExit(1)"]
        (tmp_path / "facts.json").write_text(json.dumps({"steps": 7}))
        return [sys.executable, "-c", ""]

    monkeypatch.setattr(hardware, "launch_command", launch)
    assert train.train_in_workers(recipe, tmp_path, "x", 2) == {"steps": 7}
    assert runs == [None, BatchPlan(2, 2, False), BatchPlan(1, 4, False)]


def test_processes_that_diverged_end_the_job_with_their_message(tmp_path, monkeypatch):
    (tmp_path / resume_state.DIVERGED).write_text(json.dumps({"error": "x: the loss is nan at optimiser step 3 of 9"}))
    monkeypatch.setattr(hardware, "launch_command", lambda *_: [sys.executable, "-c", "raise SystemExit(1)"])
    with pytest.raises(AtlasError, match="the loss is nan at optimiser step 3 of 9"):
        train.train_in_workers(settings(gpus=2), tmp_path, "x", 2)


def test_a_process_that_fails_otherwise_ends_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "launch_command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(AtlasError, match=r"one of 2 processes failed \(exit code 3\)"):
        train.train_in_workers(settings(gpus=2), tmp_path, "x", 2)
