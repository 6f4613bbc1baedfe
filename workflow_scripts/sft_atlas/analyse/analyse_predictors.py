"""Relate what is known of training sets before training to their gains: correlations, mixed models, held-out errors.

Points are the last checkpoints of single-set runs of the leading method. A gain is the mean over benchmarks, or, for predictors that
know the benchmark, the gain on each. All predictors are compared within base models, whose levels differ for reasons of their own.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.core.files import write_table
from sft_atlas.stats import two_way
from sft_atlas.stats.cross_validation import Matrix, errors
from sft_atlas.stats.estimates import Estimate, benjamini_hochberg
from sft_atlas.tables import stored

# name -> (label, whether it knows the benchmark); the order of tables and figures
PREDICTORS: dict[str, tuple[str, bool]] = {
    "perplexity_response": ("log perplexity (response)", False),
    "perplexity_full": ("log perplexity (full text)", False),
    "bits_per_byte_response": ("bits per byte (response)", False),
    "tokens_response": ("log tokens per response", False),
    "words": ("log words per row", False),
    "lexical_diversity": ("lexical diversity", False),
    "near_duplicates": ("share of near-duplicates", False),
    "lexical_centroid": ("lexical similarity (centroids)", True),
    "lexical_nearest": ("lexical similarity (nearest text)", True),
    "lexical_mmd": ("lexical distance (MMD)", True),
    "semantic_centroid": ("semantic similarity (centroids)", True),
    "semantic_nearest": ("semantic similarity (nearest text)", True),
    "semantic_mmd": ("semantic distance (MMD)", True),
}
ALL = "all"
SCHEMA = {
    "subset": pl.String, "sets": pl.Int64, "predictor": pl.String, "statistic": pl.String, "effect": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "p": pl.Float64, "q": pl.Float64, "p_within": pl.Float64, "n": pl.Int64, "unit": pl.String,
    "interval_method": pl.String, "rmse": pl.Float64, "baseline": pl.String, "baseline_rmse": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True)
class Design:
    """Matrices groups x training sets: ``x`` of a predictor, ``gain``; ``clusters``: the base model of each group."""

    x: np.ndarray
    gain: np.ndarray
    clusters: np.ndarray
    sets: list[str]


def known_before(tables: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Long table model, dataset, benchmark, predictor, value; model or benchmark is null where the predictor does not know it."""
    columns = ["model", "dataset", "benchmark", "predictor", "value"]
    everywhere = pl.lit(None, pl.String)
    perplexity = tables["perplexity"].with_columns(
        pl.col("perplexity").log().alias("perplexity"),
        (pl.col("tokens") / pl.col("n")).log().alias("tokens"),
        everywhere.alias("benchmark"),
    )
    parts = []
    for name, scope, column in (
        ("perplexity_response", "response", "perplexity"),
        ("perplexity_full", "full", "perplexity"),
        ("bits_per_byte_response", "response", "bits_per_byte"),
        ("tokens_response", "response", "tokens"),
    ):
        part = perplexity.filter(pl.col("scope") == scope)
        parts.append(part.with_columns(pl.lit(name).alias("predictor"), pl.col(column).alias("value")).select(columns))
    properties = tables["properties"].with_columns(
        (pl.col("instruction_words") + pl.col("response_words")).log().alias("words"),
        everywhere.alias("model"),
        everywhere.alias("benchmark"),
    )
    parts += [
        properties.with_columns(pl.lit(name).alias("predictor"), pl.col(name).alias("value")).select(columns)
        for name in ("words", "lexical_diversity", "near_duplicates")
    ]
    similarity = tables["similarity"].with_columns(everywhere.alias("model"))
    for measure in ("centroid", "nearest", "mmd"):
        named = similarity.with_columns((pl.col("space") + "_" + measure).alias("predictor"), pl.col(measure).alias("value"))
        parts.append(named.select(columns))
    return pl.concat(parts)


def within_models(points: pl.DataFrame, predictor: str, seed: int, what: str = "") -> Estimate:
    """Correlation of a column of ``points`` (one row per base model and training set, with gain) with the gain, within base models."""
    models, sets = (list(dict.fromkeys(points[key].sort().to_list())) for key in ("model", "dataset"))
    x, gain = (select.matrix(points, [(name,) for name in models], sets, ["model"], column) for column in (predictor, "gain"))
    return two_way.correlation(x, gain, models, seed, what)


def designs(tables: dict[str, pl.DataFrame], study: dict, leave_out: list[str] = ()) -> dict[str, Design]:
    """The design of each predictor that the study knows, without the training sets in ``leave_out``."""
    cells = select.of_leading_method(select.single(tables["gains"], study))
    sets = [name for name in select.kinds(study, "single") if name not in leave_out and name in set(cells["dataset"])]
    means, known = select.mean_gains(cells), known_before(tables)
    models = [name for name in study["models"] if name in set(cells["model"])]
    benchmarks = [name for name in study["benchmarks"] if name in set(cells["benchmark"])]
    by_predictor = {}
    for name, (_, per_benchmark) in PREDICTORS.items():
        values = known.filter(pl.col("predictor") == name, pl.col("value").is_finite())
        if values.is_empty() or not sets:
            continue
        keys = [key for key in ("model", "benchmark") if values[key].null_count() == 0]
        if per_benchmark:
            rows, frame, row_keys = [(model, benchmark) for model in models for benchmark in benchmarks], cells, ["model", "benchmark"]
        else:
            rows, frame, row_keys = [(model,) for model in models], means, ["model"]
        spread = pl.DataFrame(rows, schema=row_keys, orient="row").join(values.select(*keys, "dataset", "value"), on=keys, how="inner") \
            if keys else pl.DataFrame(rows, schema=row_keys, orient="row").join(values.select("dataset", "value"), how="cross")  # fmt: skip
        by_predictor[name] = Design(
            select.matrix(spread, rows, sets, row_keys, "value"),
            select.matrix(frame, rows, sets, row_keys, "gain"),
            np.array([r[0] for r in rows]),
            sets,
        )
    return by_predictor


def subsets(study: dict) -> dict[str, list[str]]:
    """What the statistics are repeated without: nothing, then each of the study's ``leave_out``."""
    return {ALL: []} | {f"without {name}": sets for name, sets in study.get("analyse", {}).get("leave_out", {}).items()}


def table(tables: dict[str, pl.DataFrame], study: dict) -> pl.DataFrame:
    """Every statistic of every predictor, one row each (``SCHEMA``).

    statistic: ``correlation`` (within base models; ``p_within`` is the p of the shuffle within base models, for comparison),
    ``slope`` (mixed model, gain per standard deviation), ``new base model``, ``new base model, dataset known`` and ``new dataset``
    (held-out error; effect is the share of the baseline's squared error that the predictor removes). q is Benjamini-Hochberg over the
    predictors of one subset and statistic.
    """
    rows = []
    for subset, leave_out in subsets(study).items():
        for name, design in designs(tables, study, leave_out).items():
            for statistic, estimate, more in _statistics(design, study["seed"]):
                keys = {"subset": subset, "sets": len(design.sets), "predictor": name, "statistic": statistic}
                shown = {key: getattr(estimate, key) for key in ("effect", "low", "high", "p", "n", "unit", "interval_method")}
                rows.append({**dict.fromkeys(SCHEMA), **keys, **shown, **more})
    frame = pl.DataFrame(rows, schema=SCHEMA)
    if frame.is_empty():
        return frame
    parts = [
        part.with_columns(pl.Series("q", benjamini_hochberg(part["p"].to_numpy()), dtype=pl.Float64))
        for _, part in frame.group_by("subset", "statistic", maintain_order=True)
    ]
    return pl.concat(parts)


def _statistics(design: Design, seed: int) -> Iterator[tuple[str, Estimate, dict[str, object]]]:
    correlation = two_way.correlation(design.x, design.gain, design.clusters, seed)
    yield "correlation", correlation, {"p_within": two_way.within_shuffle_p(design.x, design.gain, seed)}
    slope = two_way.mixed_slope(design.x, design.gain, design.clusters)
    yield "slope", replace(slope, n=correlation.n), {}
    for name, estimate, rmse, baseline, baseline_rmse in errors(Matrix(design.x, design.gain, design.clusters), seed):
        yield name, estimate, {"rmse": rmse, "baseline": baseline, "baseline_rmse": baseline_rmse}


# ---------------------------------------------------------------- job


TABLES = ("gains", "perplexity", "properties", "similarity")


def main(args: argparse.Namespace) -> None:
    """Write one row per subset, predictor and statistic."""
    study, tables = stored.load(args, TABLES)
    write_table(args.output, table(tables, study))


def add_options(p: argparse.ArgumentParser) -> None:
    stored.add_options(p)
    p.add_argument("--output", type=Path, required=True, help="Parquet file")
