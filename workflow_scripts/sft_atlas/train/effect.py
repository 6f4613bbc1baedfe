"""What a run changes: logits on the beginnings of its own samples, and the size of the update of the weights.

A run can end without an error and leave the model as it was, because its rate or its number of steps is too small, or because the update is
below the resolution of the type in which the checkpoint is scored. Its scores are then those of the base model.
"""

import contextlib
import inspect
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, sha256, write_json
from sft_atlas.core.log import LOG
from sft_atlas.models.size import BFLOAT16_ROUNDING, largest_relative_update
from sft_atlas.train.resume_state import EFFECT

PROMPTS, POSITIONS, LONGEST = 8, 8, 1024  # samples of the probe; their last positions that count; most tokens of each
FACTS = (
    "logit_change_mean", "logit_change_max", "top_tokens_changed", "logit_resolution", "logit_dtype",
    "weight_change", "weight_change_first_epoch", "weights_changed",
)  # fmt: skip
ELEMENTS = 4096  # of each tensor, evenly spaced, that stand for all


class EffectCallback(TrainerCallback):
    """Measures a run's effect while it trains; ``facts`` has it after the training, None for what could not be measured.

    ``logit_change_mean``, ``logit_change_max``: absolute change of the logits. ``top_tokens_changed``: share of positions where another
    token became the most likely. ``logit_resolution``: mean rounding error of a logit in the type that the checkpoint is scored in, or that
    the effect was measured in, where that is coarser. ``logit_dtype``: of the measurement. ``weight_change``: norm of the update over the
    norm of the trained weights, of LoRA those below the adapter; ``weight_change_first_epoch``: the same after one epoch.
    ``weights_changed``: share of trained elements that differ in the published type (full only).
    """

    def __init__(self, settings, samples, base, state, name: str, exact: bool):
        """``samples``: of the run. ``base``: its model folder. ``exact``: run the probe in float32, else as in training (bfloat16)."""
        self.settings, self.name, self.folder, self.exact = settings, name, state / EFFECT, exact
        self.sequences = [sample.ids[: min(sample.first + POSITIONS, LONGEST)] for sample in samples[:PROMPTS]]
        self.published = getattr(torch, base.dtype)
        self.samples = len(samples)
        self.trainer = None  # set by the caller, who makes the trainer with this callback
        self.facts: dict[str, object] = dict.fromkeys(FACTS)

    def on_train_begin(self, args, state, control, model=None, **_):
        rank = self.trainer.accelerator.process_index
        file = self.folder / f"{rank}.safetensors"
        if state.global_step == 0:
            self.folder.mkdir(exist_ok=True)
            start = {} if self.settings.method == "lora" else _elements(model)
            self.before = start | {"": self._logits(model)}  # weights first: a forward pass leaves some of them gathered
            save_file(self.before, file)
            write_json(self._hash_file(file), sha256(file))
        else:  # resumed: the model is no longer the base model
            self.before = load_file(file) if self._is_whole(file) else None
        if state.is_world_process_zero:
            self._warn_before(model)

    @staticmethod
    def _hash_file(file: Path) -> Path:
        return file.with_suffix(".sha256.json")

    def _is_whole(self, file: Path) -> bool:
        """Whether what was noted before the training is there and not damaged."""
        try:
            return file.exists() and read_json(self._hash_file(file)) == sha256(file)
        except (FileNotFoundError, AtlasError):
            return False

    def _warn_before(self, model) -> None:
        largest = largest_relative_update(self.settings, self.samples, model.config.get_text_config().hidden_size)
        if largest < BFLOAT16_ROUNDING:
            LOG.warning(
                "%s is unlikely to move the model: %d steps at this learning rate change the weights by at most %.2g of their size, less than the"
                " rounding of bfloat16 weights (%.2g); raise learning_rate or epochs",
                self.name, math.ceil(self.samples / self.settings.batch_size) * self.settings.epochs, largest, BFLOAT16_ROUNDING,
            )  # fmt: skip

    def on_epoch_end(self, args, state, control, model=None, **_):
        if self.before is None or round(state.epoch) not in (1, self.settings.epochs):
            return
        self.facts |= self._weights(model)
        if round(state.epoch) == 1 and self.facts["weight_change"] is not None and state.is_world_process_zero:
            write_json(self.folder / "first.json", self.facts["weight_change"])
            LOG.info("%s: after the first epoch the weights have changed by %.2g of their size", self.name, self.facts["weight_change"])

    def on_train_end(self, args, state, control, model=None, **_):
        if self.before is None:
            LOG.warning("%s: the effect on logits is unknown: %s is gone or damaged", self.name, self.folder)
            return
        before, after = self.before[""], self._logits(model)
        change = (after - before).abs()
        eps = [torch.finfo(dtype).eps for dtype in (self._scored(), torch.float32 if self.exact else torch.bfloat16)]
        self.facts |= {
            "logit_change_mean": change.mean().item(),
            "logit_change_max": change.max().item(),
            "top_tokens_changed": (before.argmax(-1) != after.argmax(-1)).float().mean().item(),
            "logit_resolution": max(eps) / 2 * after.abs().mean().item(),
            "logit_dtype": "float32" if self.exact else "bfloat16",
        }
        first = self.folder / "first.json"
        if first.exists():
            self.facts["weight_change_first_epoch"] = read_json(first)
        if state.is_world_process_zero and not moved(self.facts):
            LOG.warning(
                "%s did not move: logits on its own samples changed by %.2g on average, less than the rounding of a logit in %s (%.2g); its scores"
                " are those of the base model", self.name, self.facts["logit_change_mean"], str(self._scored()).removeprefix("torch."),
                self.facts["logit_resolution"],
            )  # fmt: skip

    def _scored(self) -> torch.dtype:
        return torch.float32 if self.settings.method == "lora" else self.published

    def _logits(self, model) -> torch.Tensor:
        """Logits [positions, vocabulary] in float32, in host memory."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        keep = {"logits_to_keep": POSITIONS} if "logits_to_keep" in inspect.signature(type(base).forward).parameters else {}
        # What accelerate put around it is the autocast of training. FSDP2 has none, and needs the call of the module.
        forward = getattr(model, "_original_forward", model) if self.exact else model
        device = next(model.parameters()).device
        training, rows = model.training, []
        model.eval()
        with torch.no_grad(), in_float32(model) if self.exact else contextlib.nullcontext():
            for ids in self.sequences:
                found = forward(input_ids=torch.tensor([ids], device=device), use_cache=False, **keep)
                rows.append(found.logits[0, -POSITIONS:].float().cpu())
        model.train(training)
        return torch.cat(rows)

    def _weights(self, model) -> dict[str, float]:
        """``weight_change`` and ``weights_changed`` so far."""
        main = self.trainer.accelerator.process_index == 0
        sums = torch.zeros(4, dtype=torch.float64)  # squares of update and weights, changed elements, elements
        if self.settings.method == "lora":
            for squares in _adapter_squares(model, main):
                if squares is None:
                    return {}
                sums[:2] += torch.tensor(squares, dtype=torch.float64)
        else:
            for name, now in _elements(model).items():
                parameter = model.get_parameter(name)
                if not (main or hasattr(parameter, "to_local")):
                    continue  # a copy of what the first process has
                start, share = self.before[name], _local(parameter).numel() / max(len(now), 1)
                changed = (now.to(self.published) != start.to(self.published)).sum()
                sums += share * torch.stack(
                    [(now - start).double().square().sum(), start.double().square().sum(), changed, torch.tensor(len(now))]
                )
        update, whole, changed, elements = self.trainer.accelerator.reduce(sums.to(self.trainer.accelerator.device)).tolist()
        facts = {"weight_change": (update / whole) ** 0.5} if whole else {}
        return facts | ({"weights_changed": changed / elements} if elements else {})


def moved(facts: dict[str, object]) -> bool:
    """Whether a run changed logits by more than their resolution; True where that is unknown."""
    return facts["logit_change_mean"] is None or facts["logit_change_mean"] >= facts["logit_resolution"]


@contextlib.contextmanager
def in_float32(model):
    """Run the modules of a model in float32, one at a time: weights of 16 bits are cast for the call of their module alone."""
    kept: dict[torch.nn.Parameter, torch.Tensor] = {}

    def cast(module, *_):
        for parameter in module.parameters(recurse=False):
            if parameter.dtype in (torch.bfloat16, torch.float16):
                kept[parameter], parameter.data = parameter.data, parameter.data.float()

    def restore(module, *_):
        for parameter in module.parameters(recurse=False):
            if parameter in kept:
                parameter.data = kept.pop(parameter)

    hooks = []
    for module in model.modules():
        hooks += [module.register_forward_pre_hook(cast), module.register_forward_hook(restore, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor that FSDP2 shards."""
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).detach()


def _elements(model) -> dict[str, torch.Tensor]:
    """Copies of evenly spaced elements of this process's part of each trained parameter, in float32 in host memory."""
    trained = {name: _local(parameter).reshape(-1) for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {
        name: flat[:: max(1, len(flat) // ELEMENTS)].float().cpu().clone(memory_format=torch.contiguous_format)
        for name, flat in trained.items()
    }


def _adapter_squares(model, main: bool):
    """Squared norms (of the update, of the weights below it) of each LoRA module, as this process's part of the sums; None where unknown."""
    for module in model.modules():
        if not hasattr(module, "lora_A"):
            continue
        weight = _local(module.get_base_layer().weight)
        if module.lora_magnitude_vector or not weight.is_floating_point():  # DoRA, and weights of four bits
            yield None
            return
        for adapter in module.active_adapters:
            down, up = (_whole(part[adapter].weight) for part in (module.lora_A, module.lora_B))
            update = module.scaling[adapter] ** 2 * ((up.T @ up) * (down @ down.T)).sum().item()  # of up @ down, without making it
            shared = hasattr(module.get_base_layer().weight, "to_local")
            yield update if main else 0.0, weight.float().square().sum().item() if main or shared else 0.0


def _whole(parameter) -> torch.Tensor:
    return (parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter).detach().double()
