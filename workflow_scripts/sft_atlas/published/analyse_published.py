"""Analyse the published scores under one policy: as published, or with the audit's repairs. Effects are in percentage points.

Each method is represented by its main recipe (that of most single-set runs) at the last kept epoch. The contrasts need no base score:
LoRA minus full fine-tuning, 20,000 minus 1,000 rows, without minus with a training set, last minus first epoch.
"""

import argparse
from collections.abc import Iterable
from functools import cache

import numpy as np
import polars as pl

from sft_atlas.analyse import consistency, select, variance
from sft_atlas.core.files import write_table
from sft_atlas.published import TABLES, agreement, frames, overall
from sft_atlas.published.arguments import add_arguments
from sft_atlas.published.columns import ZERO_SHOT
from sft_atlas.stats import two_way
from sft_atlas.stats.estimates import Estimate, benjamini_hochberg, correlation_matrix, decidable_q, paired_difference, signed_rank_p

LANGUAGES = (("mmlu-0", "jmmlu-0"), ("mmlu-0", "cmmlu-0"), ("jmmlu-0", "cmmlu-0"), ("mmlu-5", "jmmlu-0"), ("mmlu-5", "cmmlu-0"))


def tables(data: frames.Data, seed: int = frames.SEED, names: Iterable[str] = TABLES) -> dict[str, pl.DataFrame]:
    """Tables by their names in :data:`sft_atlas.published.TABLES`: all, or those named."""
    full = select.of_leading_method(data.cells)
    zero_shot = full.filter(pl.col("benchmark").is_in(ZERO_SHOT))
    parts, pairs, courses = (
        cache(lambda: component_tables(full, seed)),
        cache(lambda: method_pairs(data)),
        cache(lambda: trajectories(data)),
    )
    makers = {
        "gains": lambda: gains(data),
        "consistency": lambda: pl.concat([consistency.consistency(full, value, seed) for value in consistency.VALUES]),
        "concordance": lambda: consistency.concordance(full, seed),
        "similarity": lambda: pl.concat([consistency.similarity(full, value, seed) for value in consistency.VALUES]),
        "similarity_tests": lambda: similarity_tests(full, data.study, seed),
        "components": lambda: parts()[0],
        "loadings": lambda: parts()[1],
        "components_zero_shot": lambda: component_tables(zero_shot, seed)[0],
        "set_similarity": lambda: agreement.set_similarity(full, seed),
        "set_agreement": lambda: agreement.set_agreement(full, seed),
        "method_correlation": lambda: agreement.method_correlation(data.cells, seed),
        "own_topic": lambda: agreement.own_topic(data.cells, data.study, seed),
        "variance": lambda: pl.concat([variance.variance(data.cells, value, seed) for value in ("score", "gain")]),
        "lora_full": lambda: lora_full(pairs(), seed),
        "method_pairs": pairs,
        "size": lambda: size(data, seed),
        "trajectories": courses,
        "composite": lambda: composite(courses(), seed),
        "epoch_change": lambda: epoch_change(data, seed),
        "left_out": lambda: left_out(data),
        "transfer": lambda: transfer(data.cells, seed),
        "transfer_by_language": lambda: agreement.transfer_by_language(data.cells, data.study, LANGUAGES, seed),
        "noise": lambda: frames.noise(data.gains),
    }
    return {name: makers[name]() for name in names}


def gains(data: frames.Data) -> pl.DataFrame:
    """The cells with n (items), stderr (of the gain, points), p and q (over all gains); see :func:`frames.gains_table`."""
    keys = ["model", "dataset", "method", "benchmark"]
    tests = select.tested(select.single(data.gains, data.study))
    return data.cells.join(tests.select(*keys, "n", pl.col("stderr") * 100, "p", "q"), on=keys, how="left", maintain_order="left")


NUMBERS = ("effect", "low", "high", "p", "p_greater", "p_less")


def _numbers(estimate: Estimate) -> tuple[float, ...]:
    return tuple(getattr(estimate, name) for name in NUMBERS)


# ---------------------------------------------------------------- similarity of models


def similarity_tests(full: pl.DataFrame, study: dict, seed: int) -> pl.DataFrame:
    """Mean r of models that share a family (or a pre-training language) minus mean r of those that do not; q over the rows."""
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
            estimate = consistency.grouped_pairs(r, labels, seed, question, same, other)
            rows.append((value, question, estimate.n, len(names), *_numbers(estimate)))
    schema = {"value": pl.String, "question": pl.String, "n": pl.Int64, "models": pl.Int64, **dict.fromkeys(NUMBERS, pl.Float64)}
    return add_q(pl.DataFrame(rows, schema=schema, orient="row"))


def component_tables(full: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Share of variance per component, beside the 95th percentile for unrelated variables, for each choice of value and variables; and
    the loadings on the first three components."""
    shares, loadings = [], []
    for value in consistency.VALUES:
        for variables in ("benchmark", "dataset", "model"):
            result = variance.components(full, value, variables, seed)
            if result is None:
                continue
            sizes = len(result.observations), len(result.variables), result.needed, *result.needed_by_chance, result.beyond_chance
            null = np.percentile(result.null, 95, axis=0)
            shares += [(value, variables, i + 1, share, null[i], *sizes) for i, share in enumerate(result.share)]
            for name, row in zip(result.variables, result.loadings, strict=True):
                loadings += [(value, variables, name, i + 1, row[i]) for i in range(min(3, len(row)))]
    keys = {"value": pl.String, "variables": pl.String}
    columns = keys | {"component": pl.Int64, "share": pl.Float64, "share_by_chance": pl.Float64}
    columns |= dict.fromkeys(("observations", "n", "needed"), pl.Int64)
    columns |= dict.fromkeys(("needed_low", "needed_high"), pl.Float64) | {"beyond": pl.Int64}
    names = keys | {"name": pl.String, "component": pl.Int64, "loading": pl.Float64}
    return pl.DataFrame(shares, schema=columns, orient="row"), pl.DataFrame(loadings, schema=names, orient="row")


def transfer(cells: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Correlation over training sets of the same examination in two languages.

    ``effect`` is within base models, where scores and gains agree (:func:`two_way.correlation`); ``gain_r`` is the usual correlation of
    gains over all models and training sets.
    """
    rows = []
    for method in sorted(cells["method"].unique()):
        part = cells.filter(pl.col("method") == method)
        (models, sets, names), scores = consistency.cube(part, "score", ("model", "dataset", "benchmark"))
        gains = consistency.cube(part, "gain", ("model", "dataset", "benchmark"))[1]
        absent = np.full((len(models), len(sets)), np.nan)
        for pair in LANGUAGES:
            x, y, gain_x, gain_y = (
                array[:, :, names.index(name)] if name in names else absent for array in (scores, gains) for name in pair
            )
            estimate = two_way.correlation(x, y, models, seed)
            r, n = correlation_matrix(np.stack([gain_x.ravel(), gain_y.ravel()]))
            shared = int(((np.isfinite(x) & np.isfinite(y)).sum(axis=1) > 1).sum())  # one run says nothing within a base model
            numbers = estimate.n, *_numbers(estimate), float(r[0, 1]), int(n[0, 1])
            rows.append((method, *pair, shared, *numbers, estimate.interval_method))
    columns = {"method": pl.String, "first": pl.String, "second": pl.String, "models": pl.Int64, "n": pl.Int64}
    columns |= dict.fromkeys((*NUMBERS, "gain_r"), pl.Float64) | {"gain_n": pl.Int64, "interval": pl.String}
    return add_q(pl.DataFrame(rows, schema=columns, orient="row"))


NEGLIGIBLE = 2.0  # points that count as no gain
CLUSTERS = {"model": "base models", "dataset": "training sets"}


def contrasts(frame: pl.DataFrame, cluster: str, seed: int) -> pl.DataFrame:
    """Mean of the column ``difference`` per benchmark and, as ``all``, of each pair's mean over benchmarks, in points.

    ``cluster`` names the column of independent units, ``models`` counts the base models. ``p`` is the sign-flip test, ``p_greater`` and
    ``p_less`` its sides, ``p_negligible`` the one-sided test that the difference is below NEGLIGIBLE points, ``p_wilcoxon`` the signed-rank
    test over the units' means, ``q`` over the single benchmarks with enough units.
    """
    parts = [(str(name), part) for (name,), part in frame.group_by("benchmark", maintain_order=True)]
    keys = [key for key in frame.columns if key not in ("benchmark", "difference")]
    parts.append(("all", frame.group_by(keys, maintain_order=True).agg(pl.col("difference").mean())))
    rows = []
    for name, part in parts:
        known = part.drop_nulls("difference")
        estimate = paired_difference(known["difference"].to_numpy(), known[cluster].to_numpy(), seed, name, CLUSTERS[cluster])
        beyond = paired_difference(known["difference"].to_numpy() - NEGLIGIBLE, known[cluster].to_numpy(), seed, resamples=1999)
        means = known.group_by(cluster, maintain_order=True).agg(pl.col("difference").mean())["difference"].to_numpy()
        counts = known.height, known["model"].n_unique(), estimate.n, estimate.unit
        numbers = *_numbers(estimate), estimate.smallest, estimate.largest, beyond.p_less, signed_rank_p(means)
        rows.append((name, *counts, *numbers, estimate.interval_method))
    schema = {"benchmark": pl.String, "pairs": pl.Int64, "models": pl.Int64, "n": pl.Int64, "unit": pl.String}
    schema |= dict.fromkeys((*NUMBERS, "smallest", "largest", "p_negligible", "p_wilcoxon"), pl.Float64) | {"interval": pl.String}
    result = pl.DataFrame(rows, schema=schema, orient="row")
    single = result.filter(pl.col("benchmark") != "all")
    q = decidable_q(single["p"].to_numpy(), single["n"].to_numpy())
    return result.with_columns(pl.Series("q", [*q, np.nan], dtype=pl.Float64))


DATA = ("single sets", "merged set")


def method_pairs(data: frames.Data) -> pl.DataFrame:
    """``difference``: score of LoRA minus full fine-tuning for the same model, dataset and benchmark, in points; ``data`` is one of DATA.

    Single sets: the main recipes. The merged set: runs of the same rows and schedule at the last epoch that both keep.
    """
    keys = ["model", "dataset", "benchmark"]
    whole = data.scores.filter(pl.col("dataset").is_in(select.kinds(data.study, "merged")), pl.col("epoch") > 0)
    same = ["rows", "schedule", "epoch"]
    merged = _paired(whole.with_columns(pl.col("score") * 100), [*keys, *same])
    merged = merged.filter(pl.col("epoch") == pl.col("epoch").max().over(keys)).unique(keys, keep="first", maintain_order=True)
    parts = {DATA[0]: _paired(data.cells, keys), DATA[1]: merged}
    return pl.concat([part.select(pl.lit(name).alias("data"), *keys, "difference") for name, part in parts.items()])


def _paired(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    full, lora = (frame.filter(pl.col("method") == method).select(*keys, "score") for method in ("full", "lora"))
    pairs = full.join(lora, on=keys, suffix="_lora", maintain_order="left", nulls_equal=True)
    return pairs.select(*keys, (pl.col("score_lora") - pl.col("score")).alias("difference"))


def lora_full(pairs: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The contrasts of :func:`method_pairs` for single sets and for the merged set."""
    parts = {name: pairs.filter(pl.col("data") == name).drop("data") for name in DATA}
    return pl.concat([contrasts(part, "model", seed).select(pl.lit(name).alias("data"), pl.all()) for name, part in parts.items()])


def size(data: frames.Data, seed: int) -> pl.DataFrame:
    """Largest minus smallest number of rows at the same model, training set, method, schedule and epoch: at the last common epoch, and at
    every epoch; clustered by :func:`select.units`."""
    keys = ["model", "dataset", "method", "schedule", "epoch", "benchmark"]
    single = data.scores.filter(pl.col("dataset").is_in(select.kinds(data.study, "single")), pl.col("epoch") > 0)
    ends = single.filter(pl.col("rows").n_unique().over(keys) > 1).sort("rows")
    pairs = ends.group_by(keys, maintain_order=True).agg((pl.col("score").last() - pl.col("score").first()).alias("difference")).sort(keys)
    pairs = pairs.select("model", "dataset", "epoch", "benchmark", pl.col("difference") * 100)
    cluster = "dataset" if select.units(pairs)[1] == CLUSTERS["dataset"] else "model"
    last = pairs.filter(pl.col("epoch") == pl.col("epoch").max().over("model", "dataset"))
    parts = {"last": last, "every": pairs}
    return pl.concat([contrasts(part, cluster, seed).with_columns(epochs=pl.lit(name)) for name, part in parts.items()])


def trajectories(data: frames.Data) -> pl.DataFrame:
    """Mean score and spread over training sets per epoch, from runs that keep two or more epochs.

    Columns: kind, method, rows, schedule, epoch, model, benchmark, score (mean over training sets, points), low and high (its 95 % t
    interval), spread (standard deviation over training sets), n. Interval and spread are null for a single set.
    """
    from scipy.stats import t as student

    kinds = {name: kind for kind in ("single", "merged") for name in select.kinds(data.study, kind)}
    frame = data.scores.filter(pl.col("dataset").is_in(list(kinds)), pl.col("epoch") > 0)
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
    """The rows of a complete grid of training sets and epochs, so that the means of all epochs are over the same sets."""
    (sets, epochs), array = consistency.cube(part.with_columns(pl.col("epoch").cast(pl.String)), "score", ("dataset", "epoch"))
    rows, columns = variance.complete_part(array)
    complete = pl.col("dataset").is_in([sets[i] for i in rows]), pl.col("epoch").cast(pl.String).is_in([epochs[j] for j in columns])
    return part.filter(*complete)


def epoch_change(data: frames.Data, seed: int) -> pl.DataFrame:
    """Last minus first epoch per benchmark, from trajectories that start at epoch 1; clustered by base model."""
    recipe, parts = ["kind", "method", "rows", "schedule"], []
    for keys, part in trajectories(data).group_by(recipe, maintain_order=True):
        change = (pl.col("score").last() - pl.col("score").first()).alias("difference")
        ends = part.sort("epoch").group_by("model", "benchmark", maintain_order=True)
        ends = ends.agg(change, pl.col("epoch").first().alias("first"), pl.len().alias("epochs"))
        ends = ends.filter(pl.col("first") == 1, pl.col("epochs") > 1).select("model", "benchmark", "difference")
        named = (pl.lit(key, pl.Int64 if name == "rows" else pl.String).alias(name) for name, key in zip(recipe, keys, strict=True))
        parts.append(contrasts(ends, "model", seed).select(*named, pl.all()))
    no_pairs = {"model": pl.String, "benchmark": pl.String, "difference": pl.Float64}
    return pl.concat(parts) if parts else contrasts(pl.DataFrame(schema=no_pairs), "model", seed)


def composite(courses: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Mean over benchmarks at an epoch minus that at epoch 1, in points, mean over base models; ``courses`` are :func:`trajectories`.

    Each benchmark counts once (:func:`overall.weights`). A base model is represented by the columns of scores that start at epoch 1 and the
    epochs at which it has all of them (:func:`variance.complete_part`); ``columns`` is the smallest number of these columns. All epochs are
    means over the same base models: of base models and epochs, too, only a complete part counts. ``q`` is over the rows with enough base
    models to reach 0.05.
    """
    recipe = {"kind": pl.String, "method": pl.String, "rows": pl.Int64, "schedule": pl.String}
    rows = []
    for keys, part in courses.group_by(*recipe, maintain_order=True):
        changes = [change for (model,), own in part.group_by("model", maintain_order=True) for change in _since_first(model, own)]
        frame = pl.DataFrame(changes, schema=["model", "epoch", "change", "columns"], orient="row", strict=False)
        (models, epochs), array = consistency.cube(frame.with_columns(pl.col("epoch").cast(pl.String)), "change", ("model", "epoch"))
        kept, used = variance.complete_part(array)
        names = [models[i] for i in kept]
        columns = frame.filter(pl.col("model").is_in(names))["columns"].min()
        for i in sorted(used, key=lambda i: int(epochs[i])) if names else []:
            mean = paired_difference(array[kept, i], names, seed, unit="base models")
            rows.append((*keys, int(epochs[i]), columns, mean.n, *_numbers(mean), mean.smallest, mean.largest))
    schema = recipe | dict.fromkeys(("epoch", "columns", "n"), pl.Int64) | dict.fromkeys((*NUMBERS, "smallest", "largest"), pl.Float64)
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return table.with_columns(pl.Series("q", decidable_q(table["p"].to_numpy(), table["n"].to_numpy()), dtype=pl.Float64))


def _since_first(model: str, own: pl.DataFrame) -> list[tuple[str, int, float, int]]:
    """Base model, epoch, change of the composite since epoch 1, and number of columns, for each later epoch."""
    started = own.filter(pl.col("epoch").min().over("benchmark") == 1).sort("epoch").with_columns(pl.col("epoch").cast(pl.String))
    (epochs, names), array = consistency.cube(started, "score", ("epoch", "benchmark"))
    kept, used = variance.complete_part(array)
    if len(kept) < 2 or not len(used):
        return []
    course = array[np.ix_(kept, used)] @ overall.weights([names[i] for i in used])
    return [(model, int(epochs[i]), float(value - course[0]), len(used)) for i, value in zip(kept[1:], course[1:], strict=True)]


def left_out(data: frames.Data) -> pl.DataFrame:
    """Score without a training set minus score on the whole merged set, in points.

    ``z`` is the difference over sqrt(2) noise floors, ``p`` its normal two-sided p, ``q`` over the rows. ``relative``: see
    :func:`select.left_out`.
    """
    from scipy.stats import norm

    part = select.left_out(data.scores, data.study).drop_nulls("difference")
    noise = frames.noise(data.gains).select("benchmark", "sd")
    part = part.join(noise, on="benchmark", how="left", maintain_order="left").with_columns(
        pl.col("difference", "stderr", "relative", "relative_stderr") * 100
    )
    z = pl.when(pl.col("sd") > 0).then(pl.col("difference") / (np.sqrt(2) * pl.col("sd")))
    columns = ("model", "method", "removed", "benchmark", "n", "difference", "stderr", "relative", "relative_stderr", "sd")
    part = part.select(*columns, z.alias("z"))
    p = 2 * norm.sf(part["z"].abs().fill_null(float("nan")).to_numpy())
    return add_q(part.with_columns(pl.Series("p", p, dtype=pl.Float64)))


def add_q(frame: pl.DataFrame) -> pl.DataFrame:
    """Add ``q``: Benjamini-Hochberg over the rows."""
    return frame.with_columns(pl.Series("q", benjamini_hochberg(frame["p"].to_numpy()), dtype=pl.Float64))


def main(args: argparse.Namespace) -> None:
    """Write one Parquet file per analysis."""
    scores = frames.apply_policy(pl.read_parquet(args.scores), pl.read_parquet(args.repairs), args.policy)
    results = tables(frames.of_scores(scores))
    for name in TABLES:
        write_table(args.folder / f"{name}.parquet", results[name])


def add_options(p: argparse.ArgumentParser) -> None:
    add_arguments(p, "scores", "repairs", "policy", "folder")
