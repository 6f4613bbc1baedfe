"""Relate what is known of training sets before training to their gains: correlations, mixed models, held-out errors.

Points are the last checkpoints of single-set runs of the leading method. A gain is the mean over benchmarks, or, for predictors that
know the benchmark, the gain on each. All predictors are compared within base models, whose levels differ for reasons of their own.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.core.files import write_table
from sft_atlas.stats import two_way
from sft_atlas.stats.cross_validation import errors
from sft_atlas.stats.estimates import Estimate, benjamini_hochberg
from sft_atlas.study.result_files import REAL, TEXT, WHOLE, columns
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
    "subset": TEXT, "sets": WHOLE, **columns("predictor statistic", TEXT), **columns("effect low high p q p_within", REAL), "n": WHOLE,
    **columns("unit interval_method", TEXT), "rmse": REAL, "baseline": TEXT, "baseline_rmse": REAL,
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
    perplexity = tables["perplexity"].select(
        "model", "dataset", "scope", "bits_per_byte", perplexity=pl.col("perplexity").log(), tokens=(pl.col("tokens") / pl.col("n")).log()
    )
    words = (pl.col("instruction_words") + pl.col("response_words")).log()
    parts = [
        perplexity.unpivot(index=["model", "dataset", "scope"], variable_name="predictor"),
        tables["properties"]
        .select("dataset", "lexical_diversity", "near_duplicates", words=words)
        .unpivot(index="dataset", variable_name="predictor"),
        tables["similarity"].unpivot(["centroid", "nearest", "mmd"], index=["dataset", "benchmark", "space"], variable_name="predictor"),
    ]
    parts[0] = parts[0].with_columns(predictor=pl.col("predictor") + "_" + pl.col("scope"))
    parts[2] = parts[2].with_columns(predictor=pl.col("space") + "_" + pl.col("predictor"))
    return (
        pl.concat(parts, how="diagonal")
        .select("model", "dataset", "benchmark", "predictor", "value")
        .filter(pl.col("predictor").is_in(list(PREDICTORS)))
    )


def within_models(points: pl.DataFrame, predictor: str, seed: int, what: str = "") -> Estimate:
    """Correlation of a column of ``points`` (one row per base model and training set, with gain) with the gain, within base models."""
    models, sets = (list(dict.fromkeys(points[key].sort().to_list())) for key in ("model", "dataset"))
    x, gain = (select.array(points, column, {"model": models, "dataset": sets}) for column in (predictor, "gain"))
    return two_way.correlation(x, gain, models, seed, what)


def designs(tables: dict[str, pl.DataFrame], study: dict, leave_out: list[str] = ()) -> dict[str, Design]:
    """The design of each predictor that the study knows, without the training sets in ``leave_out``."""
    cells = select.of_leading_method(select.single(tables["gains"], study))
    sets = [name for name in select.kinds(study, "single") if name not in leave_out and name in set(cells["dataset"])]
    means, known = select.mean_gains(cells), known_before(tables)
    levels = {key: [name for name in study[f"{key}s"] if name in set(cells[key])] for key in ("model", "benchmark")} | {"dataset": sets}
    by_predictor = {}
    for name, (_, per_benchmark) in PREDICTORS.items():
        values = known.filter(pl.col("predictor") == name, pl.col("value").is_finite())
        if values.is_empty() or not sets:
            continue
        axes = {key: names for key, names in levels.items() if per_benchmark or key != "benchmark"}
        gain = select.array(cells if per_benchmark else means, "gain", axes)
        # What does not depend on the base model, or on the benchmark, is the same in all of them.
        known_by = {key: names for key, names in axes.items() if values[key].null_count() == 0}
        x = select.array(values, "value", known_by).reshape([len(known_by.get(key, " ")) for key in axes])
        x, gain = (matrix.reshape(-1, len(sets)) for matrix in (np.broadcast_to(x, gain.shape), gain))
        by_predictor[name] = Design(x, gain, np.repeat(levels["model"], len(x) // len(levels["model"])), sets)
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
                rows.append({**keys, **vars(estimate), **more})
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
    for name, estimate, rmse, baseline, baseline_rmse in errors(design.x, design.gain, design.clusters, seed):
        yield name, estimate, {"rmse": rmse, "baseline": baseline, "baseline_rmse": baseline_rmse}


def main(args: argparse.Namespace) -> None:
    study, tables = stored.load(args, ("gains", "perplexity", "properties", "similarity"))
    write_table(args.output, table(tables, study))


def add_options(p: argparse.ArgumentParser) -> None:
    stored.add_options(p, output="Parquet, one row per subset, predictor and statistic")
