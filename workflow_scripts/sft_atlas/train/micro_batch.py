"""How the effective batch fits into memory: micro-batch, gradient accumulation and activation checkpointing.

The effective batch belongs to the recipe and never changes. Out of memory, the micro-batch is halved and the accumulation doubled
(the trainer's own ``auto_find_batch_size`` multiplies the micro-batch by 0.9 and leaves the accumulation as it is).
"""

import gc
from dataclasses import asdict, dataclass
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, write_json
from sft_atlas.core.log import LOG
from sft_atlas.study.schema import Hyperparameters

# What torch and its libraries say when memory runs out, in lower case: allocators (CUDA, HIP, XPU, MPS), CUDA and NCCL calls; cuBLAS, cuDNN,
# hipBLAS and the like; the CPU's allocator.
OUT_OF_MEMORY = ("out of memory", "_status_alloc_failed", "can't allocate memory")
PLAN = "batch_plan.json"  # in the state folder of a run: the plan to go on with, and what failed before


@dataclass(frozen=True)
class BatchPlan:
    """One way to make the effective batch: samples per forward pass and device, forward passes per optimiser step, checkpointing."""

    micro_batch_size: int
    gradient_accumulation_steps: int
    activation_checkpointing: bool

    @classmethod
    def of(cls, settings: Hyperparameters, micro_batch_size: int, activation_checkpointing: bool) -> "BatchPlan":
        """The plan with this micro-batch. ValueError where it does not divide the effective batch of one device."""
        per_device, rest = divmod(settings.batch_size, settings.gpus)
        if rest or per_device % micro_batch_size:
            raise ValueError(f"batch_size {settings.batch_size} is not a multiple of {micro_batch_size} samples x {settings.gpus} devices")
        return cls(micro_batch_size, per_device // micro_batch_size, activation_checkpointing)

    @classmethod
    def of_recipe(cls, settings: Hyperparameters) -> "BatchPlan":
        """The plan that the recipe states; without ``micro_batch_size`` the whole batch in one forward pass."""
        return cls.of(settings, settings.micro_batch_size or settings.batch_size // settings.gpus, settings.activation_checkpointing)

    def smaller(self, settings: Hyperparameters) -> "BatchPlan | None":
        """The next plan to try: the largest micro-batch of at most half, then activation checkpointing, then None."""
        if self.micro_batch_size > 1:
            per_device, half = settings.batch_size // settings.gpus, self.micro_batch_size // 2
            divisor = next(size for size in range(half, 0, -1) if per_device % size == 0)
            return BatchPlan.of(settings, divisor, self.activation_checkpointing)
        return None if self.activation_checkpointing else BatchPlan.of(settings, 1, True)

    def __str__(self) -> str:
        checkpointing = ", activation checkpointing" if self.activation_checkpointing else ""
        return f"micro-batch {self.micro_batch_size} x {self.gradient_accumulation_steps}{checkpointing}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that a device (or the CPU's allocator) has no memory left."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    spelled = any(words in str(error).lower() for words in OUT_OF_MEMORY)
    return spelled or isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


def free_memory() -> None:
    """Release the memory of a failed attempt."""
    import torch

    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def load_plan(state: Path) -> tuple[BatchPlan | None, list[str]]:
    """The plan that an earlier attempt of this run left, and the plans that failed with their errors; (None, []) for a first attempt."""
    path = state / PLAN
    if not path.exists():
        return None, []
    try:
        entry = read_json(path, "it is not used")
    except AtlasError as error:
        LOG.warning("%s", error)
        return None, []
    return BatchPlan(**entry["plan"]), entry["failed"]


def reduce_micro_batch(plan: BatchPlan, error: str, settings: Hyperparameters, state: Path, name: str) -> BatchPlan:
    """Record that ``plan`` ran out of memory and return the next one, which a resumed job starts with too. AtlasError when none is left."""
    failed = [*load_plan(state)[1], f"{plan}: {error}"]
    smaller = plan.smaller(settings)
    if smaller is None:
        tried = "\n".join(f"  {line}" for line in failed)
        advice = "Lower max_length, use method: lora, or give the recipe more gpus"
        raise AtlasError(f"{name}: out of memory even with a micro-batch of 1 and activation checkpointing. Tried:\n{tried}\n{advice}")
    write_json(state / PLAN, {"plan": asdict(smaller), "failed": failed})
    LOG.warning("%s: out of memory with %s; going on with %s, the effective batch stays %d", name, plan, smaller, settings.batch_size)
    return smaller
