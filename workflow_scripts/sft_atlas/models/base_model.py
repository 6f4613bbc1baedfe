"""Load base models and checkpoints from ordinary Hugging Face folders.

A base model is known by its manifest ``model.json``; a checkpoint is a folder of full weights or of a LoRA adapter.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelFolder:
    """A base model on disk: ``path`` is its folder, ``trust_remote_code`` what its config entry allows."""

    name: str
    path: Path
    dtype: str
    trust_remote_code: bool

    @classmethod
    def read(cls, manifest: Path) -> "ModelFolder":
        """Read ``model.json``; fails when the folder it names is gone."""
        entry = json.loads(Path(manifest).read_text())
        path = Path(entry["path"])
        if not (path / "config.json").exists():
            raise AtlasError(
                f"{manifest} says that the weights are in {path}, where there is no config.json; delete {manifest} and run again to fetch them"
            )
        return cls(entry["name"], path, entry["dtype"], entry["trust_remote_code"])


def is_adapter(weights: Path) -> bool:
    """Whether a checkpoint folder holds a LoRA adapter rather than full weights."""
    return (Path(weights) / "adapter_config.json").exists()


def device() -> str:
    """The accelerator if there is one, else the CPU."""
    import torch

    return torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"


def load_tokenizer(base: ModelFolder):
    """The base model's tokenizer; its pad token is EOS where it has none (only attention-masked positions hold it)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path, trust_remote_code=base.trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise AtlasError(f"the tokenizer of {base.name} in {base.path} has no EOS token; supervised fine-tuning needs one")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(base: ModelFolder, weights: Path | None = None, dtype: str | None = None, facts: dict[str, float] | None = None):
    """Load a base model, or a checkpoint of it, for inference on the available device.

    A LoRA adapter is merged in memory in float32 before the cast to ``dtype`` (default: the base model's own). ``facts`` then receives
    the largest difference of the logits on a short probe: merged in float32 against the adapter unmerged, and after the cast.
    """
    import torch
    from transformers import AutoModelForCausalLM

    wanted = getattr(torch, dtype or base.dtype)
    adapter = weights is not None and is_adapter(weights)
    folder = base.path if weights is None or adapter else weights
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32 if adapter else wanted, trust_remote_code=base.trust_remote_code, use_safetensors=True
    )
    if adapter:
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(model, weights).eval()
        before = _probe(adapted) if facts is not None else None
        model = adapted.merge_and_unload()
        merged = _probe(model) if facts is not None else None
        model = model.to(wanted)
        if facts is not None:
            facts["merge_logit_difference"] = (merged - before).abs().max().item()
            facts["merge_and_cast_logit_difference"] = (_probe(model) - before).abs().max().item()
    model = model.to(device()).eval()
    kind = "base model" if weights is None else "adapter, merged in float32" if adapter else "full weights"
    LOG.info("loaded %s (%s): device %s, dtype %s", weights or base.path, kind, model.device, model.dtype)
    return model


def _probe(model):
    """Logits (16 x vocabulary, float32) of the first token ids, to compare a model with itself."""
    import torch

    with torch.inference_mode():
        return model(torch.arange(16, device=model.device)[None]).logits[0].float()
