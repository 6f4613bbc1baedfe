"""Tests on published scores hold their level where base models, training sets and variants of a benchmark are related; effects are found."""

import numpy as np
import polars as pl

from rates import is_at_most
from sft_atlas.published import contrasts, frames


def sized(scores: np.ndarray) -> frames.Data:
    """Scores [models, sets, sizes] of one benchmark as a table of full tuning at one epoch."""
    rows = [(f"m{m}", f"d{d}", (1000, 20000)[k], score) for (m, d, k), score in np.ndenumerate(scores)]
    table = pl.DataFrame(rows, schema=["model", "dataset", "rows", "score"], orient="row").with_columns(
        method=pl.lit("full"), schedule=pl.lit("constant"), epoch=pl.lit(10), benchmark=pl.lit("b")
    )
    kinds = {f"d{d}": {"without": None, "merged": False} for d in range(scores.shape[1])}
    return frames.Data({"datasets": kinds}, table, table, table)


def of_size(rng: np.random.Generator, models: int, sets: int, effect: float = 0.0) -> dict:
    """The test of size where more rows of a set, and for a base model, do the same everywhere; ``effect`` in their spread."""
    change = effect + rng.normal(size=(models, sets)) + (rng.normal(size=(models, 1)) if models > 4 else rng.normal(size=sets))
    found = contrasts.size(sized(np.stack([np.zeros_like(change), change], axis=2) / 100), seed=0)
    return found.row(by_predicate=(pl.col("benchmark") == "all") & (pl.col("epochs") == "last"), named=True)


def test_size_counts_training_sets_or_base_models_not_runs():
    rng = np.random.default_rng(0)
    for shape, n, n_of in (((3, 9), 9, "training sets"), ((8, 4), 8, "base models")):
        null = [of_size(rng, *shape) for _ in range(120)]
        assert {(row["n"], row["n_of"]) for row in null} == {(n, n_of)}
        assert is_at_most([row["p"] <= 0.05 for row in null])
        assert is_at_most([row["low"] > 0 or row["high"] < 0 for row in null], 0.1)  # with so few units intervals cover about 90 %
        assert np.mean([of_size(rng, *shape, effect=2.5)["p"] <= 0.05 for _ in range(20)]) > 0.9
