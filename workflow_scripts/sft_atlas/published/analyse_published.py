"""Analyse published scores under one policy: as published, or with the audit's repairs. Effects are in percentage points; each has n, an
interval and tests.

The main recipe of each method (that of most single-set runs, last kept epoch) stands for it; all other contrasts are between scores
that need no base model: LoRA minus full, 20,000 minus 1,000 rows, with minus without a training set, one epoch minus another.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.analyse import consistency, select, variance
from sft_atlas.core.files import write_table
from sft_atlas.published import POLICIES, TABLES, frames
from sft_atlas.stats import two_way
from sft_atlas.stats.estimates import Estimate, benjamini_hochberg, correlation_matrix, paired_difference, signed_rank_p

LANGUAGES = (("mmlu-0", "jmmlu-0"), ("mmlu-0", "cmmlu-0"), ("jmmlu-0", "cmmlu-0"), ("mmlu-5", "jmmlu-0"), ("mmlu-5", "cmmlu-0"))


def leading(frame: pl.DataFrame) -> pl.DataFrame:
    """Full tuning where there is any, else the other method."""
    return select.of_leading_method(frame)


def tables(found: frames.Data, seed: int = frames.SEED) -> dict[str, pl.DataFrame]:
    """Every table, by the names in :data:`sft_atlas.published.TABLES`."""
    full = leading(found.cells)
    components, loadings = component_tables(full, seed)
    return {
        "gains": gains(found),
        "consistency": pl.concat([consistency.consistency(full, value, seed) for value in consistency.VALUES]),
        "concordance": consistency.concordance(full, seed),
        "similarity": pl.concat([consistency.similarity(full, value, seed) for value in consistency.VALUES]),
        "similarity_tests": similarity_tests(full, found.study, seed),
        "components": components,
        "loadings": loadings,
        "variance": pl.concat([variance.variance(found.cells, value, seed) for value in ("score", "gain")]),
        "lora_full": lora_full(found.cells, seed),
        "size": size(found, seed),
        "trajectories": trajectories(found),
        "epoch_change": epoch_change(found, seed),
        "left_out": left_out(found),
        "transfer": transfer(found.cells, seed),
        "noise": frames.noise(found.gains),
    }


def gains(found: frames.Data) -> pl.DataFrame:
    """The cells with n (items), stderr (of the gain, points), p and q (Benjamini-Hochberg over all gains); see frames.gains_table."""
    keys = ["model", "dataset", "method", "benchmark"]
    tests = select.tested(select.single(found.gains, found.study))
    return found.cells.join(tests.select(*keys, "n", pl.col("stderr") * 100, "p", "q"), on=keys, how="left", maintain_order="left")


# ---------------------------------------------------------------- likeness of models


def similarity_tests(full: pl.DataFrame, study: dict, seed: int) -> pl.DataFrame:
    """Are models of one family, or of one pre-training language, more alike? Differences of mean r; q over the rows."""
    rows = []
    questions = {
        "same family - other family": (("family",), ()),
        "same language - other language": (("language",), ()),
        "family (other language) - language (other family)": (("family",), ("language",)),
    }
    for value in consistency.VALUES:
        names, array = consistency.vectors(full, "model", value)
        r = correlation_matrix(array)[0]
        labels = [study["models"][name] for name in names]
        for question, (same, other) in questions.items():
            found = consistency.grouped_pairs(r, labels, seed, question, same, other)
            rows.append((value, question, found.n, found.effect, found.low, found.high, found.p))
    schema = {"value": pl.String, "question": pl.String, "n": pl.Int64, **dict.fromkeys(("effect", "low", "high", "p"), pl.Float64)}
    return corrected(pl.DataFrame(rows, schema=schema, orient="row"))


def component_tables(full: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Shares of variance per component with their null, for each choice of value and variables; and the loadings of benchmarks."""
    shares, loadings = [], []
    for value in consistency.VALUES:
        for variables in ("benchmark", "dataset", "model"):
            found = variance.components(full, value, variables, seed)
            if found is None:
                continue
            low, high = found.needed_by_chance
            null = np.percentile(found.null, 95, axis=0)
            for i, share in enumerate(found.share):
                shares.append(
                    (
                        value,
                        variables,
                        i + 1,
                        share,
                        null[i],
                        len(found.observations),
                        len(found.variables),
                        found.needed,
                        low,
                        high,
                        found.beyond_chance,
                    )
                )
            for name, row in zip(found.variables, found.loadings, strict=True):
                loadings += [(value, variables, name, i + 1, row[i]) for i in range(min(3, len(row)))]
    columns = {"value": pl.String, "variables": pl.String, "component": pl.Int64, "share": pl.Float64, "share_by_chance": pl.Float64}
    columns |= {
        "observations": pl.Int64,
        "n": pl.Int64,
        "needed": pl.Int64,
        "needed_low": pl.Float64,
        "needed_high": pl.Float64,
        "beyond": pl.Int64,
    }
    names = {"value": pl.String, "variables": pl.String, "name": pl.String, "component": pl.Int64, "loading": pl.Float64}
    return pl.DataFrame(shares, schema=columns, orient="row"), pl.DataFrame(loadings, schema=names, orient="row")


def transfer(found: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Correlation of the same examination in two languages: within base models (scores and gains agree there), by
    :func:`crossed.correlation`, and ``gain_r``, that of gains over all models and training sets, as usually reported."""
    rows = []
    for method in sorted(found["method"].unique()):
        part = found.filter(pl.col("method") == method)
        (models, sets, names), scores = consistency.cube(part, "score", ("model", "dataset", "benchmark"))
        gains = consistency.cube(part, "gain", ("model", "dataset", "benchmark"))[1]
        place, absent = {name: i for i, name in enumerate(names)}, np.full((len(models), len(sets)), np.nan)
        for pair in LANGUAGES:
            x, y = (scores[:, :, place[name]] if name in place else absent for name in pair)
            estimate = two_way.correlation(x, y, models, seed)
            sides = [gains[:, :, place[name]] if name in place else absent for name in pair]
            r, n = correlation_matrix(np.stack(sides).reshape(2, -1))
            counted = int((np.isfinite(x) & np.isfinite(y)).any(axis=1).sum())
            numbers = (estimate.n, estimate.effect, estimate.low, estimate.high, estimate.p, float(r[0, 1]), int(n[0, 1]))
            rows.append((method, *pair, counted, *numbers, estimate.interval_method))
    columns = {"method": pl.String, "first": pl.String, "second": pl.String, "models": pl.Int64, "n": pl.Int64}
    columns |= dict.fromkeys(("effect", "low", "high", "p", "gain_r"), pl.Float64) | {"gain_n": pl.Int64, "interval": pl.String}
    return corrected(pl.DataFrame(rows, schema=columns, orient="row"))


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
    """Large minus small training sets at the last common epoch, and at every epoch; clustered by :func:`units`."""
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
    from scipy.stats import t as student

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


def main(args: argparse.Namespace) -> None:
    """Write one Parquet file per analysis."""
    scores = frames.under_policy(pl.read_parquet(args.scores), pl.read_parquet(args.repairs), args.policy)
    results = tables(frames.of_scores(scores))
    for name in TABLES:
        write_table(args.folder / f"{name}.parquet", results[name])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="tidy scores")
    parser.add_argument("--repairs", type=Path, required=True, help="changed cells")
    parser.add_argument("--policy", choices=POLICIES, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the tables")
    return parser
