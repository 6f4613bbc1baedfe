"""How much of a gain is noise: of training the same run once more with another seed, and of the items; and what the rest is due to."""

import argparse
from collections.abc import Iterator

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.analyse.variance import complete_part
from sft_atlas.core.files import write_table
from sft_atlas.stats.variance_components import Component, Replicates, crossed_components, pooled, replicate_components
from sft_atlas.study.result_files import REAL, TEXT, WHOLE, columns
from sft_atlas.tables import stored

ALL = "all"  # the mean gain over benchmarks, as if it were one of them
CELL = ["model", "dataset", "recipe"]
FACTORS = ("model", "dataset", "method")
TERMS = (
    "model", "dataset", "method", "model x dataset", "model x method", "dataset x method", "model x dataset x method", "rest", "seed", "items",
)  # fmt: skip
NOISE = {
    **columns("design recipe benchmark term", TEXT),
    **columns("variance low high share df", REAL),
    **columns("models datasets methods cells runs fewest_seeds most_seeds", WHOLE),
}


def noise(gains: pl.DataFrame, study: dict) -> pl.DataFrame:
    """Variances of gains, in squared points (columns ``NOISE``); ``gains`` has a row for each seed. Last kept epoch of each run.

    design ``training``: per recipe the variance between the seeds of a cell (base model x training set), pooled over cells that have
    several. Terms: run (between seeds, on the same items), seed (without what other items would draw anew), items (that part), score (the mean
    squared item-level standard error of one gain, for comparison).

    design ``split``: single-set runs of the main recipes, cells with every base model, training set and method (slices with gaps are left out),
    split as in :data:`TERMS`. seed and items are there if each method has cells with several seeds; else they are in ``rest``, with the
    interaction of all factors. The items are those of the study: what an item does to all runs alike is in no term. ``share`` is of the sum of
    a split.

    Benchmark ``all`` is the mean gain over benchmarks, of runs that have them all.
    """
    frame = gains_in_points(gains)
    benchmarks = [ALL, *(name for name in study["benchmarks"] if name in set(frame["benchmark"]))]
    rows = []
    for benchmark in benchmarks:
        part = frame.filter(pl.col("benchmark") == benchmark)
        rows += _training(part, benchmark, study)
        rows += _split(part, benchmark, study)
    return pl.DataFrame(rows, NOISE)


def gains_in_points(gains: pl.DataFrame, benchmark: str | None = None) -> pl.DataFrame:
    """Gains at the last kept epoch of each run and seed, in points, with their means over benchmarks as the benchmark ALL; or of one benchmark."""
    last = select.final(gains).filter(pl.col("gain").is_not_null())
    frame = pl.concat([last.select(_columns()), mean_over_benchmarks(last).select(_columns())])
    return frame if benchmark is None else frame.filter(pl.col("benchmark") == benchmark)


def _columns() -> list[pl.Expr]:
    points = [
        (10**4 * pl.col("stderr") ** 2).alias("square"),
        (10**4 * pl.col("seed_covariance")).alias("covariance"),
        pl.col("gain") * 100,
    ]
    return [*map(pl.col, (*CELL, "seed", "method", "benchmark")), *points]


def mean_over_benchmarks(gains: pl.DataFrame) -> pl.DataFrame:
    """The mean gain of each run that has every common benchmark; errors of different benchmarks are independent, their items differ."""
    gains = select.of_common_benchmarks(gains)
    every = gains["benchmark"].n_unique()
    means = gains.group_by(*CELL, "seed", "method", "epoch", maintain_order=True).agg(
        pl.col("gain").mean(),
        ((pl.col("stderr") ** 2).sum().sqrt() / pl.len()).alias("stderr"),
        pl.when(pl.col("seed_covariance").null_count() == 0).then(pl.col("seed_covariance").sum() / pl.len() ** 2).alias("seed_covariance"),
        pl.len().alias("benchmarks"),
    )
    return means.filter(pl.col("benchmarks") == every).with_columns(benchmark=pl.lit(ALL))


def cells_of(part: pl.DataFrame) -> pl.DataFrame:
    """Per cell: the mean gain, the number of seeds and the variance between them, v (mean squared error of a gain) and v - c (see docs)."""
    return part.group_by(*CELL, "method", maintain_order=True).agg(
        pl.col("gain").mean(),
        pl.len().alias("seeds"),
        pl.col("gain").var().alias("variance"),
        pl.col("square").mean().alias("score"),
        (pl.col("square") - pl.col("covariance")).mean().alias("items"),
    )


def replicates_of(cells: pl.DataFrame) -> Replicates | None:
    """What the seeds of these cells show together; None where no cell has two."""
    cells = cells.filter(pl.col("seeds") > 1)
    if cells.is_empty():
        return None
    variance, df = pooled(cells["variance"], cells["seeds"])
    known = cells.filter(pl.col("items").is_not_null())
    items = pooled(known["items"], known["seeds"])[0] if known.height else 0.0
    return Replicates(variance, df, max(0.0, items))


def _training(part: pl.DataFrame, benchmark: str, study: dict) -> Iterator[dict]:
    cells = cells_of(part)
    for recipe in (name for name in study["recipes"] if name in set(cells["recipe"])):
        own = cells.filter(pl.col("recipe") == recipe, pl.col("seeds") > 1)
        replicates = replicates_of(own)
        if replicates:
            score = float(own["score"].mean() or 0.0)
            for found in [*replicate_components(replicates, study["seed"]), Component("score", score, np.nan, np.nan, np.nan)]:
                yield _row("training", recipe, benchmark, found, own, None)


def _split(part: pl.DataFrame, benchmark: str, study: dict) -> Iterator[dict]:
    main = list(select.main_recipes(study).values())
    cells = cells_of(part.filter(pl.col("dataset").is_in(select.kinds(study, "single")), pl.col("recipe").is_in(main)))
    if cells.is_empty():
        return
    names = {key: [name for name in dict.fromkeys(order) if name in set(cells[key])] for key, order in _orders(study, cells).items()}
    full = select.array(cells, "gain", names)
    kept = complete_part(full)
    names = {key: [every[i] for i in index] for (key, every), index in zip(names.items(), kept, strict=True)}
    cells = cells.filter(pl.col(key).is_in(levels) for key, levels in names.items())
    if cells.is_empty() or max(len(names["model"]), len(names["dataset"])) < 2:
        return
    by_method = [replicates_of(group) for _, group in cells.group_by("method")]
    replicates = replicates_of(cells) if all(by_method) else None
    counts = select.array(cells, "seeds", names)
    found = crossed_components(full[np.ix_(*kept)], FACTORS, replicates, counts, study["seed"])
    total = sum(component.variance for component in found)
    for component in found:
        yield _row("split", None, benchmark, component, cells, component.variance / total if total > 0 else None)


def _orders(study: dict, cells: pl.DataFrame) -> dict[str, list[str]]:
    return {"model": list(study["models"]), "dataset": list(study["datasets"]), "method": sorted(set(cells["method"]))}


def _row(design: str, recipe: str | None, benchmark: str, found: Component, cells: pl.DataFrame, share: float | None) -> dict:
    sizes = {f"{key}s": cells[key].n_unique() for key in FACTORS}
    seeds = {"fewest_seeds": cells["seeds"].min(), "most_seeds": cells["seeds"].max()}
    numbers = {key: None if np.isnan(value := getattr(found, key)) else value for key in ("variance", "low", "high", "df")}
    keys = {"design": design, "recipe": recipe, "benchmark": benchmark, "term": found.term}
    return {**keys, **numbers, "share": share, **sizes, "cells": cells.height, "runs": int(cells["seeds"].sum()), **seeds}


def main(args: argparse.Namespace) -> None:
    study, tables = stored.load(args, ("gains",), each_seed=True)
    write_table(args.output, noise(tables["gains"], study))


def add_options(p: argparse.ArgumentParser) -> None:
    stored.add_options(p, output="Parquet, one row per design, recipe, benchmark and term")
