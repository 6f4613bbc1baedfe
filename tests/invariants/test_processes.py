"""Several processes give the weights of one, with a last batch that is not full (gloo on CPUs)."""

import dataclasses
import json
import subprocess
import sys

import polars as pl
import pytest

from helpers.processes import forked
from helpers.tiny import ROWS, TEMPLATE, distance, weights
from sft_atlas.core.provenance import ROOT
from sft_atlas.train import dataset

MORE = [{"instruction": "Say yes.", "response": "yes yes yes"}, {"instruction": "Say no.", "response": "no"}]


@pytest.fixture(scope="module")
def case(cases):
    """A Llama with ten samples, of which two remain after a batch of eight."""
    llama = cases("llama")
    return dataclasses.replace(llama, samples=dataset.tokenize([*ROWS, *MORE], llama.tokenizer, TEMPLATE, 256))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_processes_train_what_one_trains(case, tmp_path, method):
    """Two processes of `accelerate launch`, with half the batch each, end with the weights of one process."""
    pl.DataFrame([*ROWS, *MORE]).write_parquet(tmp_path / "train.parquet")
    recipe = {"method": method, "batch_size": 8, "epochs": 3, "save_epochs": "all"}
    call = [
        sys.executable, str(ROOT / "workflow_scripts/run.py"), "train", "--base", str(case.base.path.parent / "llama.json"), "--data", str(tmp_path / "train.parquet"),
        "--model", "m", "--dataset", "d", "--recipe", "r", "--template", json.dumps(TEMPLATE),
        "--settings", case.settings(**recipe, gpus=2, micro_batch_size=2).model_dump_json(),
        "--state", str(tmp_path / "state"), "--output", str(tmp_path / "out"), "--log", str(tmp_path / "log"),
    ]  # fmt: skip
    ended = subprocess.run(call, timeout=300)
    assert ended.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    record = json.loads((tmp_path / "out/train.json").read_text())
    assert (record["micro_batch_size"], record["gradient_accumulation_steps"], record["steps"]) == (2, 2, 6)
    assert (record["samples"], record["tokens"]) == (10, 3 * sum(map(len, case.samples.kept)))
    _, last = case.train(tmp_path / "one", **recipe)
    assert distance(weights(tmp_path / "out/epoch-3/weights"), weights(last)) < 2e-4


def shard_on_the_cpu() -> None:
    """Let accelerate use FSDP2 on the CPU too, where it would only copy the model."""
    from accelerate.state import AcceleratorState, DistributedType, PartialState

    init = AcceleratorState.__init__

    def sharded(self, *args, fsdp_plugin=None, **more):
        init(self, *args, fsdp_plugin=fsdp_plugin, **more)
        if fsdp_plugin is not None:
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = sharded


@pytest.mark.parametrize(("processes", "micro_batches"), [(2, (4, 2, 1)), pytest.param(4, (2, 1), marks=pytest.mark.slow)])
def test_every_micro_batch_trains_the_same_samples(case, tmp_path, processes, micro_batches):
    """With FSDP2, any number of processes and any micro-batch end with the weights of one process, also where a process has no sample left."""
    recipe = {"batch_size": 8, "epochs": 2}

    def train(rank: int) -> None:
        shard_on_the_cpu()
        for size in micro_batches:
            case.train(tmp_path / f"micro-{size}", **recipe, gpus=processes, micro_batch_size=size)

    forked(processes, train)
    one = weights(case.train(tmp_path / "one", **recipe)[1])
    assert max(distance(weights(tmp_path / f"micro-{size}/epoch-2"), one) for size in micro_batches) < 1e-5
    assert distance(weights(case.base.path), one) > 1e-3
