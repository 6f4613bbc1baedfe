"""What a training job runs on: precision, attention kernel, optional kernels, and the processes of a job on several GPUs.

``device_type`` is torch's: ``cuda``, ``cpu`` and so on.
"""

import importlib.util
import os
import sys

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.optional_packages import how_to_install
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.study.schema import Hyperparameters

FLASH = {"flash_attention_3": "flash_attn_interface", "flash_attention_2": "flash_attn"}  # kernel -> the module it needs, best first


def precision(settings: Hyperparameters, base: ModelFolder, device_type: str) -> tuple[str, bool]:
    """Type of the weights during training, and whether to autocast to bfloat16.

    Full fine-tuning has float32 weights unless the recipe says otherwise: at the paper's learning rates most updates are below the
    resolution of bfloat16. LoRA has the frozen base in its own type and the adapter in float32 (peft's default).
    """
    import torch

    has_bfloat16 = device_type != "cpu" and (device_type != "cuda" or torch.cuda.is_bf16_supported())
    autocast = settings.precision == "bfloat16" or (settings.precision == "auto" and has_bfloat16)
    if settings.method == "full":
        return settings.weights, autocast
    return (base.dtype if autocast else "float32"), autocast


def installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def attention(settings: Hyperparameters, base: ModelFolder, device_type: str, autocast: bool) -> str | None:
    """The value of ``attn_implementation``; None leaves it to transformers (SDPA, or eager where the model has no SDPA).

    Raises AtlasError where the recipe names a kernel that cannot run here.
    """
    if settings.attention == "auto":
        if settings.deterministic:
            return None  # torch makes SDPA deterministic
        usable = device_type == "cuda" and autocast and _supports_flash(base)
        return next((name for name, module in FLASH.items() if usable and installed(module)), None)
    module = FLASH.get(settings.attention)
    if module and not installed(module):
        raise AtlasError(f"attention: {settings.attention} needs the module {module}, which is not installed; install it")
    if module and not (device_type == "cuda" and autocast):
        raise AtlasError(f"attention: {settings.attention} needs a CUDA GPU and bfloat16; write attention: auto")
    return settings.attention


def _supports_flash(base: ModelFolder) -> bool:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(base.path, trust_remote_code=base.trust_remote_code)
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]._supports_flash_attn


def check_kernels(settings: Hyperparameters, device_type: str) -> None:
    """Raise AtlasError where the recipe needs kernels that are not installed or cannot run here."""
    if settings.liger and not installed("liger_kernel"):
        raise AtlasError(f"liger: true needs liger-kernel, which is not installed; {how_to_install('liger-kernel')}, or remove liger")
    if settings.optim == "adamw_8bit" and not installed("bitsandbytes"):
        raise AtlasError(f"optim: adamw_8bit needs bitsandbytes, which is not installed; {how_to_install('bitsandbytes')}, or remove optim")
    if settings.liger and device_type == "cpu":
        raise AtlasError("liger: true needs a GPU, and there is none here; remove liger")


def ignore_accelerate_settings() -> None:
    """Take from the environment what would set up the processes or the precision of a run beside its recipe.

    The variables are those of accelerate and of torchrun. The file that `accelerate config` writes is read by `accelerate launch` alone,
    which is not used here. GPUs stay those that the scheduler gave (CUDA_VISIBLE_DEVICES).
    """
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_", "PET_"))]:
        del os.environ[name]


def launch_command(settings: Hyperparameters, script: list[str], host: str, port: int) -> list[str]:
    """The command that runs a script in one process per GPU: torchrun, on several nodes one under `srun` on each, meeting at host:port.

    :func:`sharding` says how they share the model. Source: https://docs.pytorch.org/docs/stable/elastic/run.html
    """
    torchrun = [
        sys.executable, "-m", "torch.distributed.run",
        "--nnodes", str(settings.nodes), "--nproc-per-node", str(settings.gpus // settings.nodes), "--max-restarts", "0",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{host}:{port}", "--rdzv-id", f"{host}:{port}",
        # It would give its workers a limited time to save; they get the signals themselves (interruption.run_workers).
        "--signals-to-handle", "SIGHUP,SIGQUIT",
        "--", *script,  # the script's --log would be taken for a prefix of torchrun's own options
    ]  # fmt: skip
    if settings.nodes == 1:
        return torchrun
    if "SLURM_JOB_ID" not in os.environ:
        raise AtlasError(
            f"nodes: {settings.nodes} needs Slurm, which starts a process on each node; run with --profile slurm, or write nodes: 1"
        )
    # The step has every CPU and GPU of the job's nodes; without a binding its one task per node may use them all.
    nodes = [f"--nodes={settings.nodes}", f"--ntasks={settings.nodes}", "--ntasks-per-node=1"]
    return ["srun", *nodes, "--cpu-bind=none", "--kill-on-bad-exit=1", *torchrun]


def sharding(settings: Hyperparameters) -> dict[str, object]:
    """Arguments of SFTConfig that shard weights, gradients and optimiser state over the GPUs (FSDP2); none with one GPU.

    Gradients are reduced after every forward pass, not only at the end of an optimiser step: kept until then, they would not be sharded.
    Activations are recomputed by transformers, as with one GPU: FSDP's own wrapper draws another dropout mask when it recomputes, and
    renames the modules, so that peft saves an adapter without weights (accelerate 1.15, peft 0.21).
    """
    if settings.gpus == 1:
        return {}
    shards = {"version": 2, "reshard_after_forward": True, "state_dict_type": "SHARDED_STATE_DICT"}
    shards["cpu_ram_efficient_loading"] = reads_once(settings)
    return {"fsdp": True, "fsdp_config": shards, "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}}}


def reads_once(settings: Hyperparameters) -> bool:
    """Whether the first process alone reads the base model, and accelerate gives the others their shards.

    Not with DoRA, which computes with the weights before that, and not with a base in 4 bits, which accelerate reads in every process.
    """
    return settings.gpus > 1 and not settings.load_in_4bit and not (settings.lora and settings.lora.dora)


def mixed_precision(autocast: bool):
    """FSDP2's policy of types: computes in bfloat16 where one GPU would autocast, and adds gradients of the GPUs in float32.

    The library's own policy also adds them in bfloat16, and rounds what the model returns, the log-probabilities of the loss, to bfloat16.
    """
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    return MixedPrecisionPolicy(param_dtype=torch.bfloat16 if autocast else None, reduce_dtype=torch.float32)
