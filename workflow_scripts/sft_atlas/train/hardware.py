"""What a training job runs on: precision, attention kernel, optional kernels, and the processes of a job on several GPUs.

``device_type`` is torch's: ``cuda``, ``cpu`` and so on.
"""

import importlib.util
import sys

from sft_atlas.core.errors import AtlasError
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
        raise AtlasError("liger: true needs liger-kernel, which is not installed; pip install liger-kernel==0.8.5, or remove liger")
    if settings.liger and device_type == "cpu":
        raise AtlasError("liger: true needs a GPU, and there is none here; remove liger")
    if settings.gpus > 1 and settings.sharding == "zero3" and not installed("deepspeed"):
        raise AtlasError("sharding: zero3 needs deepspeed, which is not installed; install it, or write sharding: fsdp2")


def launch_command(settings: Hyperparameters, script: list[str], port: int) -> list[str]:
    """The command that runs a script in one process per GPU (`accelerate launch`); sharding is set by :func:`sharding`."""
    return [
        sys.executable, "-m", "accelerate.commands.launch",
        "--num_machines", "1", "--num_processes", str(settings.gpus), "--main_process_port", str(port),
        "--mixed_precision", "no", "--dynamo_backend", "no",  # the trainer decides both
        "--multi_gpu", *script,
    ]  # fmt: skip


def sharding(settings: Hyperparameters, activation_checkpointing: bool) -> dict[str, object]:
    """Arguments of SFTConfig that shard weights, gradients and optimiser state over the GPUs; none with one GPU."""
    if settings.gpus == 1:
        return {}
    if settings.sharding == "fsdp2":
        shards = {"version": 2, "reshard_after_forward": True, "state_dict_type": "SHARDED_STATE_DICT"}
        shards["activation_checkpointing"] = activation_checkpointing  # FSDP's own
        return {"fsdp": True, "fsdp_config": shards, "activation_checkpointing": False}
    stage = {"stage": 3, "overlap_comm": True, "contiguous_gradients": True, "stage3_gather_16bit_weights_on_model_save": True}
    auto = ("gradient_clipping", "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    return {"deepspeed": {"zero_optimization": stage, "bf16": {"enabled": "auto"}} | dict.fromkeys(auto, "auto")}
