"""Supervised fine-tuning of one base model on one training set with TRL's SFTTrainer, full or LoRA.

The loss is on the response only, EOS included (:mod:`sft_atlas.train.dataset`). Everything is written to a state folder of the run, from
which the job publishes the kept epochs at the end (:mod:`sft_atlas.train.resume_state`).
"""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG
from sft_atlas.models.base_model import ModelFolder, device, nf4, savable_generation_config
from sft_atlas.models.layout import layer_and_component, layers_in_range
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train import hardware, memory, micro_batch
from sft_atlas.train.dataset import Sample, Samples
from sft_atlas.train.micro_batch import BatchPlan
from sft_atlas.train.resume_state import checkpoint_to_resume


def sft_config(settings: Hyperparameters, plan: BatchPlan, folder: Path, device_type: str, autocast: bool):
    """The recipe as TRL's SFTConfig; every default that would change the meaning of a recipe is set here. ``folder``: for checkpoints."""
    from trl import SFTConfig

    args = SFTConfig(
        **{
            "output_dir": str(folder),
            "per_device_train_batch_size": plan.micro_batch_size,
            "gradient_accumulation_steps": plan.gradient_accumulation_steps,
            "num_train_epochs": settings.epochs,
            "learning_rate": settings.learning_rate,
            "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(settings.lr_scheduler_type, settings.lr_scheduler_type),
            "warmup_steps": settings.warmup_ratio,
            "weight_decay": settings.weight_decay,
            "max_grad_norm": settings.max_grad_norm,
            **({"optim": "adamw_bnb_8bit"} if settings.optim == "adamw_8bit" else {}),
            "neftune_noise_alpha": settings.neftune_noise_alpha,
            "seed": settings.seed,
            "data_seed": settings.seed,
            "full_determinism": settings.deterministic,
            "bf16": autocast,
            "use_cpu": device_type == "cpu",
            "activation_checkpointing": plan.activation_checkpointing,
            "use_liger_kernel": settings.liger,
            "torch_compile": settings.compile,
            "max_length": None,  # longer samples were dropped and counted; nothing may be cut here
            "packing": False,  # would fill sequences of max_length: another number of samples and of steps
            "padding_free": settings.padding_free,
            "dataloader_num_workers": 0,
            "dataloader_pin_memory": device_type != "cpu",
            "save_strategy": "epoch",
            "logging_strategy": "steps",
            "logging_steps": 1,
            "logging_nan_inf_filter": False,  # would log a loss of NaN as 0.0; CheckpointCallback stops the run instead
            "disable_tqdm": True,
            "report_to": "none",
        }
        | hardware.sharding(settings)
    )
    if settings.gpus > 1:
        args.fsdp_plugin_args["mixed_precision_policy"] = hardware.mixed_precision(autocast)  # `fsdp_config` has no key for it
    return args


def trained_layers(settings: Hyperparameters, layers: int) -> list[int]:
    """Indices of the layers that the recipe trains, of a model with ``layers`` layers. AtlasError where its range holds none."""
    chosen = layers_in_range(settings.layers, layers)
    if not chosen:
        low, high = settings.layers
        raise AtlasError(f"layers: [{low}, {high}] holds none of the model's {layers} layers; widen it")
    return chosen


def freeze(model, settings: Hyperparameters) -> None:
    """Turn off gradients of what a full recipe does not train: everything outside its range of layers, and frozen embeddings."""
    if settings.layers:
        chosen = trained_layers(settings, model.config.num_hidden_layers)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(layer_and_component(name)[0] in chosen)
    if settings.freeze_embeddings:
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            module.requires_grad_(False)


def lora_config(model, settings: Hyperparameters):
    """The recipe's LoRA configuration, None for full fine-tuning."""
    if settings.method == "full":
        return None
    import torch
    from peft import LoraConfig

    targets = settings.lora.targets
    if settings.layers:  # peft restricts layers only where targets are named
        chosen = trained_layers(settings, model.config.num_hidden_layers)
        linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
        inside = [name for name in linear if layer_and_component(f"{name}.weight")[0] in chosen]
        targets = [name for name in inside if targets == "all-linear" or name.endswith(tuple(f".{target}" for target in targets))]
    size = {"r": settings.lora.rank, "lora_alpha": settings.lora.alpha, "lora_dropout": settings.lora.dropout}
    variants = {"use_rslora": settings.lora.rslora, "use_dora": settings.lora.dora}
    return LoraConfig(**size, **variants, target_modules=targets, task_type="CAUSAL_LM")


def load_to_train(base: ModelFolder, settings: Hyperparameters, dtype: str, autocast: bool, kernel: str | None, args):
    """The base model in ``dtype`` with attention ``kernel`` (None: the library's choice); without weights in a process that is given them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    options = {"dtype": getattr(torch, dtype), "trust_remote_code": base.trust_remote_code}
    options |= {"attn_implementation": kernel} if kernel else {}
    if args.process_index > 0 and hardware.reads_once(settings):  # transformers 5.23 would read them in every process
        config = AutoConfig.from_pretrained(base.path, trust_remote_code=base.trust_remote_code)
        # Memory that is never written takes none. On the meta device, accelerate would mix up the tensors of the optimiser.
        with no_init_weights():
            model = AutoModelForCausalLM.from_config(config, **options)
        model.tie_weights()
        return model
    if settings.load_in_4bit:
        options["quantization_config"] = nf4(torch.bfloat16 if autocast else torch.float32)
    if device() == "cuda" and settings.gpus == 1:
        options["device_map"] = {"": args.device}  # straight onto the device
    model = AutoModelForCausalLM.from_pretrained(base.path, use_safetensors=True, **options)
    for module in model.modules() if settings.load_in_4bit else ():
        module.support_avx512bf16_for_cpu = False  # or bitsandbytes rounds scales to bfloat16, for good, in a forward pass on a CPU
    return model


def build(
    base: ModelFolder,
    samples: list[Sample],
    tokenizer,
    settings: Hyperparameters,
    plan: BatchPlan,
    state: Path,
    name: str,
    validation=(),
    tracking=None,
):
    """The trainer of a run, and the :class:`~sft_atlas.train.checkpointing.CheckpointCallback` that writes its epochs.

    Sets all seeds first. ``state``: folder for epochs and checkpoints. ``name``: of the run, for messages. ``validation``: held-out
    samples, on which the loss is logged after every epoch. ``tracking``: a :class:`~sft_atlas.train.tracking.Tracking`, if any.
    """
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, set_seed
    from transformers.trainer_utils import enable_full_determinism
    from trl import SFTTrainer

    from sft_atlas.train.balanced_sampler import FILLER, BalancedTrainer
    from sft_atlas.train.checkpointing import CheckpointCallback
    from sft_atlas.train.validation import ValidationCallback

    device_type = device()
    dtype, autocast = hardware.precision(settings, base, device_type)
    hardware.check_kernels(settings, device_type)
    kernel = hardware.attention(settings, base, device_type, autocast)
    args = sft_config(settings, plan, state / "trainer", device_type, autocast)  # before the model: it decides how weights are placed
    (enable_full_determinism if settings.deterministic else set_seed)(settings.seed)
    model = load_to_train(base, settings, dtype, autocast, kernel, args)
    model.config.use_cache = False
    model.generation_config = savable_generation_config(model.generation_config, name)
    if settings.method == "full":
        freeze(model, settings)
    checkpoints = CheckpointCallback(settings, state, getattr(torch, base.dtype), name, memory.resume_checkpoint_bytes(base, settings))
    measured = [ValidationCallback(validation)] if validation else []
    rows = [{"input_ids": sample.ids, "labels": sample.labels} for sample in samples]
    several = settings.gpus * plan.gradient_accumulation_steps > 1  # batches per step; one keeps the order in which they were shuffled
    trainer_class, rows = (BalancedTrainer, [*rows, FILLER]) if several else (SFTTrainer, rows)
    trainer = trainer_class(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora_config(model, settings),
        callbacks=[checkpoints, *measured],
    )
    for callback in (checkpoints, *measured):
        callback.trainer = trainer
    for parameter in trainer.model.parameters() if settings.load_in_4bit else ():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # TRL makes them bfloat16, in which small updates are lost
    trainer.remove_callback(PrinterCallback)  # the log has its own lines
    if tracking:
        tracking.attach(trainer, name)
    return trainer, checkpoints


def fine_tune(
    base: ModelFolder,
    samples: Samples,
    tokenizer,
    settings: Hyperparameters,
    state: Path,
    name: str,
    validation: Sequence[Sample] = (),
    tracking=None,
) -> dict[str, object]:
    """Train, leaving the kept epochs in ``state/epoch-N``; resumes from the newest complete checkpoint in ``state/trainer``.

    Out of memory, it continues with a smaller micro-batch and the same effective batch (:mod:`sft_atlas.train.micro_batch`).
    Returns facts for train.json, with the trainer's log under ``log``.
    Raises AtlasError where memory runs out with the smallest plan, or in a worker, whose job then starts all workers again.
    """
    plan = micro_batch.load_plan(state)[0] or memory.first_plan(base, settings, [*map(len, samples.kept)], device(), name)
    while True:
        try:
            return _attempt(base, samples, tokenizer, settings, plan, state, name, validation, tracking)
        except RuntimeError as error:
            if not micro_batch.is_out_of_memory(error):
                raise
            message = str(error).splitlines()[0]
        micro_batch.free_memory()  # outside `except`, where the traceback and with it the failed pass's tensors are gone
        plan = micro_batch.reduce_micro_batch(plan, message, settings, state, name)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # one of the processes of a job, which cannot recover alone
            raise AtlasError(f"{name}: the job starts again with less memory per process")


def _attempt(
    base: ModelFolder,
    samples: Samples,
    tokenizer,
    settings: Hyperparameters,
    plan: BatchPlan,
    state: Path,
    name: str,
    validation: Sequence[Sample],
    tracking,
) -> dict[str, object]:
    import torch

    from sft_atlas.train.effect import EffectCallback
    from sft_atlas.train.padding_free import IsolationCallback

    device_type = device()
    dtype, autocast = hardware.precision(settings, base, device_type)
    if device_type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer, checkpoints = build(base, samples.kept, tokenizer, settings, plan, state, name, validation, tracking)
    attention = trainer.model.config._attn_implementation
    in_float32 = settings.gpus == 1 and not attention.startswith("flash") and all(p.is_floating_point() for p in trainer.model.parameters())
    effect = EffectCallback(settings, samples.kept, base, state, name, exact=in_float32 or not autocast)
    effect.trainer = trainer
    trainer.add_callback(effect)
    if settings.padding_free:  # after the callback that copies shards of weights, as a forward pass leaves some of them gathered
        trainer.add_callback(IsolationCallback([sample.ids for sample in samples.kept], autocast, name))
    steps = math.ceil(len(samples.kept) / settings.batch_size) * settings.epochs  # an epoch's last batch may be smaller
    checkpoint = checkpoint_to_resume(state, settings, steps)
    LOG.info(
        "%s: device %s, weights %s, autocast %s, attention %s, %s, %d steps, resumed from %s",
        name, device_type, dtype, autocast, attention, plan, steps, checkpoint,
    )  # fmt: skip
    started = time.perf_counter()
    try:
        with checkpoints.stop_request.watching():
            result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        checkpoints.close()
    seconds = time.perf_counter() - started
    if trainer.state.global_step != steps:
        raise AtlasError(f"{name}: the trainer made {trainer.state.global_step} optimiser steps instead of {steps}; please report this")
    tokens = sum(map(len, samples.kept)) * settings.epochs
    trained_share = 1 - (int(checkpoint.name.split("-")[1]) / steps if checkpoint else 0)
    rate = tokens * trained_share / seconds
    LOG.info("%s: %d steps, %.0f tokens/s, mean loss %.4f", name, steps, rate, result.training_loss)
    peak = torch.cuda.max_memory_allocated() if device_type == "cuda" else None
    return {
        "steps": steps,
        "samples": len(samples.kept),
        "dropped_overlong": len(samples.overlong),
        "tokens": tokens,
        "supervised_tokens": sum(sample.supervised for sample in samples.kept) * settings.epochs,
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "seconds": round(seconds, 3),
        "tokens_per_second": round(rate, 1),
        "resumed": checkpoint is not None,
        "device": device_type if device_type == "cpu" else torch.get_device_module(device_type).get_device_name(),
        "dtype": dtype,
        "autocast": "bfloat16" if autocast else None,
        "attention": attention,
        "generation_config": trainer.model.generation_config.to_diff_dict() if settings.method == "full" else None,  # as saved
        **asdict(plan),
        "out_of_memory": micro_batch.load_plan(state)[1],
        "peak_device_memory_mib": round(peak / 2**20, 1) if peak else None,
        **effect.facts,
        "first_step": checkpoints.first_step,
        "last_step": checkpoints.last_step,
        "log": trainer.state.log_history,
    }


def history(log: list[dict[str, float]]):
    """The trainer's log as a polars frame, one row per optimiser step: step, epoch, loss, learning_rate, grad_norm, validation_loss.

    validation_loss is null but at the last step of an epoch of a run with held-out samples.
    """
    import polars as pl

    values = ("epoch", "loss", "learning_rate", "grad_norm")
    steps = [
        {"step": int(entry["step"]), **{name: float(entry[name]) if name in entry else None for name in values}}
        for entry in log
        if "loss" in entry
    ]
    frame = pl.DataFrame(steps, schema={"step": pl.Int64} | dict.fromkeys(values, pl.Float64))
    held_out = {int(entry["step"]): float(entry["eval_loss"]) for entry in log if "eval_loss" in entry}
    return frame.with_columns(validation_loss=pl.Series([held_out.get(step) for step in frame["step"]], dtype=pl.Float64))
