"""Out of memory: the micro-batch is halved, the effective batch stays, and what was tried is recorded."""

import json

import pytest
import torch

from sft_atlas.core.errors import AtlasError
from sft_atlas.models.base_model import ModelFolder, load_tokenizer
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train import dataset as sampling
from sft_atlas.train import micro_batch, trainer
from sft_atlas.train.micro_batch import BatchPlan

TEMPLATE = {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"}
ROWS = [
    {"instruction": f"Spell the word backward: {word}.", "response": word[::-1]}
    for word in ("lemon", "apple", "dog", "fox", "quick", "brown")
]


def settings(**changes):
    return Hyperparameters(
        **({"method": "full", "rows": 6, "epochs": 3, "learning_rate": 1e-3, "batch_size": 6, "save_epochs": "all"} | changes)
    )


@pytest.fixture
def run(tiny_base, tmp_path):
    """Train the tiny model in a folder named by the caller; returns facts and the final weights."""
    from safetensors.torch import load_file

    base = ModelFolder.read(tiny_base)
    tokenizer = load_tokenizer(base)
    samples = sampling.tokenize(ROWS, tokenizer, TEMPLATE, 256)

    def train(name, **changes):
        (tmp_path / name).mkdir(exist_ok=True)
        facts = trainer.fine_tune(base, samples, tokenizer, settings(**changes), tmp_path / name, name)
        return facts, load_file(tmp_path / name / "epoch-3/model.safetensors")

    train.folder = tmp_path
    return train


@pytest.fixture
def memory(monkeypatch):
    """A device on which a forward pass of more than ``memory.rows`` samples runs out of memory, from call ``memory.after`` on."""
    from transformers import LlamaModel

    class Memory:
        rows, after, calls, recomputed_only = 99, 0, 0, False

    forward = LlamaModel.forward

    def limited(self, input_ids=None, **more):
        Memory.calls += self.training  # not the probe of the effect
        short = input_ids.shape[0] > Memory.rows or (Memory.recomputed_only and not self.is_activation_checkpointing)
        if short and self.training and Memory.calls > Memory.after:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        return forward(self, input_ids=input_ids, **more)

    monkeypatch.setattr(LlamaModel, "forward", limited)
    return Memory


def equal(one, other):
    return one.keys() == other.keys() and all((one[key] == other[key]).all() for key in one)


def test_the_micro_batch_is_halved_and_the_effective_batch_stays(run, memory):
    wanted, expected = run("wanted", micro_batch_size=3)
    memory.rows = 3
    facts, weights = run("run")
    assert (facts["micro_batch_size"], facts["gradient_accumulation_steps"], facts["steps"]) == (3, 2, wanted["steps"])
    assert facts["out_of_memory"] == ["micro-batch 6 x 1: CUDA out of memory. Tried to allocate 2.00 GiB."]
    assert equal(weights, expected)


def test_running_out_in_the_middle_goes_on_from_the_last_state(run, memory, monkeypatch):
    from sft_atlas.train import checkpointing

    monkeypatch.setattr(checkpointing, "TIME_SHARE", 1e9)  # a state after every epoch
    memory.rows, memory.after = 3, 1
    facts, _ = run("run")
    assert facts["resumed"] and facts["micro_batch_size"] == 3 and facts["steps"] == 3
    assert len([entry for entry in facts["log"] if "loss" in entry]) == 3
    assert json.loads((run.folder / "run/batch_plan.json").read_text())["plan"]["micro_batch_size"] == 3


def test_a_resumed_job_begins_with_what_fitted(run, memory):
    (run.folder / "run").mkdir()
    micro_batch.reduce_micro_batch(BatchPlan(6, 1, False), "no memory", settings(), run.folder / "run", "x")
    facts, _ = run("run")
    assert facts["micro_batch_size"] == 3 and facts["out_of_memory"] == ["micro-batch 6 x 1: no memory"]


@pytest.mark.slow
def test_one_sample_is_tried_again_with_recomputed_activations(run, memory):
    _, expected = run("wanted", micro_batch_size=1, activation_checkpointing=True)
    memory.recomputed_only = True
    facts, weights = run("run")
    assert facts["activation_checkpointing"] and facts["micro_batch_size"] == 1 and len(facts["out_of_memory"]) == 3
    assert equal(weights, expected)


@pytest.mark.slow
def test_it_fails_with_what_was_tried(run, memory):
    memory.rows = 0
    with pytest.raises(AtlasError, match="out of memory even with a micro-batch of 1") as caught:
        run("run")
    for tried in (
        "micro-batch 6 x 1:",
        "micro-batch 3 x 2:",
        "micro-batch 1 x 6:",
        "micro-batch 1 x 6, activation checkpointing:",
        "Lower max_length",
    ):
        assert tried in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no space"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.19 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("NCCL error in: NCCLUtils.cpp:93, unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'"),
        RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("HIP error: out of memory"),
        RuntimeError("CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB, max allowed: 9.07 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."
        ),
    ],
)
def test_running_out_of_memory_is_recognised_in_all_its_spellings(error):
    assert micro_batch.is_out_of_memory(error)


@pytest.mark.parametrize("text", ["CUDA error: an illegal memory access was encountered", "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"])
def test_other_errors_of_a_device_are_not_want_of_memory(text):
    assert not micro_batch.is_out_of_memory(RuntimeError(text))


def test_other_errors_are_not_taken_for_want_of_memory(run, monkeypatch):
    from transformers import LlamaModel

    def broken(self, **_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(LlamaModel, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run("run")


@pytest.mark.parametrize(
    ("batch", "gpus", "micros"), [(32, 1, [32, 16, 8, 4, 2, 1]), (6, 1, [6, 3, 1]), (12, 1, [12, 6, 3, 1]), (128, 4, [32, 16, 8, 4, 2, 1])]
)
def test_the_ladder_keeps_the_effective_batch(batch, gpus, micros):
    recipe = settings(batch_size=batch, gpus=gpus)
    fit, seen = BatchPlan.of_recipe(recipe), []
    while fit:
        assert fit.micro_batch_size * fit.gradient_accumulation_steps * gpus == batch
        seen.append(fit)
        fit = fit.smaller(recipe)
    assert [fit.micro_batch_size for fit in seen] == [*micros, 1]
    assert [fit.activation_checkpointing for fit in seen] == [False] * len(micros) + [True]


def test_a_failed_attempt_leaves_nothing_in_memory(run, memory, monkeypatch):
    import gc
    import weakref

    from transformers import LlamaModel

    def models():
        return [thing for thing in gc.get_objects() if isinstance(thing, LlamaModel)]

    free, left, others = micro_batch.free_memory, [], weakref.WeakSet(models())  # of other tests in this process

    def counting():
        free()
        left.append(sum(model not in others for model in models()))

    monkeypatch.setattr(micro_batch, "free_memory", counting)
    memory.rows = 3
    run("run")
    assert left == [0]
