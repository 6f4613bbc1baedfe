"""What a training job runs on: autocast, attention kernel, optional kernels, and the processes of a job on several GPUs."""

import importlib.util
import os
import sys

from sft_atlas.core.errors import AtlasError
from sft_atlas.models.base_model import BaseModel
from sft_atlas.study.schema import Hyperparameters

FLASH = {"flash_attention_3": "flash_attn_interface", "flash_attention_2": "flash_attn"}  # kernel -> the module it needs, best first


def precision(settings: Hyperparameters, base: BaseModel, where: str) -> tuple[str, bool]:
    """Type that the weights are held in during training, and whether to autocast to bfloat16.

    Full fine-tuning holds float32 weights unless the recipe says otherwise: at the paper's learning rates most updates are below
    bfloat16's resolution.
    LoRA holds the frozen base in its own type and the adapter in float32 (peft's default).
    """
    import torch

    able = where != "cpu" and (where != "cuda" or torch.cuda.is_bf16_supported())
    autocast = settings.precision == "bfloat16" or (settings.precision == "auto" and able)
    if settings.method == "full":
        return settings.weights, autocast
    return (base.dtype if autocast else "float32"), autocast


def installed(module: str) -> bool:
    """Whether a module can be imported; does not import it."""
    return importlib.util.find_spec(module) is not None


def attention(settings: Hyperparameters, base: BaseModel, where: str, autocast: bool) -> str | None:
    """The attention kernel to ask transformers for; None leaves it to the model (SDPA, or eager where it has no SDPA).

    Raises AtlasError where the recipe names a kernel that cannot run here.
    """
    if settings.attention == "auto":
        usable = where == "cuda" and autocast and _has_flash(base)
        return next((name for name, module in FLASH.items() if usable and installed(module)), None)
    module = FLASH.get(settings.attention)
    if module and not installed(module):
        raise AtlasError(
            f"the recipe asks for attention: {settings.attention}, but the module {module} is not installed; install it, or say attention: auto"
        )
    if module and not (where == "cuda" and autocast):
        raise AtlasError(f"attention: {settings.attention} needs a CUDA GPU and bfloat16; say attention: auto, and not precision: float32")
    return settings.attention


def _has_flash(base: BaseModel) -> bool:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(base.path, trust_remote_code=base.trust_remote_code)
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]._supports_flash_attn


def check_kernels(settings: Hyperparameters, where: str) -> None:
    """Raise AtlasError where the recipe asks for kernels that are not here."""
    if settings.liger and not installed("liger_kernel"):
        raise AtlasError("the recipe says liger: true, but liger-kernel is not installed; pip install liger-kernel==0.8.5, or remove liger")
    if settings.liger and where == "cpu":
        raise AtlasError("the recipe says liger: true, but its kernels need a GPU and there is none here; remove liger")
    if settings.gpus > 1 and settings.sharding == "zero3" and not installed("deepspeed"):
        raise AtlasError("the recipe says sharding: zero3, but deepspeed is not installed; install it, or say sharding: fsdp2")


# ---------------------------------------------------------------- several processes


def launch(settings: Hyperparameters, script: list[str], port: int) -> list[str]:
    """The command that runs a script in one process per GPU (`accelerate launch`); sharding is set by :func:`sharding`."""
    return [
        sys.executable, "-m", "accelerate.commands.launch",
        "--num_machines", "1", "--num_processes", str(settings.gpus), "--main_process_port", str(port),
        "--mixed_precision", "no", "--dynamo_backend", "no",  # both are the trainer's to decide
        "--multi_gpu", *script,
    ]  # fmt: skip


def launched() -> bool:
    """Whether this process is one of several that :func:`launch` started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def sharding(settings: Hyperparameters, checkpointing: bool) -> dict[str, object]:
    """What SFTConfig needs to shard weights, gradients and optimiser state over the GPUs; nothing with one."""
    if settings.gpus == 1:
        return {}
    if settings.sharding == "fsdp2":
        shards = {
            "version": 2,
            "reshard_after_forward": True,
            "state_dict_type": "SHARDED_STATE_DICT",
            "activation_checkpointing": checkpointing,
        }
        return {"fsdp": True, "fsdp_config": shards, "activation_checkpointing": False}
    zero = {
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }
    return {"deepspeed": zero}
