"""Several processes give the weights of one, with a last batch that is not full (FSDP2 with gloo on CPUs)."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys

import polars as pl
import pytest
from transformers import AutoModelForCausalLM

from helpers.processes import exit_codes, forked, shard_on_the_cpu
from helpers.tiny import FAMILIES, ROWS, TEMPLATE, distance, weights
from helpers.waiting import HANG
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.measure import weight_change
from sft_atlas.train import checkpointing, dataset, padding_free

MORE = [{"instruction": "Say yes.", "response": "yes yes yes"}, {"instruction": "Say no.", "response": "no"}]
EVERY = os.environ.get("SFT_ATLAS_EVERY_SHARDING") == "1"  # all families and combinations, in five minutes
SHARDED = FAMILIES if EVERY else ("llama", "gemma2", "qwen2")  # the last two share embedding and head
COMBINATIONS = [  # method, precision, recomputed activations
    (method, precision, recomputed)
    for method, precision, recomputed in itertools.product(("full", "lora"), ("float32", "bfloat16"), (False, True))
    if EVERY or (method == "full") ^ (precision == "float32") == recomputed  # half of them: every pair of values occurs
]
LORA = {"method": "lora", "learning_rate": 1e-2, "lora": {"rank": 4, "alpha": 8}}
RECIPE = {"batch_size": 8, "epochs": 2, "save_epochs": "all"}


def ten_samples(case):
    """The case with ten samples, of which two remain after a batch of eight."""
    return dataclasses.replace(case, samples=dataset.tokenize([*ROWS, *MORE], case.tokenizer, TEMPLATE, 256))


def recipe(method: str, precision: str, recomputed: bool = False) -> dict:
    return RECIPE | (LORA if method == "lora" else {}) | {"precision": precision, "activation_checkpointing": recomputed}


@pytest.fixture(scope="module")
def case(cases):
    return ten_samples(cases("llama"))


@pytest.fixture(scope="module")
def sharded(cases, tmp_path_factory):
    """A folder of runs by two processes, family/method-precision-recomputed; one launch trains them all."""
    folder, families = tmp_path_factory.mktemp("sharded"), {name: ten_samples(cases(name)) for name in SHARDED}
    for name in families:
        (folder / name).mkdir()

    def train(rank: int) -> None:
        shard_on_the_cpu()
        for (name, case), combination in itertools.product(families.items(), COMBINATIONS):
            case.train(folder / name / "-".join(map(str, combination)), **recipe(*combination), gpus=2, micro_batch_size=2)

    forked(2, train)
    return folder


@pytest.fixture(scope="module")
def single(cases, tmp_path_factory):
    """A function from a family, a method and a precision to the folder of that run by one process."""
    folder, made = tmp_path_factory.mktemp("single"), {}

    def run(*key: str):
        if key not in made:
            made[key] = ten_samples(cases(key[0])).train(folder / "-".join(key), **recipe(*key[1:]))[1].parent
        return made[key]

    return run


def apart(one, other, origin) -> float:
    """Distance of two checkpoints, as a share of the distance of the second to where training began (none: zero, an adapter's begin)."""
    squares = sum((one[key].float() - other[key].float()).square().sum().item() for key in other)
    whole = sum((other[key].float() - (origin[key].float() if origin else 0)).square().sum().item() for key in other)
    return (squares / whole) ** 0.5


@pytest.mark.parametrize("family", SHARDED)
@pytest.mark.parametrize(("method", "precision", "recomputed"), COMBINATIONS)
def test_two_processes_share_a_model_and_train_it_as_one_does(sharded, single, cases, family, method, precision, recomputed):
    """FSDP2 on two processes ends every kept epoch with the tensors of one process: float32 within 1e-5, bfloat16 as near to float32 as one."""
    folder = sharded / family / f"{method}-{precision}-{recomputed}"
    for epoch in ("epoch-1", "epoch-2"):
        two, one = weights(folder / epoch), weights(single(family, method, precision) / epoch)
        exact = weights(single(family, method, "float32") / epoch)
        assert two.keys() == one.keys()
        assert {key: (tensor.shape, tensor.dtype) for key, tensor in two.items()} == {key: (t.shape, t.dtype) for key, t in one.items()}
        if precision == "float32":
            assert distance(two, one) < 1e-5
        else:
            origin = weights(cases(family).base.path) if method == "full" else None
            assert 0 < apart(two, exact, origin) < 1.5 * apart(one, exact, origin) < 0.2
    name = "config.json" if method == "full" else "adapter_config.json"
    assert json.loads((folder / epoch / name).read_text()) == json.loads((single(family, method, precision) / epoch / name).read_text())


def test_tied_weights_stay_tied(sharded, cases):
    """FSDP2 saves a tied head once, so that weight change has no row for it."""
    folder = sharded / "gemma2/full-float32-False/epoch-2"
    assert {row["component"] for row in weight_change.layer_changes(cases("gemma2").base.path, folder)}.isdisjoint({"head"})


@pytest.mark.parametrize(("processes", "micro_batches"), [(2, (4, 2, 1)), pytest.param(4, (2, 1), marks=pytest.mark.slow)])
def test_every_micro_batch_trains_the_same_samples(case, tmp_path, processes, micro_batches):
    """With FSDP2, any number of processes and any micro-batch end with the weights of one process, also where a process has no sample left."""
    settings = {"batch_size": 8, "epochs": 2}

    def train(rank: int) -> None:
        shard_on_the_cpu()
        if rank:
            AutoModelForCausalLM.from_pretrained = None  # the first process reads the weights for all
        for size in micro_batches:
            case.train(tmp_path / f"micro-{size}", **settings, gpus=processes, micro_batch_size=size)

    forked(processes, train)
    one = weights(case.train(tmp_path / "one", **settings)[1])
    assert max(distance(weights(tmp_path / f"micro-{size}/epoch-2"), one) for size in micro_batches) < 1e-5
    assert distance(weights(case.base.path), one) > 1e-3


def test_padding_free_batches_of_several_processes(case, tmp_path):
    """Padding-free batches of two processes end with the weights of one process with padding; samples that see each other are refused."""
    settings = {"batch_size": 8, "epochs": 2}

    def train(rank: int) -> None:
        shard_on_the_cpu()
        case.train(tmp_path / "two", **settings, gpus=2, micro_batch_size=2, padding_free=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(padding_free, "LEAK", -1.0)  # the smallest difference is a leak
            with pytest.raises(AtlasError, match="would let samples see each other"):
                case.train(tmp_path / "leaking", **settings, gpus=2, padding_free=True)

    forked(2, train)
    one = weights(case.train(tmp_path / "one", **settings)[1])
    assert distance(weights(tmp_path / "two/epoch-2"), one) < 1e-5


# ---------------------------------------------------------------- one process fails

FAULTY = """
import os, signal, sys
from pathlib import Path
if "RANK" in os.environ:
    sys.path[:0] = [{scripts!r}, {tests!r}]
    from helpers.processes import shard_on_the_cpu
    from sft_atlas.train import checkpointing, dataset

    shard_on_the_cpu()
    dataset.tokenize = None  # the job did it
    checkpointing.TIME_SHARE = 1e9
    step_end, folder = checkpointing.CheckpointCallback.on_step_end, Path({folder!r})

    def once(name):
        first = not (folder / name).exists()
        (folder / name).touch()
        return first

    def faulty(self, args, state, control, **more):
        if os.environ["RANK"] == "1" and state.global_step == 2 and once("ran out of memory"):
            raise RuntimeError("CUDA error: out of memory")
        if os.environ["RANK"] == "1" and state.global_step == 5 and once("was killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        return step_end(self, args, state, control, **more)

    checkpointing.CheckpointCallback.on_step_end = faulty
"""


def test_a_job_survives_what_happens_to_one_of_its_processes(case, tmp_path):
    """One of two processes of `accelerate launch` runs out of memory, later one is killed; the resumed job has the weights of one process."""
    pl.DataFrame([*ROWS, *MORE]).write_parquet(tmp_path / "train.parquet")
    settings = {"method": "full", "batch_size": 8, "epochs": 3, "save_epochs": "all"}
    (tmp_path / "faults").mkdir()
    program = FAULTY.format(scripts=str(ROOT / "workflow_scripts"), tests=str(ROOT / "tests"), folder=str(tmp_path / "faults"))
    (tmp_path / "faults/sitecustomize.py").write_text(program)  # Python runs it when it starts
    call = [
        sys.executable, str(ROOT / "workflow_scripts/run.py"), "train", "--base", str(case.base.path.parent / "llama.json"), "--data", str(tmp_path / "train.parquet"),
        "--model", "m", "--dataset", "d", "--recipe", "r", "--template", json.dumps(TEMPLATE),
        "--settings", case.settings(**settings, gpus=2).model_dump_json(),
        "--state", str(tmp_path / "state"), "--output", str(tmp_path / "out"), "--log", str(tmp_path / "log"),
    ]  # fmt: skip
    ended = [subprocess.run(call, timeout=HANG, env=os.environ | {"PYTHONPATH": str(tmp_path / "faults")}).returncode for _ in range(2)]
    log = (tmp_path / "log").read_text()
    assert ended == [1, 0], log[-3000:]
    record = json.loads((tmp_path / "out/train.json").read_text())
    assert record["out_of_memory"] == ["micro-batch 4 x 1: CUDA error: out of memory"]
    assert (record["micro_batch_size"], record["gradient_accumulation_steps"], record["steps"], record["resumed"]) == (2, 2, 6, True)
    assert (record["samples"], record["tokens"]) == (10, 3 * sum(map(len, case.samples.kept)))
    case.train(tmp_path / "one", **settings)
    for epoch in (1, 2, 3):
        assert distance(weights(tmp_path / f"out/epoch-{epoch}/weights"), weights(tmp_path / f"one/epoch-{epoch}")) < 1e-5


def test_a_sharded_run_resumes_to_the_weights_of_an_undisturbed_one(case, tmp_path, monkeypatch):
    """After `kill -9` of one of two processes, a resumed LoRA run in bfloat16 has the weights of an undisturbed one, dropout included."""
    monkeypatch.setattr(checkpointing, "TIME_SHARE", 1e9)
    settings = recipe("lora", "bfloat16", True) | {"epochs": 3, "lora": LORA["lora"] | {"dropout": 0.2}, "gpus": 2}
    step_end = checkpointing.CheckpointCallback.on_step_end

    def train(folder, killed=False):
        def killing(self, args, state, control, **more):
            if os.environ["RANK"] == "1" and state.global_step == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return step_end(self, args, state, control, **more)

        def one(rank: int) -> None:
            shard_on_the_cpu()
            if killed:
                checkpointing.CheckpointCallback.on_step_end = killing
            facts, _ = case.train(folder, **settings)
            (folder / "resumed").write_text(str(facts["resumed"]))

        return exit_codes(2, one)

    assert -signal.SIGKILL in train(tmp_path / "killed", killed=True)
    assert train(tmp_path / "killed") == train(tmp_path / "undisturbed") == [0, 0]
    assert [(tmp_path / name / "resumed").read_text() for name in ("killed", "undisturbed")] == ["True", "False"]
    for epoch in (1, 2, 3):
        assert distance(*(weights(tmp_path / name / f"epoch-{epoch}") for name in ("killed", "undisturbed"))) == 0
