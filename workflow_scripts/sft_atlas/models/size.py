"""Sizes of models, of what training writes and of the update that it can make, without reading a model."""

import math

from sft_atlas.study.schema import Hyperparameters

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ADAM_BYTES = 12  # float32 weights and two moments for each trained parameter


def width(parameters: float) -> float:
    """Width of a model from its size alone: a layer of width h has about 12 h^2 parameters, a model of this kind about h / 128 layers."""
    return (128 * parameters / 12) ** (1 / 3)


def adapter_parameters(parameters: float, rank: int) -> float:
    """Parameters of a LoRA adapter on all linear layers: the matrices' inputs and outputs add up to about 22 widths a layer.

    Within a third for 0.1 to 70 billion parameters.
    """
    return rank * 22 * width(parameters) ** 2 / 128


def checkpoint_bytes(parameters: float, method: str, rank: int, bytes_each: int) -> float:
    """Size of one kept checkpoint: weights, or a float32 adapter."""
    return parameters * bytes_each if method == "full" else 4 * adapter_parameters(parameters, rank)


def resume_states_bytes(trained: float, epochs: int) -> float:
    """Most bytes of a run's resume states on disk: two while the newer replaces the older; after the last epoch none is written."""
    return min(2, epochs - 1) * ADAM_BYTES * trained


def tiny_parameters(hidden: int, layers: int, vocabulary: int) -> float:
    """Parameters of a model that `pretrain` makes: nine matrices' worth of width squared a layer, and tied embeddings."""
    return 9 * hidden * hidden * layers + vocabulary * hidden


BFLOAT16_ROUNDING = 2**-8  # largest relative rounding error of a weight


def largest_relative_update(settings: Hyperparameters, samples: int, width: int | float) -> float:
    """Most that a run can change weights, relative to their size: Adam moves an element by about the learning rate in a step, at most.

    Weights of a model of ``width`` have a spread of about 1 / sqrt(width). Of LoRA, A hardly changes (its elements are uniform within
    1 / sqrt(width)) and B grows from zero.
    """
    steps = math.ceil(samples / settings.batch_size) * settings.epochs
    mean = 1.0 if settings.lr_scheduler_type == "constant" else 0.5  # of the schedule; of the warm-up it is a half
    travel = settings.learning_rate * steps * (settings.warmup_ratio / 2 + (1 - settings.warmup_ratio) * mean)
    if settings.method == "full":
        return travel * math.sqrt(width)
    scale = settings.lora.alpha / (math.sqrt(settings.lora.rank) if settings.lora.rslora else settings.lora.rank)
    return scale * travel * math.sqrt(settings.lora.rank / 3)
