"""Forecasts before training, from config.json and file headers alone: peak memory of a device, and bytes on disk.

Activations are counted per token of a decoder layer with gated feed-forward, as transformers 5.23 keeps them for the backward pass.
Tests compare the count with what autograd holds; a GPU test compares the sum with the measured peak.
"""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.core.disk import size_text
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json
from sft_atlas.core.integrity import safetensors_header
from sft_atlas.core.log import LOG
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.models.layout import layer_and_component, layers_in_range
from sft_atlas.models.size import ADAM_BYTES, BYTES, resume_states_bytes
from sft_atlas.study.schema import Hyperparameters
from sft_atlas.train.hardware import precision
from sft_atlas.train.micro_batch import BatchPlan
from sft_atlas.train.step_batches import useful_share

GIB = 2**30
TILE = 32768  # vocabulary entries whose logits the loss holds at a time (TRL 1.16)
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8  # of an element, with its share of the scales and of their scales
USABLE = 0.92  # of a device's memory; the rest is for its context, fragmentation and workspaces
NORMS = {"gemma2": 4, "gemma3": 4, "gemma3_text": 4}  # per layer; elsewhere two
QUERY_KEY_NORMS = {"qwen3", "gemma3", "gemma3_text", "olmo2"}
WEIGHTLESS_NORMS = {"olmo"}
# Least share of useful tokens for which a larger micro-batch is taken: forward passes of a sharded model gather its weights, so that more of
# them cost more than with one GPU.
LEAST_USEFUL, LEAST_USEFUL_SHARDED = 0.92, 0.75
EAGER = {"gemma2"}  # soft-capped scores have no fused kernel but Flash Attention


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder that memory depends on."""

    kind: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    query: int  # heads x size of a head
    key: int  # key-value heads x size of a head
    vocabulary: int
    tied: bool

    @classmethod
    def read(cls, folder: Path) -> "DecoderShape":
        """From a model folder's config.json."""
        config = read_json(Path(folder) / "config.json", "restore the model's folder")
        return cls.of({**config, **config.get("text_config", {})})

    @classmethod
    def of(cls, config: dict) -> "DecoderShape":
        """From the content of config.json; AtlasError where a size is missing."""
        try:
            heads = config["num_attention_heads"]
            head = config.get("head_dim") or config["hidden_size"] // heads
            sizes = [config[key] for key in ("model_type", "num_hidden_layers", "hidden_size", "intermediate_size")]
            key, tied = (config.get("num_key_value_heads") or heads) * head, bool(config.get("tie_word_embeddings", False))
            return cls(*sizes, heads, heads * head, key, config["vocab_size"], tied)
        except KeyError as error:
            raise AtlasError(f"config.json has no {error}; memory is forecast only for decoders with gated feed-forward layers") from error

    @property
    def matrices(self) -> int:
        """Elements of one layer's matrices."""
        return 2 * self.hidden * (self.query + self.key) + 3 * self.hidden * self.feed_forward

    @property
    def parameters(self) -> int:
        """Elements of the whole model, without norms and biases (under 0.1 % at sizes that matter)."""
        return self.layers * self.matrices + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def adapter_elements(self, rank: int) -> int:
        """Elements of one layer's LoRA factors, on all its matrices."""
        return rank * (2 * (self.hidden + self.query) + 2 * (self.hidden + self.key) + 3 * (self.hidden + self.feed_forward))


@dataclass(frozen=True)
class MemoryForecast:
    """Peak bytes on one device, by what needs them.

    ``casts``: weights cast to bfloat16, or gathered from other devices. ``reduction``: gradients on their way to other devices.
    """

    weights: float
    optimizer: float
    casts: float
    gradients: float
    activations: float
    head: float
    reduction: float
    accumulating: bool

    @property
    def total(self) -> float:
        """Peak bytes. Under accumulation gradients exist during the forward pass; otherwise they grow while activations are freed."""
        transient = self.activations + self.head + self.reduction
        permanent = self.weights + self.optimizer + self.casts
        return permanent + (self.gradients + transient if self.accumulating else max(self.gradients, transient))

    def __str__(self) -> str:
        parts = {key: value for key, value in vars(self).items() if key != "accumulating"}
        return f"{self.total / GIB:.2f} GiB ({', '.join(f'{key} {value / GIB:.2f}' for key, value in parts.items())})"


def trained_elements(shape: DecoderShape, settings: Hyperparameters) -> int:
    """Elements that the recipe trains."""
    layers = len(layers_in_range(settings.layers, shape.layers))
    if settings.method == "lora":
        return layers * shape.adapter_elements(settings.lora.rank)
    outside = 0 if settings.layers or settings.freeze_embeddings else shape.parameters - shape.layers * shape.matrices
    return layers * shape.matrices + outside


def activations_per_token(shape: DecoderShape, settings: Hyperparameters, dtype: str, autocast: bool, length: int) -> float:
    """Bytes that one layer keeps per token for the backward pass, in rows of ``length`` tokens."""
    size = 2 if autocast else BYTES[dtype]
    norms, full = NORMS.get(shape.kind, 2), settings.method == "full"
    eager = settings.attention == "eager" or (shape.kind in EAGER and not settings.attention.startswith("flash"))
    key = shape.query if eager else shape.key
    # A norm keeps its input in float32 and, where it is trained, the normalised input as well, in the weights' type.
    total = norms * (4 + (BYTES[dtype] if full and shape.kind not in WEIGHTLESS_NORMS else 0)) * shape.hidden
    # Inputs of the matrices: autocast casts once for each; in float32 the three and the two that read the same share it.
    casts = autocast and not (full and dtype == "bfloat16")
    total += (10 if full else 12) * shape.hidden if casts else 2 * size * shape.hidden
    total += 2 * size * (shape.query + key) + 4 * size * shape.feed_forward
    total += 8 * norms + 4 * shape.heads  # root mean squares, and log-sums of the attention
    if shape.kind in QUERY_KEY_NORMS:
        total += (7 if full else 4) * (shape.query + shape.key)
    if not full:
        total += 14 * size * settings.lora.rank
    if eager:
        total += 8 * shape.heads * length
    elif not settings.padding_free:  # padded rows: a dense mask, and keys and values repeated for each query head
        total += size * length + 2 * size * (shape.query - shape.key)
    return total


def forecast(shape: DecoderShape, settings: Hyperparameters, plan: BatchPlan, dtype: str, autocast: bool, length: int) -> MemoryForecast:
    """Peak memory of one device while training with ``plan`` on samples of ``length`` tokens.

    ``dtype`` and ``autocast`` are those of :func:`sft_atlas.train.hardware.precision`.
    """
    updated, tokens = trained_elements(shape, settings), plan.micro_batch_size * length
    per_layer = tokens * activations_per_token(shape, settings, dtype, autocast, length)
    lowest = settings.layers[0] if settings.layers else 0.0
    kept = len(layers_in_range((lowest, 1.0), shape.layers))  # layers below the first that is trained keep nothing
    recomputed = shape.layers * tokens * shape.hidden * BYTES[dtype] + per_layer
    # Weights in another type than the computation's are cast in the forward pass, and the casts kept for the backward pass.
    cast = autocast and BYTES[dtype] != 2
    size = 2 if autocast else BYTES[dtype]  # of what is gathered and computed with
    adapter = 4 * updated if settings.method == "lora" else 0
    state = 4 if settings.method == "lora" else BYTES[dtype]  # gradients and the two moments have the type of what is trained
    in_four_bits = shape.layers * shape.matrices if settings.load_in_4bit else 0
    return MemoryForecast(
        weights=(BYTES[dtype] * (shape.parameters - in_four_bits) + NF4_BYTES * in_four_bits + adapter) / settings.gpus,
        optimizer=2 * (1 if settings.optim == "adamw_8bit" else state) * updated / settings.gpus,
        casts=_gathered(shape, size) if settings.gpus > 1 else 2 * shape.layers * shape.matrices if cast else 0,
        gradients=state * updated / settings.gpus,
        activations=recomputed if plan.activation_checkpointing else kept * per_layer,
        head=3 * 4 * tokens * min(TILE, shape.vocabulary),
        reduction=(size + 4) * _largest_trained_group(shape, settings) if settings.gpus > 1 else 0,
        accumulating=plan.gradient_accumulation_steps > 1,
    )


def _gathered(shape: DecoderShape, size: int) -> float:
    """Bytes of weights that FSDP2 has gathered at once: a layer, the next one, and the head (or what is tied to it), which stays."""
    return size * (2 * shape.matrices + shape.vocabulary * shape.hidden)


def _largest_trained_group(shape: DecoderShape, settings: Hyperparameters) -> float:
    """Elements of the largest part whose gradients FSDP2 adds up at once: whole in the type computed with, and in float32 to be sent."""
    if settings.method == "lora":
        return shape.adapter_elements(settings.lora.rank)
    return shape.matrices if settings.layers or settings.freeze_embeddings else max(shape.matrices, shape.vocabulary * shape.hidden)


def largest_plan_that_fits(
    shape: DecoderShape, settings: Hyperparameters, first: BatchPlan, dtype: str, autocast: bool, length: int, available: float, name: str
) -> BatchPlan:
    """The plan with the largest micro-batch, from ``first`` downwards, whose forecast fits into ``available`` bytes of a device.

    The forecast only says where to begin: a plan that does run out of memory is reduced all the same.
    """
    plan: BatchPlan | None = first
    while plan is not None:
        peak = forecast(shape, settings, plan, dtype, autocast, length)
        if peak.total <= USABLE * available:
            LOG.info("%s: forecast with %s: %s of %.1f GiB", name, plan, peak, available / GIB)
            return plan
        last, plan = plan, plan.smaller(settings)
    LOG.warning("%s: even %s is forecast to need %s of %.1f GiB; trying it", name, last, peak, available / GIB)
    return last


def describe(base: ModelFolder, settings: Hyperparameters, length: int, device_type: str) -> str:
    """The forecast for the recipe's own batch plan on samples of ``length`` tokens, as text for the preflight."""
    try:
        shape = DecoderShape.read(base.path)
    except AtlasError as error:
        return f"not forecast ({error})"
    plan = BatchPlan.of_recipe(settings)
    return f"forecast {forecast(shape, settings, plan, *precision(settings, base, device_type), length)} with {plan}"


def with_useful_tokens(plan: BatchPlan, settings: Hyperparameters, lengths: list[int]) -> BatchPlan:
    """The plan or, where padding and waiting take too much of it, the next smaller one in which they do not; the plan where there is none."""
    smaller: BatchPlan | None = plan
    while smaller and smaller.activation_checkpointing == plan.activation_checkpointing:
        share = useful_share(lengths, settings.batch_size, settings.gpus, smaller.micro_batch_size, settings.padding_free)
        if share >= (LEAST_USEFUL_SHARDED if settings.gpus > 1 else LEAST_USEFUL):
            return smaller
        smaller = smaller.smaller(settings) if smaller.micro_batch_size > 1 else None
    return plan


def first_plan(base: ModelFolder, settings: Hyperparameters, lengths: list[int], device_type: str, name: str) -> BatchPlan:
    """The plan to begin with on samples of these lengths: the recipe's.

    On CUDA, and without ``micro_batch_size``, the largest that is forecast to fit and spends little on padding.
    """
    import torch

    plan = BatchPlan.of_recipe(settings)
    if settings.micro_batch_size or device_type != "cuda":
        return plan
    try:
        shape = DecoderShape.read(base.path)
    except AtlasError as error:
        LOG.warning("%s: %s", name, error)
        return plan
    available = torch.cuda.get_device_properties(0).total_memory
    fits = largest_plan_that_fits(shape, settings, plan, *precision(settings, base, device_type), max(lengths), available, name)
    return with_useful_tokens(fits, settings, lengths)


def stored_shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes of the tensors in the safetensors files of a folder, by name, from the files' headers."""
    shapes = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        shapes |= {key: entry["shape"] for key, entry in safetensors_header(path)[1].items()}
    return shapes


def written_elements(folder: Path, settings: Hyperparameters) -> int:
    """Elements of a checkpoint: all weights, or at most LoRA factors for every matrix of the layers."""
    shapes = stored_shapes(folder)
    if settings.method == "lora":
        inside = [shape for key, shape in shapes.items() if len(shape) == 2 and layer_and_component(key)[0] is not None]
        return settings.lora.rank * sum(map(sum, inside))
    return sum(map(math.prod, shapes.values()))


def resume_checkpoint_bytes(base: ModelFolder, settings: Hyperparameters) -> float:
    """Bytes of one resume checkpoint: weights and the two moments of AdamW, in float32."""
    return ADAM_BYTES * written_elements(base.path, settings)


def disk_bytes(base: ModelFolder, settings: Hyperparameters) -> float:
    """Most bytes that a run has on disk at once: its kept epochs and its resume checkpoints."""
    elements = written_elements(base.path, settings)
    epoch = elements * (4 if settings.method == "lora" else BYTES[base.dtype])
    return len(settings.kept_epochs) * epoch + resume_states_bytes(elements, settings.epochs)


def check_disk(base: ModelFolder, settings: Hyperparameters, folder: Path, name: str) -> None:
    """Raise AtlasError where the disk has no room for what the run will write; nothing has been trained yet."""
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())  # by an interrupted attempt; they count as free
    needed, room = disk_bytes(base, settings), shutil.disk_usage(folder).free + held
    if needed > room:
        raise AtlasError(
            f"{name} writes up to {size_text(needed)} below {folder}, where there is room for {size_text(room)}; make room, keep fewer epochs"
            " (save_epochs: last), or put results/ on a larger disk"
        )
