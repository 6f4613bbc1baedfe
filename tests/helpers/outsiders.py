"""Checkpoints that other tools made: folders as a plain TRL script and LLaMA-Factory leave them, and variants that people upload."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROWS = [{"prompt": f"Question {i}:", "completion": f" answer {i}"} for i in range(4)]


def trl_script(base: Path, folder: Path, lora: bool) -> Path:
    """What a plain script with TRL's SFTTrainer saves: two steps, then ``trainer.save_model``; with ``lora`` an adapter."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    settings = SFTConfig(
        output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, learning_rate=1e-2, report_to="none", use_cpu=True, seed=1,
        save_strategy="steps", save_steps=1, save_total_limit=1, disable_tqdm=True, logging_steps=1,
    )  # fmt: skip
    peft = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear") if lora else None
    trainer = SFTTrainer(model=str(base), args=settings, train_dataset=Dataset.from_list(ROWS), peft_config=peft)
    trainer.train()
    trainer.save_model(str(folder))
    return folder


def llama_factory(adapter: Path, folder: Path) -> Path:
    """The output folder of LLaMA-Factory: an adapter beside logs, plots, a pickle of the arguments and a checkpoint with optimiser states."""
    folder.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(adapter / name, folder / name)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/root/models/renamed-base"}))
    (folder / "README.md").write_text("---\nlibrary_name: peft\ntags: [llama-factory, lora]\n---\n# Model\n")
    (folder / "trainer_state.json").write_text('{"epoch": 3.0, "global_step": 375}')
    (folder / "trainer_log.jsonl").write_text('{"current_steps": 10, "total_steps": 375, "loss": 1.0}\n')
    (folder / "all_results.json").write_text('{"epoch": 3.0, "train_loss": 0.5}')
    (folder / "training_args.bin").write_bytes(b"\x80\x04 a pickle that must not be loaded")
    (folder / "training_loss.png").write_bytes(b"\x89PNG")
    state = folder / "checkpoint-375"
    state.mkdir()
    (state / "optimizer.pt").write_bytes(b"\x80\x04 a pickle")
    shutil.copy(adapter / "adapter_model.safetensors", state / "adapter_model.safetensors")
    return folder


def sharded(full: Path, folder: Path) -> Path:
    """The same weights in several files with an index."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(full).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


def pickled(source: Path, folder: Path, adapter: bool) -> Path:
    """The same weights as a pickle alone."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors*", "checkpoint-*"))
    old, new = ("adapter_model.safetensors", "adapter_model.bin") if adapter else ("model.safetensors", "pytorch_model.bin")
    torch.save(load_file(source / old), folder / new)
    return folder


def merged(base: Path, adapter: Path, folder: Path) -> Path:
    """Full weights with the adapter merged into them."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload().save_pretrained(folder)
    return folder


def with_tokens(full: Path, folder: Path, tokens: tuple[str, ...] = ("<|im_start|>", "<|im_end|>"), end: str | None = "<|im_end|>") -> Path:
    """The same weights with further tokens at the end of the vocabulary, the last of which ends a text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(full)
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    if end:
        tokenizer.eos_token = end
    model = AutoModelForCausalLM.from_pretrained(full)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def changed(source: Path, folder: Path, config: dict | None = None, tensors=None) -> Path:
    """A copy with other entries in its config.json, and with its tensors changed by a function."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    if tensors:
        file = next(folder.glob("*model.safetensors"))
        stored = load_file(file)
        save_file({name: tensor.contiguous() for name, tensor in tensors(stored).items()}, file, {"format": "pt"})
    return folder
