"""Contrasts of published scores that need no base model: LoRA against full tuning, sizes, epochs, leave-one-out. In points."""

import numpy as np
import polars as pl
from scipy.stats import t as student

from sft_atlas.analyse import consistency, select, variance
from sft_atlas.published import frames
from sft_atlas.stats.estimates import Estimate, benjamini_hochberg, paired_difference, signed_rank_p

NUMBERS = dict.fromkeys(("effect", "low", "high", "p", "p_wilcoxon"), pl.Float64)
TEST = {"n": pl.Int64, "unit": pl.String, **NUMBERS, "interval": pl.String}
NO_PAIRS = {"model": pl.String, "benchmark": pl.String, "difference": pl.Float64}
CLUSTERS = {"model": "base models", "dataset": "training sets"}


def contrast(frame: pl.DataFrame, cluster: str, seed: int, what: str) -> tuple[Estimate, float]:
    """Mean ``difference`` over clusters, and Wilcoxon's p over the clusters' means; ``frame`` has ``difference`` and ``cluster``."""
    known = frame.drop_nulls("difference")
    found = paired_difference(known["difference"].to_numpy(), known[cluster].to_numpy(), seed, what, CLUSTERS[cluster])
    means = known.group_by(cluster, maintain_order=True).agg(pl.col("difference").mean())["difference"].to_numpy()
    return found, signed_rank_p(means)


def contrasts(frame: pl.DataFrame, cluster: str, seed: int) -> pl.DataFrame:
    """:func:`contrast` per benchmark, and ``all``: the mean over benchmarks of each pair; q over the single benchmarks."""
    parts = [(str(name), part) for (name,), part in frame.group_by("benchmark", maintain_order=True)]
    keys = [key for key in frame.columns if key not in ("benchmark", "difference")]
    parts.append(("all", frame.group_by(keys, maintain_order=True).agg(pl.col("difference").mean())))
    rows = []
    for name, part in parts:
        found, wilcoxon_p = contrast(part, cluster, seed, name)
        rows.append(
            (
                name,
                part.drop_nulls("difference").height,
                found.n,
                found.unit,
                found.effect,
                found.low,
                found.high,
                found.p,
                wilcoxon_p,
                found.interval_method,
            )
        )
    schema = {"benchmark": pl.String, "pairs": pl.Int64, **TEST}
    result = pl.DataFrame(rows, schema=schema, orient="row")
    q = benjamini_hochberg(result.filter(pl.col("benchmark") != "all")["p"].to_numpy())
    return result.with_columns(pl.Series("q", [*q, np.nan], dtype=pl.Float64))


def lora_full(found: pl.DataFrame, seed: int) -> pl.DataFrame:
    """LoRA minus full tuning of the same model and training set, clustered by base model."""
    sides = [
        found.filter(pl.col("method") == method).select("model", "dataset", "benchmark", pl.col("score").alias(method))
        for method in ("full", "lora")
    ]
    pairs = sides[0].join(sides[1], on=["model", "dataset", "benchmark"], maintain_order="left")
    return contrasts(pairs.select("model", "dataset", "benchmark", (pl.col("lora") - pl.col("full")).alias("difference")), "model", seed)


def size_differences(found: frames.Data) -> pl.DataFrame:
    """Score at the largest minus the smallest number of rows: same model, training set, method, schedule and epoch, in points."""
    keys = ["model", "dataset", "method", "schedule", "epoch", "benchmark"]
    single = found.scores.filter(pl.col("dataset").is_in(select.kinds(found.study, "single")), pl.col("epoch") > 0)
    ends = single.filter(pl.col("rows").n_unique().over(keys) > 1).sort("rows")
    pairs = ends.group_by(keys, maintain_order=True).agg((pl.col("score").last() - pl.col("score").first()).alias("difference"))
    return pairs.with_columns(pl.col("difference") * 100).sort(keys)


def size(found: frames.Data, seed: int) -> pl.DataFrame:
    """Large minus small training sets at the last common epoch, and at every epoch; clustered by :func:`analyses.units`."""
    pairs = size_differences(found).select("model", "dataset", "epoch", "benchmark", "difference")
    cluster = "dataset" if select.units(pairs)[1] == CLUSTERS["dataset"] else "model"
    last = pairs.filter(pl.col("epoch") == pl.col("epoch").max().over("model", "dataset"))
    parts = {"last": last, "every": pairs}
    return pl.concat([contrasts(part, cluster, seed).with_columns(epochs=pl.lit(name)) for name, part in parts.items()])


def trajectories(found: frames.Data) -> pl.DataFrame:
    """Mean score and spread over training sets per epoch, from runs that keep two or more epochs: kind, method, rows, schedule, epoch,
    model, benchmark, score (mean over training sets, points), low and high (its 95 % t interval over training sets; null for one set),
    spread (their standard deviation; null for one set), n."""
    kinds = {name: kind for kind in ("single", "merged") for name in select.kinds(found.study, kind)}
    frame = found.scores.filter(pl.col("dataset").is_in(list(kinds)), pl.col("epoch") > 0)
    frame = frame.filter(pl.col("epoch").n_unique().over(*select.RUN, "benchmark") > 1)
    frame = frame.with_columns(pl.col("dataset").replace_strict(kinds, return_dtype=pl.String).alias("kind"))
    keys = ["kind", "method", "rows", "schedule", "epoch", "model", "benchmark"]
    parts = [_same_sets(part) for _, part in frame.group_by([key for key in keys if key != "epoch"], maintain_order=True)]
    frame = pl.concat([frame.clear(), *parts])
    points = pl.col("score") * 100
    means = frame.group_by(keys).agg(points.mean().alias("score"), points.std().alias("spread"), pl.len().alias("n")).sort(keys)
    half = pl.Series("half", student.ppf(0.975, (means["n"].cast(pl.Float64) - 1).to_numpy()), nan_to_null=True)
    half = means["spread"] * half / means["n"].cast(pl.Float64).sqrt()
    return means.with_columns((pl.col("score") - half).alias("low"), (pl.col("score") + half).alias("high"))


def _same_sets(part: pl.DataFrame) -> pl.DataFrame:
    """Training sets and epochs of which every combination is there, so that the means of all epochs are over the same sets."""
    (sets, epochs), array = consistency.cube(part.with_columns(pl.col("epoch").cast(pl.String)), "score", ("dataset", "epoch"))
    rows, columns = variance.complete_part(array)
    return part.filter(
        pl.col("dataset").is_in([sets[i] for i in rows]), pl.col("epoch").cast(pl.String).is_in([epochs[j] for j in columns])
    )


def epoch_change(found: frames.Data, seed: int) -> pl.DataFrame:
    """Last minus first epoch per benchmark, from the series of :func:`trajectories` that begin with epoch 1; clustered by base model."""
    recipe, parts = ["kind", "method", "rows", "schedule"], []
    for keys, part in trajectories(found).group_by(recipe, maintain_order=True):
        change = (pl.col("score").last() - pl.col("score").first()).alias("difference")
        ends = part.sort("epoch").group_by("model", "benchmark", maintain_order=True)
        ends = ends.agg(change, pl.col("epoch").first().alias("first"), pl.len().alias("epochs"))
        ends = ends.filter(pl.col("first") == 1, pl.col("epochs") > 1).select("model", "benchmark", "difference")
        named = (pl.lit(key, pl.Int64 if name == "rows" else pl.String).alias(name) for name, key in zip(recipe, keys, strict=True))
        parts.append(contrasts(ends, "model", seed).select(*named, pl.all()))
    return pl.concat(parts) if parts else contrasts(pl.DataFrame(schema=NO_PAIRS), "model", seed)


def left_out(found: frames.Data) -> pl.DataFrame:
    """Score without a training set minus score on the whole merged set, in points, and in noise floors (``z``: over sqrt(2) sd;
    ``p`` from it, normal, ``q`` over the rows).

    ``relative`` is the difference minus its mean over the sets left out: what all of them share comes from the one run on the whole
    set, not from any of them.
    """
    from scipy.stats import norm

    part = select.left_out(found.scores, found.study).drop_nulls("difference")
    noise = frames.noise(found.gains).select("benchmark", "sd")
    part = part.join(noise, on="benchmark", how="left", maintain_order="left").with_columns(
        pl.col("difference") * 100, pl.col("stderr") * 100
    )
    relative = pl.col("difference") - pl.col("difference").mean().over("model", "method", "benchmark")
    z = pl.when(pl.col("sd") > 0).then(pl.col("difference") / (np.sqrt(2) * pl.col("sd")))
    columns = ("model", "method", "removed", "benchmark", "n", "difference", "stderr", "sd")
    part = part.select(*columns, z.alias("z"), relative.alias("relative"))
    p = 2 * norm.sf(part["z"].abs().fill_null(float("nan")).to_numpy())
    return corrected(part.with_columns(pl.Series("p", p, dtype=pl.Float64)))


def corrected(frame: pl.DataFrame) -> pl.DataFrame:
    """Add ``q``: p corrected over the rows (Benjamini-Hochberg)."""
    return frame.with_columns(pl.Series("q", benjamini_hochberg(frame["p"].to_numpy()), dtype=pl.Float64))
