"""How the effective batch is fitted into memory: samples per forward pass, accumulation, and recomputed activations.

The effective batch is a recipe's and never changes; on running out of memory the samples per forward pass are halved and
the accumulation doubled (transformers' own retry multiplies the batch by 0.9 and leaves the accumulation alone).
"""

import gc
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_json
from sft_atlas.core.log import LOG
from sft_atlas.study.schema import Hyperparameters

RESTART = "the job starts again with less memory per process"  # several processes cannot recover alone


@dataclass(frozen=True)
class Fit:
    """Micro-batch (samples per forward pass and device), forward passes per optimiser step, recomputation of activations."""

    micro_batch_size: int
    gradient_accumulation_steps: int
    activation_checkpointing: bool

    @classmethod
    def of(cls, settings: Hyperparameters, micro: int, checkpointing: bool) -> "Fit":
        """The fit with ``micro`` samples per forward pass; the effective batch is exact or this raises ValueError."""
        share, rest = divmod(settings.batch_size, settings.gpus)
        if rest or share % micro:
            raise ValueError(f"{settings.batch_size} samples on {settings.gpus} devices are no multiple of {micro}")
        return cls(micro, share // micro, checkpointing)

    def __str__(self) -> str:
        recomputed = ", activations recomputed" if self.activation_checkpointing else ""
        return f"micro-batch {self.micro_batch_size} x {self.gradient_accumulation_steps}{recomputed}"


def wanted(settings: Hyperparameters) -> Fit:
    """What the recipe asks for."""
    return Fit.of(settings, settings.micro_batch_size or settings.batch_size // settings.gpus, settings.activation_checkpointing)


def smaller(fit: Fit, settings: Hyperparameters) -> Fit | None:
    """The next fit to try: half the micro-batch (or the largest divisor below that), then recomputed activations, then nothing."""
    share = settings.batch_size // settings.gpus
    if fit.micro_batch_size > 1:
        half = fit.micro_batch_size // 2
        return Fit.of(settings, next(size for size in range(half, 0, -1) if share % size == 0), fit.activation_checkpointing)
    return None if fit.activation_checkpointing else Fit.of(settings, 1, True)


def out_of_memory(error: Exception) -> bool:
    """Whether an exception says that a device (or the CPU's allocator) has no memory left."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


def free() -> None:
    """Give back what a failed attempt held."""
    import torch

    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


# ---------------------------------------------------------------- memory of earlier attempts


def load(state: Path) -> tuple[Fit | None, list[str]]:
    """The fit that an earlier attempt of this run came to, and what failed before it; (None, []) for a first attempt."""
    path = state / "fit.json"
    if not path.exists():
        return None, []
    entry = json.loads(path.read_text())
    return Fit(**entry["fit"]), entry["failed"]


def fall_back(fit: Fit, error: str, settings: Hyperparameters, state: Path, name: str) -> Fit:
    """Note that ``fit`` failed and return the next one, which a resumed job starts with; AtlasError when none is left."""
    failed = [*load(state)[1], f"{fit}: {error}"]
    following = smaller(fit, settings)
    if following is None:
        tried = "\n".join(f"  {line}" for line in failed)
        raise AtlasError(
            f"{name}: out of memory even with one sample per forward pass and recomputed activations. Tried:\n{tried}\n"
            "Lower max_length, use method: lora, or give the recipe more gpus"
        )
    write_json(state / "fit.json", {"fit": asdict(following), "failed": failed})
    LOG.warning("%s: out of memory with %s; going on with %s, the effective batch stays %d", name, fit, following, settings.batch_size)
    return following
