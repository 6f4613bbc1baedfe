"""Estimates in words, written the same way in findings, figures, advice and claims, and never more strongly than the numbers allow."""

import numpy as np

from sft_atlas.stats.estimates import Estimate

SIGNIFICANT = 0.05
METHODS = {"full": "full fine-tuning", "lora": "LoRA", "base": "base model"}


def label(study: dict, kind: str, name: str) -> str:
    """The label of one of the study's models, datasets or benchmarks (``kind``)."""
    return study[kind][name].get("label", name)


def sentence_case(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def is_significant(estimate: Estimate, q: float) -> bool:
    """Whether the interval excludes 0 and q (the corrected p), where there is a test, is below 0.05."""
    return estimate.decidable and estimate.excludes_zero and (np.isnan(q) or q < SIGNIFICANT)


def verdict(estimate: Estimate, q: float, up: str, down: str, neither: str) -> str:
    """``up`` or ``down`` by the sign of a significant estimate, else ``neither`` and, where that is the reason, that p was corrected.

    Units too few for any p below 0.05 decide nothing, and the verdict says so.
    """
    if not estimate.decidable:
        return f"cannot be decided with {count(estimate.n, estimate.unit)}"
    if np.isnan(estimate.effect) or np.isnan(estimate.low):
        return f"{neither} (too few data for an interval)"
    if is_significant(estimate, q):
        return up if estimate.effect > 0 else down
    corrected = estimate.excludes_zero and estimate.p < SIGNIFICANT
    return f"{neither} after correction for multiple testing" if corrected else neither


def describe(estimate: Estimate, q: float, scale: float = 1, unit: str = "", digits: int = 2) -> str:
    """Number, interval, p, q and n, such as ``-0.42 [-0.61 to -0.10], p = 0.003, q = 0.01, n = 18 runs``.

    The interval's method is named unless it is of Student's t or a bootstrap over the n given. Units too few for an interval have their range instead, and
    those too few for any p below 0.05 have no p.
    """
    if np.isnan(estimate.effect):
        return f"not defined, n = {count(estimate.n, estimate.unit)}"
    text = f"{number(scale * estimate.effect, digits)}{unit}"
    if not np.isnan(estimate.low):
        usual = estimate.interval_method in [f"{kind} over {estimate.n} {estimate.unit}" for kind in ("t", "bootstrap")]
        method = "" if usual else f"; {estimate.interval_method}"
        text += f" [{number(scale * estimate.low, digits)} to {number(scale * estimate.high, digits)}{method}]"
    elif not np.isnan(estimate.smallest):
        ends = " to ".join(number(scale * value, digits) for value in (estimate.smallest, estimate.largest))
        text += f" (range of {count(estimate.n, estimate.unit)}: {ends})"
    if estimate.decidable and not np.isnan(estimate.p):
        text += f", {p_value(estimate.p)}, {p_value(q, 'q')}"
    return f"{text}, n = {count(estimate.n, estimate.unit)}"


def p_value(value: float, name: str = "p") -> str:
    """``p = 0.03`` or ``p < 0.001``."""
    return f"{name} < 0.001" if value < 0.001 else f"{name} = {value:.3f}" if value < 0.1 else f"{name} = {value:.2f}"


def number(value: float, digits: int) -> str:
    """A rounded number; never ``-0.0``."""
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("-") and not float(text) else text


def count(size: int, things: str) -> str:
    """``1 run``, ``1,200 runs``, ``1 pair of runs``."""
    head, *rest = things.split(" of ", 1)
    head = head.removesuffix("s") if size == 1 else head
    return f"{size:,} {' of '.join([head, *rest])}"


def span(values) -> str:
    """The smallest and the largest of some counts, such as ``120 to 1,319``; one number where all are equal, ``no`` where there is none.

    Counts that are not known are left out; ``an unknown number of`` where none is.
    """
    sizes = sorted(value for value in set(values) if value is not None)
    if not sizes and len(values):
        return "an unknown number of"
    return "no" if not sizes else f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"


def count_span(values, things: str) -> str:
    """:func:`span` of some counts with what they count, such as ``1 base model`` or ``6 to 10 base models``."""
    sizes = set(values)
    return count(1, things) if sizes == {1} else f"{span(sizes)} {things}"
