"""Several processes give the weights of one (gloo on CPUs; accelerate shards with FSDP2 on GPUs only)."""

import json
import subprocess
import sys

import polars as pl
import pytest

from helpers.tiny import ROWS, TEMPLATE, distance, weights
from sft_atlas.core.provenance import ROOT


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_processes_train_what_one_trains(cases, tmp_path, method):
    """Two processes of `accelerate launch`, with half the batch each, end with the weights of one process."""
    case = cases("llama")
    pl.DataFrame(ROWS).write_parquet(tmp_path / "train.parquet")
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
    assert (record["micro_batch_size"], record["gradient_accumulation_steps"], record["steps"]) == (2, 2, 3)
    _, last = case.train(tmp_path / "one", **recipe)
    assert distance(weights(tmp_path / "out/epoch-3/weights"), weights(last)) < 2e-4
