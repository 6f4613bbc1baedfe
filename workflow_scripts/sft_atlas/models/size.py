"""Sizes of models and of what training writes, from the number of parameters alone."""

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
