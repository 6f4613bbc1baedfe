"""Supervised fine-tuning of one base model on one training set with TRL's SFTTrainer, full or LoRA.

The loss is on the response only, EOS included (:mod:`sft_atlas.train.dataset`). State for resuming lives in a folder of its own;
finished epochs are moved out at the very end.
"""

import math
import time
from dataclasses import asdict
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG
from sft_atlas.models.base_model import BaseModel, device
from sft_atlas.models.layout import layer_and_component
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train import hardware, memory, micro_batch, resuming
from sft_atlas.train.dataset import Sample, Samples
from sft_atlas.train.micro_batch import Fit


def steps_expected(samples: int, settings: Hyperparameters) -> int:
    """Optimiser steps of the whole run: the last batch of an epoch may be smaller, none is left out."""
    return math.ceil(samples / settings.batch_size) * settings.epochs


def arguments(settings: Hyperparameters, fit: Fit, folder: Path, where: str, autocast: bool):
    """The recipe as TRL's SFTConfig; every default that would change the meaning of a recipe is set here."""
    from trl import SFTConfig

    return SFTConfig(
        **{
            "output_dir": str(folder),
            "per_device_train_batch_size": fit.micro_batch_size,
            "gradient_accumulation_steps": fit.gradient_accumulation_steps,
            "num_train_epochs": settings.epochs,
            "learning_rate": settings.learning_rate,
            "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(settings.lr_scheduler_type, settings.lr_scheduler_type),
            "warmup_steps": settings.warmup_ratio,
            "weight_decay": settings.weight_decay,
            "max_grad_norm": settings.max_grad_norm,
            "seed": settings.seed,
            "data_seed": settings.seed,
            "bf16": autocast,
            "use_cpu": where == "cpu",
            "activation_checkpointing": fit.activation_checkpointing,
            "use_liger_kernel": settings.liger,
            "torch_compile": settings.compile,
            "max_length": None,  # longer samples were dropped and counted; nothing may be cut here
            "packing": False,  # TRL's packing fills sequences of max_length: another number of samples, and of steps
            "padding_free": settings.padding_free,
            "dataloader_num_workers": 0,
            "dataloader_pin_memory": where != "cpu",
            "save_strategy": "epoch",
            "logging_strategy": "steps",
            "logging_steps": 1,
            "disable_tqdm": True,
            "report_to": "none",
        }
        | hardware.sharding(settings, fit.activation_checkpointing)
    )


# ---------------------------------------------------------------- what is trained


def layers_in_range(settings: Hyperparameters, layers: int) -> list[int]:
    """The layers that the recipe trains: those whose depth, layer / (layers - 1), lies in its range. AtlasError for none."""
    low, high = settings.layers or (0.0, 1.0)
    chosen = [layer for layer in range(layers) if low <= layer / max(layers - 1, 1) <= high]
    if not chosen:
        raise AtlasError(f"layers: [{low}, {high}] holds none of the model's {layers} layers; widen it")
    return chosen


def freeze(model, settings: Hyperparameters) -> None:
    """Leave what a full recipe does not train without gradients: layers outside its range, embeddings, all else with a range."""
    if settings.layers:
        chosen = layers_in_range(settings, model.config.num_hidden_layers)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(layer_and_component(name)[0] in chosen)
    if settings.freeze_embeddings:
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            module.requires_grad_(False)


def adapter(model, settings: Hyperparameters):
    """The recipe's LoRA configuration, None for full fine-tuning."""
    if settings.method == "full":
        return None
    import torch
    from peft import LoraConfig

    targets = settings.lora.targets
    if settings.layers:  # peft takes a range of layers only with targets by name
        chosen = layers_in_range(settings, model.config.num_hidden_layers)
        inside = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and layer_and_component(f"{n}.weight")[0] in chosen]
        targets = [name for name in inside if targets == "all-linear" or name.endswith(tuple(f".{target}" for target in targets))]
    return LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=targets,
        use_rslora=settings.lora.rslora,
        task_type="CAUSAL_LM",
    )


# ---------------------------------------------------------------- training


def build(base: BaseModel, samples: list[Sample], tokenizer, settings: Hyperparameters, fit: Fit, state: Path, name: str):
    """The trainer of a run, and the :class:`sft_atlas.train.checkpointing.Keeper` that writes its epochs; seeds every generator first."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PrinterCallback, set_seed
    from trl import SFTTrainer

    from sft_atlas.train import padding_free
    from sft_atlas.train.checkpointing import Keeper

    where = device()
    dtype, autocast = hardware.precision(settings, base, where)
    hardware.check_kernels(settings, where)
    kernel = hardware.attention(settings, base, where, autocast)
    args = arguments(settings, fit, state / "trainer", where, autocast)  # before the model: it says how weights are placed
    set_seed(settings.seed)
    model = AutoModelForCausalLM.from_pretrained(
        base.path,
        dtype=getattr(torch, dtype),
        trust_remote_code=base.trust_remote_code,
        use_safetensors=True,
        **({"attn_implementation": kernel} if kernel else {}),
        **({"device_map": {"": args.device}} if where == "cuda" and settings.gpus == 1 else {}),  # straight onto the device
    )
    model.config.use_cache = False
    if settings.method == "full":
        freeze(model, settings)
    keeper = Keeper(settings, state, getattr(torch, base.dtype), name, memory.state_bytes(base, settings))
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list([{"input_ids": sample.ids, "labels": sample.labels} for sample in samples]),
        processing_class=tokenizer,
        peft_config=adapter(model, settings),
        callbacks=[keeper],
    )
    keeper.trainer = trainer
    trainer.remove_callback(PrinterCallback)  # the log has its own lines
    if settings.padding_free:
        padding_free.check(trainer.model, [sample.ids for sample in samples], autocast, name)
    return trainer, keeper


def fine_tune(base: BaseModel, samples: Samples, tokenizer, settings: Hyperparameters, state: Path, name: str) -> dict[str, object]:
    """Train, leaving the kept epochs in ``state/epoch-N``; resumes from the newest complete epoch in ``state/trainer``.

    Out of memory, it goes on with a smaller micro-batch and the same effective batch, as :mod:`sft_atlas.train.micro_batch` says.
    Returns facts for train.json, with the trainer's log under ``log`` and hashes of written weights under ``hashes``.
    """
    fit = micro_batch.load(state)[0] or memory.begin(base, settings, max(map(len, samples.kept)), device(), name)
    while True:
        try:
            return _attempt(base, samples, tokenizer, settings, fit, state, name)
        except RuntimeError as error:
            if not micro_batch.out_of_memory(error):
                raise
            message = str(error).splitlines()[0]
        micro_batch.free()  # out here, where the traceback and with it the failed pass's tensors are gone
        if hardware.launched():
            micro_batch.fall_back(fit, message, settings, state, name)
            raise AtlasError(f"{name}: {micro_batch.RESTART}")
        fit = micro_batch.fall_back(fit, message, settings, state, name)


def _attempt(
    base: BaseModel, samples: Samples, tokenizer, settings: Hyperparameters, fit: Fit, state: Path, name: str
) -> dict[str, object]:
    import torch

    where = device()
    dtype, autocast = hardware.precision(settings, base, where)
    if where == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer, keeper = build(base, samples.kept, tokenizer, settings, fit, state, name)
    expected = steps_expected(len(samples.kept), settings)
    resumed = resuming.resumable(state, settings, expected)
    LOG.info(
        "%s: device %s, weights %s, autocast %s, attention %s, %s, %d steps, resumed from %s",
        name, where, dtype, autocast, trainer.model.config._attn_implementation, fit, expected, resumed,
    )  # fmt: skip
    started = time.perf_counter()
    try:
        result = trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    finally:
        keeper.close()
    seconds = time.perf_counter() - started
    if trainer.state.global_step != expected:
        raise AtlasError(f"{name}: {trainer.state.global_step} optimiser steps were made, the recipe means {expected}; please report this")
    tokens = sum(len(sample.ids) for sample in samples.kept) * settings.epochs
    share = 1 - (int(resumed.name.split("-")[1]) / expected if resumed else 0)
    rate = tokens * share / seconds
    LOG.info("%s: %d steps, %.0f tokens/s, mean loss %.4f", name, expected, rate, result.training_loss)
    peak = torch.cuda.max_memory_allocated() if where == "cuda" else None
    return {
        "steps": expected,
        "samples": len(samples.kept),
        "dropped_overlong": len(samples.overlong),
        "tokens": tokens,
        "supervised_tokens": sum(len(sample.ids) - sample.first for sample in samples.kept) * settings.epochs,
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "seconds": round(seconds, 3),
        "tokens_per_second": round(rate, 1),
        "resumed": resumed is not None,
        "device": where if where == "cpu" else torch.get_device_module(where).get_device_name(),
        "dtype": dtype,
        "autocast": "bfloat16" if autocast else None,
        "attention": trainer.model.config._attn_implementation,
        **asdict(fit),
        "out_of_memory": micro_batch.load(state)[1],
        "peak_device_memory_mib": round(peak / 2**20, 1) if peak else None,
        "first_step": keeper.first_step,
        "last_step": keeper.last_step,
        "hashes": keeper.hashes,
        "log": trainer.state.log_history,
    }


def history(log: list[dict[str, float]], model: str, dataset: str, recipe: str):
    """The trainer's log as a polars frame: one row per optimiser step."""
    import polars as pl

    steps = [entry for entry in log if "loss" in entry]
    columns = {
        key: [float(entry[key]) if key in entry else None for entry in steps] for key in ("epoch", "loss", "learning_rate", "grad_norm")
    }
    return pl.DataFrame(
        {"step": [int(entry["step"]) for entry in steps], **columns}, schema={"step": pl.Int64, **dict.fromkeys(columns, pl.Float64)}
    ).select(pl.lit(model).alias("model"), pl.lit(dataset).alias("dataset"), pl.lit(recipe).alias("recipe"), pl.all())
