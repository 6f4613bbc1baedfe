"""Scores of answers, one function for each kind of benchmark, named by `process_results: !function` in config/benchmarks/*.yaml.

Each takes (item, [raw output]) as lm-eval does and returns the item's scores: the benchmark's metric (0 or 1, under lenient extraction,
as a human reader would judge), ``strict`` (0 or 1: only the form that the prompt requests counts), ``parsed`` (1 where an answer could be
extracted at all), ``formed`` (1 where the output has the requested form, right or wrong) and ``extracted`` (the answer, or ``""``).
"""

import re
import unicodedata

FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)


def verdict(metric: str, extracted: str | None, correct: bool, formed: bool, strict: bool) -> dict[str, float | str]:
    """The scores of one item; an output without an answer is wrong."""
    parsed = extracted is not None and extracted != ""
    scores = {metric: parsed and correct, "strict": formed and strict, "parsed": parsed, "formed": formed}
    return {name: float(value) for name, value in scores.items()} | {"extracted": extracted or ""}


def plain(output: str) -> str:
    """An answer without full-width forms, code fences, Markdown emphasis, LaTeX text commands and surrounding space."""
    text = unicodedata.normalize("NFKC", output)
    text = FENCE.sub(lambda match: match[1] + "\n", text).replace("`", "")
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", text, flags=re.DOTALL)
    return text.strip()


def last_boxed(text: str) -> str | None:
    """The content of the last ``\\boxed{...}`` (or ``\\fbox``) with balanced braces, or None."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    first = text.index("{", start) + 1
    depth = 1
    for position in range(first, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[first:position].strip()
    return None
