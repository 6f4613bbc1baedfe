"""One job answers for several adapters of a base model, which it loads once; their own jobs find the answers, also after a kill."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model

from helpers import fake_vllm
from helpers.waiting import until
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import answer_adapters, evaluate
from sft_atlas.evaluate.tasks import BenchmarkFiles, SuiteFile
from sft_atlas.models.base_model import ModelFolder, SharedBase, load_model
from sft_atlas.study import adapter_batches
from sft_atlas.study.schema import Template

DATASETS = ("red", "blue", "green")


class Batch:
    """Adapters of one base model in a study's folders, and the jobs that score them."""

    def __init__(self, folder, base, run_script, backend="hf"):
        self.folder, self.base, self.run_script, self.backend = folder, base, run_script, backend
        items = [{"instruction": text, "answer": text, "choices": ["red", "blue"], "label": 0} for text in ("one", "two", "three")]
        (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        tasks = {"short": "generate.yaml", "pick": "choice.yaml"}
        files = [BenchmarkFiles(name, ROOT / "config/benchmarks" / task, folder / "items.jsonl") for name, task in tasks.items()]
        SuiteFile("tasks", files).write(folder / "suite.json")
        for number, dataset in enumerate(DATASETS):
            torch.manual_seed(number)
            settings = LoraConfig(r=2 + number, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
            get_peft_model(load_model(ModelFolder.read(base)), settings).save_pretrained(self.run(dataset) / "weights")
            (self.run(dataset).parent / "train.json").write_text(json.dumps({"template": Template().model_dump()}))
        self.output = folder / "state/adapters/tiny/tasks-0.json"
        self.members = [
            {
                "dataset": dataset,
                "recipe": "lora",
                "epoch": "2",
                "weights": str(self.run(dataset) / "weights"),
                "state": str(self.state(dataset)),
                "log": str(folder / f"logs/{dataset}.log"),
            }
            for dataset in DATASETS
        ]
        self.options = {"suite": folder / "suite.json", "base": base, "backend": backend, "model": "tiny", "max_length": 200}
        self.options |= {"template": Template().model_dump_json(), "max_new_tokens": 6}

    def run(self, dataset):
        return self.folder / f"runs/tiny/{dataset}/lora/epoch-2"

    def state(self, dataset):
        return self.folder / f"state/suites/tiny/{dataset}/lora/epoch-2/tasks"

    def answer(self):
        adapter_batches.write(str(self.output), self.members)
        self.run_script(answer_adapters, **self.options, output=self.output)

    def score(self, dataset, state=None):
        """Scores, samples and record of one checkpoint, by its own job."""
        outputs = {f"output_{kind}": self.run(dataset) / f"{kind}/tasks.parquet" for kind in ("scores", "samples")}
        keys = {"dataset": dataset, "recipe": "lora", "epoch": 2, "weights": self.run(dataset) / "weights"}
        self.run_script(evaluate, **self.options, **keys, state=state or self.state(dataset), **outputs)
        record = json.loads(outputs["output_scores"].with_suffix(".json").read_text())
        return *(pl.read_parquet(path) for path in outputs.values()), record


@pytest.fixture
def batch(tmp_path, tiny_base, run_script, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the batch is written down in the current folder
    return Batch(tmp_path, tiny_base, run_script)


@pytest.fixture
def loads(monkeypatch):
    """Adapters and base models, in the order in which they are loaded."""
    seen, load, apply = [], SharedBase.__init__, SharedBase.with_adapter
    monkeypatch.setattr(SharedBase, "__init__", lambda self, *args, **more: seen.append("base") or load(self, *args, **more))
    monkeypatch.setattr(SharedBase, "with_adapter", lambda self, folder, *rest: seen.append(folder.parts[-4]) or apply(self, folder, *rest))
    return seen


def test_a_base_model_is_loaded_once_and_each_checkpoint_is_scored_as_alone(batch, loads):
    alone = [batch.score(dataset, batch.folder / f"alone/{dataset}/tasks") for dataset in DATASETS]
    assert loads == ["base", "red", "base", "blue", "base", "green"]
    loads.clear()
    batch.answer()
    assert loads == ["base", *DATASETS]
    written = json.loads(batch.output.read_text())["answered"]
    assert written == [{"dataset": name, "recipe": "lora", "epoch": "2", "asked": 3 + 3 * 2, "taken_over": 0} for name in DATASETS]
    for dataset, before in zip(DATASETS, alone, strict=True):
        after = batch.score(dataset)
        assert [one.equals(other) for one, other in zip(before[:2], after[:2], strict=True)] == [True, True]
        assert after[2]["requests"] == {"asked": 0, "taken_over": 9}
        assert [after[2][key] for key in ("adapter", "device", "dtype")] == ["merged and run in float32", "cpu", "float32"]
        assert "done in" in (batch.folder / f"logs/{dataset}.log").read_text()
    assert loads == ["base", *DATASETS]


def test_kill_9_in_the_middle_loses_no_finished_checkpoint(batch):
    third, kept = batch.run("green") / "weights/adapter_model.safetensors", batch.folder / "kept.safetensors"
    third.rename(kept)
    os.mkfifo(third)  # whoever reads it waits
    adapter_batches.write(str(batch.output), batch.members)
    options = [word for key, value in batch.options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    command = [sys.executable, ROOT / "workflow_scripts/run.py", "answer_adapters", *options, "--output", batch.output]
    process = subprocess.Popen(list(map(str, command)), cwd=batch.folder, env=os.environ | {"SFT_ATLAS_WARM": "0"})
    until((batch.folder / "logs/blue.log").exists, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not batch.output.exists()
    third.unlink()
    kept.rename(third)
    assert [batch.score(dataset)[2]["requests"]["asked"] for dataset in DATASETS] == [0, 0, 9]
    batch.answer()
    assert [entry["asked"] for entry in json.loads(batch.output.read_text())["answered"]] == [0, 0, 0]


def test_a_diverged_checkpoint_is_left_to_its_own_job_and_the_others_are_answered(batch, monkeypatch, caplog):
    from safetensors.torch import load_file, save_file

    path = batch.run("blue") / "weights/adapter_model.safetensors"
    factors = load_file(path)
    next(iter(factors.values())).fill_(float("nan"))
    save_file(factors, path, {"format": "pt"})
    batch.answer()
    assert "tiny/blue/lora, epoch 2 is left to its own job" in caplog.text and "not finite" in caplog.text
    assert [entry["dataset"] for entry in json.loads(batch.output.read_text())["answered"]] == ["red", "green"]
    assert batch.score("green")[2]["requests"]["asked"] == 0
    with pytest.raises(AtlasError, match="not finite"):
        batch.score("blue")


def test_vllm_applies_each_adapter_by_a_request_to_one_engine(tmp_path, tiny_base, run_script, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake_vllm.install(monkeypatch)
    entry = json.loads(tiny_base.read_text())
    (tmp_path / "model.json").write_text(json.dumps(entry | {"dtype": "bfloat16"}))
    batch = Batch(tmp_path, tmp_path / "model.json", run_script, backend="vllm")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    batch.answer()
    (arguments,) = fake_vllm.LLM.made
    assert {key: arguments[key] for key in ("model", "dtype", "enable_lora", "max_loras", "max_lora_rank")} == {
        "model": entry["path"], "dtype": "bfloat16", "enable_lora": True, "max_loras": 1, "max_lora_rank": 8,
    }  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before  # no copy of weights
    record = batch.score("red")[2]
    assert record["requests"]["asked"] == 0 and record["adapter"] == "applied by vLLM in bfloat16, not merged"
    assert (record["backend"], record["dtype"]) == ("vllm", "bfloat16")


# ---------------------------------------------------------------- which jobs of a call


def test_jobs_of_a_call_are_batched_by_base_model_and_suite(tmp_path, monkeypatch, tiny_study):
    monkeypatch.chdir(tmp_path)
    inputs = tiny_study
    wildcards = [("ant", name, recipe, 5) for name in ("red", "blue", "green", "all") for recipe in ("lora", "full")] + [
        ("ant", "base", "base", 0)
    ]
    names = ("model", "dataset", "recipe", "epoch")
    jobs = [
        SimpleNamespace(rule=SimpleNamespace(name="evaluate"), wildcards=Wildcards(zip(names, values, strict=True), suite="short"))
        for values in wildcards
    ]
    assert inputs.adapter_batches(jobs, slots=1) == {}  # by default not on a CPU
    inputs.gpu = True
    found = inputs.adapter_batches(jobs, slots=1)
    assert list(found) == ["results/x/state/adapters/ant/short-0.json"]
    (members,) = found.values()
    assert sorted(job.wildcards.dataset for job in members) == ["all", "blue", "green", "red"] and {
        job.wildcards.recipe for job in members
    } == {"lora"}
    assert [member["dataset"] for member in adapter_batches.read(next(iter(found)))] == ["all", "blue", "green", "red"]
    assert len(inputs.adapter_batches(jobs, slots=2)) == 2
    assert len(inputs.adapter_batches(jobs, slots=1, minutes=lambda job: 50, limit=100)) == 2
    assert inputs.adapter_batches([job for job in jobs if job.wildcards.dataset == "red"], slots=1) == {}  # one alone by name


class Wildcards(dict):
    """As Snakemake's: by key and by attribute."""

    def __getattr__(self, name):
        return self[name]


@pytest.fixture
def tiny_study():
    from helpers.plan_study import STUDY
    from sft_atlas.evaluate.inputs import EvaluateInputs
    from sft_atlas.study import study as studies
    from sft_atlas.study.paths import Paths

    return EvaluateInputs(studies.from_config(json.loads(json.dumps(STUDY)), "small.yaml"), Paths("results/x"))
