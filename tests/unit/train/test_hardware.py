"""Kernels are chosen by what is installed, and several processes are sharded as the recipe says."""

import os
import sys
from types import SimpleNamespace

import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train import hardware, trainer
from sft_atlas.train.micro_batch import BatchPlan


def settings(**changes):
    return Hyperparameters(**({"method": "full", "rows": 8, "epochs": 1, "learning_rate": 1e-3, "batch_size": 8} | changes))


@pytest.fixture
def base(tiny_base):
    return ModelFolder.read(tiny_base)


@pytest.fixture
def packages(monkeypatch):
    """Say which modules are installed."""

    def have(*modules):
        monkeypatch.setattr(hardware, "installed", lambda module: module in modules)

    have()
    return have


def test_attention_is_the_best_that_is_installed(base, packages):
    def chosen(where="cuda", autocast=True):
        return hardware.attention(settings(), base, where, autocast)

    assert chosen() is None  # the model's own choice: SDPA, eager where soft-capping needs it
    packages("flash_attn")
    assert chosen() == "flash_attention_2"
    packages("flash_attn", "flash_attn_interface")
    assert chosen() == "flash_attention_3"
    assert chosen(where="cpu") is None and chosen(autocast=False) is None
    assert hardware.attention(settings(deterministic=True), base, "cuda", True) is None


def test_attention_by_name_is_obeyed_or_refused(base, packages):
    assert hardware.attention(settings(attention="eager"), base, "cpu", False) == "eager"
    with pytest.raises(AtlasError, match="needs the module flash_attn, which is not installed"):
        hardware.attention(settings(attention="flash_attention_2"), base, "cuda", True)
    packages("flash_attn")
    with pytest.raises(AtlasError, match="needs a CUDA GPU and bfloat16"):
        hardware.attention(settings(attention="flash_attention_2"), base, "cpu", False)


def test_weights_are_held_as_the_method_means_it(base):
    half = ModelFolder("b", base.path, "bfloat16", False)
    assert hardware.precision(settings(), half, "cpu") == ("float32", False)
    assert hardware.precision(settings(precision="bfloat16"), half, "cpu") == ("float32", True)
    assert hardware.precision(settings(weights="bfloat16", precision="bfloat16"), half, "cpu") == ("bfloat16", True)
    assert hardware.precision(settings(method="lora"), half, "cpu") == ("float32", False)
    assert hardware.precision(settings(method="lora", precision="bfloat16"), half, "cpu") == ("bfloat16", True)


def test_kernels_that_are_not_here_are_refused(packages):
    hardware.check_kernels(settings(), "cpu")
    with pytest.raises(AtlasError, match=r"liger-kernel, which is not installed; .*python.* -m pip install liger-kernel=="):
        hardware.check_kernels(settings(liger=True), "cuda")
    packages("liger_kernel")
    hardware.check_kernels(settings(liger=True), "cuda")
    with pytest.raises(AtlasError, match="needs a GPU"):
        hardware.check_kernels(settings(liger=True), "cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus": 3}, "not a multiple of micro_batch_size 1 x 3 gpus"),
        ({"gpus": 2, "micro_batch_size": 8}, "not a multiple of micro_batch_size 8 x 2 gpus"),
        ({"gpus": 2, "compile": True}, "compile is checked on one GPU only"),
        ({"gpus": 2, "weights": "bfloat16"}, "weights: bfloat16 is for one GPU"),
        ({"deterministic": True, "liger": True}, "deterministic: true does not cover the kernels"),
        ({"deterministic": True, "attention": "flash_attention_3"}, "deterministic: true does not cover the kernels"),
        ({"layers": [0.7, 0.3]}, "give the smaller depth first"),
        ({"layers": [0.3]}, "at least 2 items"),
        ({"method": "lora", "freeze_embeddings": True}, "freeze_embeddings makes no sense"),
        ({"method": "lora", "weights": "bfloat16"}, "weights makes no sense"),
        ({"weights": "bfloat16", "precision": "float32"}, "weights: bfloat16 contradicts precision: float32"),
    ],
)
def test_contradictory_recipes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


# ---------------------------------------------------------------- several processes


SCRIPT = ["workflow_scripts/run.py", "train", "--settings", "{}", "--worker", "--log", "x.log"]


def test_several_processes_are_started_by_torchrun():
    from torch.distributed.run import parse_args

    command = hardware.launch_command(settings(gpus=4), SCRIPT, "127.0.0.1", 29511)
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    understood = parse_args(command[3:])
    assert (understood.nnodes, understood.nproc_per_node, understood.max_restarts) == ("1", "4", 0)
    assert (understood.rdzv_backend, understood.rdzv_endpoint) == ("c10d", "127.0.0.1:29511")
    assert [understood.training_script, *understood.training_script_args] == SCRIPT


def test_on_several_nodes_srun_starts_one_torchrun_each(monkeypatch):
    two = settings(gpus=8, nodes=2)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(AtlasError, match="nodes: 2 needs Slurm"):
        hardware.launch_command(two, SCRIPT, "n1", 29511)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    command = hardware.launch_command(two, SCRIPT, "n1", 29511)
    assert command[:4] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    torchrun = command[command.index(sys.executable) :]
    assert torchrun[3:7] == ["--nnodes", "2", "--nproc-per-node", "4"] and "n1:29511" in torchrun
    with pytest.raises(ValueError, match="gpus 3 is not a multiple of nodes 2"):
        settings(gpus=3, nodes=2, batch_size=9)


def test_only_the_recipe_sets_up_a_run(monkeypatch):
    for name in ("ACCELERATE_MIXED_PRECISION", "FSDP_VERSION", "PET_NNODES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "2")
    hardware.ignore_accelerate_settings()
    left = [name for name in ("ACCELERATE_MIXED_PRECISION", "FSDP_VERSION", "PET_NNODES", "CUDA_VISIBLE_DEVICES") if name in os.environ]
    assert left == ["CUDA_VISIBLE_DEVICES"]


def test_fsdp2_is_what_the_trainer_is_given(tmp_path):
    import torch

    one = trainer.sft_config(settings(), BatchPlan(4, 2, True), tmp_path, "cpu", False)
    assert not one.fsdp and one.activation_checkpointing and one.fsdp_plugin_args is None
    args = trainer.sft_config(settings(gpus=2), BatchPlan(4, 1, True), tmp_path, "cpu", True)
    plugin = args.fsdp_plugin_args
    assert plugin["fsdp_version"] == 2 and plugin["reshard_after_forward"] and plugin["state_dict_type"] == "SHARDED_STATE_DICT"
    assert plugin["auto_wrap_policy"] == "TRANSFORMER_BASED_WRAP" and "activation_checkpointing" not in plugin
    assert args.activation_checkpointing  # by transformers: FSDP's own draws other dropout masks and loses adapters
    policy = plugin["mixed_precision_policy"]
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.float32, None)
    assert args.accelerator_config.gradient_accumulation_kwargs == {"sync_each_batch": True}
    assert hardware.mixed_precision(False).param_dtype is None


# ---------------------------------------------------------------- on a GPU


@pytest.fixture
def trained(tiny_base, tmp_path):
    """Losses of a short run on a base of 128 x 4 layers in bfloat16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from sft_atlas.models.base_model import load_tokenizer
    from sft_atlas.train.dataset import Sample, Samples

    size = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 320}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**size)).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    base = ModelFolder("b", tmp_path / "base", "bfloat16", False)
    tokenizer = load_tokenizer(ModelFolder.read(tiny_base))
    samples = Samples([Sample(i, [1, *range(3 + i, 40 + 3 * i)], 20) for i in range(16)], [])

    def run(name, **changes):
        (tmp_path / name).mkdir()
        facts = trainer.fine_tune(base, samples, tokenizer, settings(epochs=3, **changes), tmp_path / name, name)
        return SimpleNamespace(losses=[float(entry["loss"]) for entry in facts["log"] if "loss" in entry], **facts)

    return run


@pytest.mark.gpu
@pytest.mark.parametrize(
    "option",
    [{"liger": True}, {"compile": True}, {"padding_free": True}, {"attention": "eager"}, {"activation_checkpointing": True}],
    ids=str,
)
def test_a_kernel_changes_the_losses_by_rounding_only(trained, option):
    if "liger" in option:
        pytest.importorskip("liger_kernel")
    plain, special = trained("plain"), trained("special", **option)
    assert special.losses == pytest.approx(plain.losses, rel=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_deterministic_run_is_repeated_bit_for_bit(trained, method):
    import torch

    try:
        one, again = (trained(name, method=method, deterministic=True) for name in ("one", "again"))
    finally:
        torch.use_deterministic_algorithms(False)
    assert one.losses == again.losses and one.hashes == again.hashes and one.logit_change_mean == again.logit_change_mean


@pytest.mark.gpu
def test_bfloat16_is_used_where_the_device_has_it(trained):
    facts = trained("plain")
    assert facts.autocast == "bfloat16" and facts.dtype == "float32" and facts.peak_device_memory_mib > 0
    assert trained("lora", method="lora").dtype == "bfloat16"


@pytest.mark.gpu
def test_training_recovers_when_a_gpu_runs_out_of_memory(trained):
    import torch

    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.0008)  # of an H200: about 110 MiB
    try:
        facts = trained("small")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert facts.micro_batch_size * facts.gradient_accumulation_steps == 8 and facts.steps == 6
