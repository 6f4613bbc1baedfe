"""What the files of a LoRA adapter hold: names of tensors, and which adapters only add to the base model's weights."""

import re

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
FACTOR = re.compile(r"(?P<path>.+)\.lora_(?P<kind>embedding_)?(?P<side>[AB])(?:\.weight)?$")
MAGNITUDE = re.compile(r"(?P<path>.+)\.lora_magnitude_vector(?:\.weight)?$")
PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # initialisations of LoRA that leave the base weights as they are
ODD = ("fan_in_fan_out", "lora_bias", "layer_replication")  # settings with which an adapter does more than LoRA and DoRA


def not_plain(config: dict) -> str | None:
    """Why an adapter is no plain LoRA or DoRA; None where it is."""
    odd = [key for key in ODD if config.get(key)]
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        odd.append(f"init_lora_weights={config['init_lora_weights']}")
    if config.get("bias", "none") != "none":
        odd.append(f"bias {config['bias']}")
    if config.get("peft_type") != "LORA":
        odd.insert(0, f"peft_type={config.get('peft_type')}")
    return ", ".join(odd) or None


def name_in_base(key: str) -> str:
    """The name of an adapter's tensor without PEFT's wrappers."""
    return key.removeprefix(PREFIX).replace(".base_layer.", ".")
