"""Seconds that jobs take, from model size, tokens and a device's rates.

Estimates are (low, likely, high) triples; low is the cheapest case. FLOP per parameter and token: 6 for full fine-tuning, 4 for LoRA
(no gradients of frozen weights), 2 for reading (Kaplan et al. 2020, arXiv 2001.08361, section 2.1; Hu et al. 2022, arXiv 2106.09685).
"""

import math
from collections.abc import Iterable

from sft_atlas.study.schema import Device, Load

Triple = tuple[float, float, float]

FLOP = {"full": 6, "lora": 4, "score": 2}
REFERENCE = 7e9  # parameters of the model that a device's generation rate is stated for
ZERO: Triple = (0.0, 0.0, 0.0)


def add(triples: Iterable[Triple]) -> Triple:
    """The sum of each case: all low, all likely, all high."""
    return tuple(map(sum, zip(ZERO, *triples, strict=True)))


def scale(triple: Triple, factor: float) -> Triple:
    return tuple(value * factor for value in triple)


def compute_seconds(parameters: float, tokens: Triple, work: str, device: Device, tflops: float | None = None) -> Triple:
    """Seconds of matrix work on tokens; ``work`` is full, lora or score. The low case has few tokens and a high rate.

    ``tflops`` is the peak that the share is of; default: bfloat16's.
    """
    shares = getattr(device, f"mfu_{work}")[::-1]
    return tuple(
        count * FLOP[work] * parameters / (1e12 * (tflops or device.peak_tflops) * share)
        for count, share in zip(tokens, shares, strict=True)
    )


def training_seconds(parameters: float, tokens: Triple, method: str, device: Device, gpus: int = 1) -> Triple:
    """Wall seconds of a training run on ``tokens`` tokens, all epochs together. Each of several GPUs is as fast as one alone."""
    return add([device.start_seconds, scale(compute_seconds(parameters, tokens, method, device), 1 / gpus)])


def scoring_seconds(
    parameters: float, loads: Iterable[Load], device: Device, in_float32: bool = False, engine: str = "hf"
) -> Triple | None:
    """Seconds to score one checkpoint on benchmarks in one model load; ``in_float32`` rather than bfloat16, which reads half the bytes.

    A server (``endpoint``) counts as vLLM. None where the table of devices has no rate of the engine.
    """
    rates = device.decode_tokens_per_second.get("vllm" if engine == "endpoint" else engine)
    if rates is None:
        return None
    tflops, slower = (device.float32_tflops, 2) if in_float32 else (device.peak_tflops, 1)
    speed = [rate * REFERENCE / parameters / slower for rate in rates[::-1]]
    parts = [device.start_seconds]
    for load in loads:
        requests = load.items * load.requests
        parts.append(compute_seconds(parameters, scale(load.prompt_tokens, requests), "score", device, tflops))
        parts.append(tuple(tokens * requests / rate for tokens, rate in zip(load.generated_tokens, speed, strict=True)))
    return add(parts)


def reading_seconds(parameters: float, tokens: Triple, device: Device, tflops: float | None = None) -> Triple:
    """Seconds to read tokens once: perplexity, likelihoods, hidden states; ``tflops`` as in :func:`compute_seconds`."""
    return add([device.start_seconds, compute_seconds(parameters, tokens, "score", device, tflops)])


def round_digits(value: float, digits: int = 2) -> float:
    """A forecast needs no more digits than it has."""
    return 0.0 if value == 0 else round(value, digits - 1 - math.floor(math.log10(abs(value))))
