"""The section of further analyses says what was found and what cannot be decided."""

import numpy as np
import polars as pl

from sft_atlas.published import agreement, further


def topics(models: int) -> list[str]:
    rng = np.random.default_rng(0)
    rows = [(f"m{m}", name, "full", "math-0", rng.normal()) for m in range(models) for name in ("math", "lima", "ultrachat")]
    cells = pl.DataFrame(rows, schema=["model", "dataset", "method", "benchmark", "score"], orient="row")
    groups = {"math": "mathematics", "lima": "general", "ultrachat": "general"}
    study = {"datasets": {name: {"group": group} for name, group in groups.items()}, "benchmarks": {"math-0": {"group": "mathematics"}}}
    return further.of_topics(agreement.own_topic(cells, study, 0))


def test_few_base_models_cannot_be_decided():
    assert "cannot be decided with 4 base models" in topics(4)[-1] and "none with 4 base models" in topics(4)[-1]
    assert "cannot be decided" not in topics(6)[-1] and topics(6)[-1].startswith("| MathInstruct | mathematics | full fine-tuning |")


def test_a_difference_between_languages_needs_six_base_models():
    row = {"effect": 0.4, "p": np.nan, "q": np.nan, "n": 4}
    assert further._between(row) == "cannot be decided with 4 base models"
    assert further._between({**row, "p": 0.2, "q": 0.3, "n": 9}) == "40 %, p = 0.20, q = 0.30, n = 9"
