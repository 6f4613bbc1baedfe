"""Select from a study's tables what figures and findings show: tidy frames of runs with given properties.

Runs are chosen by method, rows, schedule, kept epochs and kind of training set, never by the name of a block, so that any study
works. Unless epochs are the subject, a run is represented by its last kept epoch. Gains are fractions.
"""

from collections import Counter

import numpy as np
import polars as pl

from sft_atlas.stats.estimates import FEWEST_CLUSTERS, Estimate, benjamini_hochberg, paired_difference, two_sided_p
from sft_atlas.study.runs import UNKNOWN
from sft_atlas.tables.origins import OURS
from sft_atlas.tables.seeds import units_of

RUN = ["model", "dataset", "recipe"]
SCOPES = {"response": "response only", "full": "question and response"}


def kinds(study: dict, kind: str) -> list[str]:
    """Names of the training sets that are ``single``, ``merged`` (whole) or ``without`` (leave-one-out), in the study's order."""
    kind_of = {
        name: "without" if entry["without"] else "merged" if entry["merged"] else "single"
        for name, entry in study["datasets"].items()
        if not (name == UNKNOWN and entry.get("foreign"))  # many sets, of which nobody knows the names
    }
    return [name for name, which in kind_of.items() if which == kind]


def main_recipes(study: dict) -> dict[str, str]:
    """Per method the recipe of most single-set runs, whatever their seeds; ties go to the cosine schedule, then to the first of the study. One
    that only imported scores have is taken only where there is no other."""
    single = set(kinds(study, "single"))
    keys = ("method", "recipe", "schedule", "model", "dataset")
    cells = dict.fromkeys(tuple(run[key] for key in keys) for run in study["runs"] if run["dataset"] in single)
    counts = Counter(cell[:3] for cell in cells)
    imported = {run["recipe"] for run in study["runs"] if run.get("imported")} - {
        run["recipe"] for run in study["runs"] if not run.get("imported")
    }
    best: dict[str, str] = {}
    for method, recipe, _ in sorted(counts, key=lambda key: (key[1] in imported, -counts[key], key[2] != "cosine")):
        best.setdefault(method, recipe)
    return dict(sorted(best.items()))


def final(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of tuned checkpoints at the last kept epoch of each run."""
    return frame.filter(pl.col("epoch") > 0).filter(pl.col("epoch") == pl.col("epoch").max().over(RUN))


def single(frame: pl.DataFrame, study: dict) -> pl.DataFrame:
    """The last checkpoints of single-set runs with the main recipe of each method."""
    return final(frame).filter(pl.col("dataset").is_in(kinds(study, "single")), pl.col("recipe").is_in(list(main_recipes(study).values())))


def leading_method(frame: pl.DataFrame) -> str | None:
    """``full`` where there is any, else the other method; None in an empty frame."""
    methods = sorted(frame["method"].unique().to_list())
    return methods[0] if methods else None


def of_leading_method(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of the leading method."""
    return frame if frame.is_empty() else frame.filter(pl.col("method") == leading_method(frame))


def tested(gains: pl.DataFrame) -> pl.DataFrame:
    """Add ``moved`` (beyond two standard errors), ``p`` (paired t) and ``q`` (Benjamini-Hochberg over the rows of this frame).

    The degrees of freedom are those of the clusters of items, or ``df`` where the noise of training is known.
    """
    free = gains["df"] if "df" in gains.columns else gains.select(units_of(gains) - 1).to_series()
    p = two_sided_p(gains["z"].to_numpy(), free.to_numpy() + 1)
    return gains.with_columns(
        (pl.col("z").abs() > 2).alias("moved"), pl.Series("p", p, dtype=pl.Float64), pl.Series("q", benjamini_hochberg(p), dtype=pl.Float64)
    )


def with_intervals(gains: pl.DataFrame) -> pl.DataFrame:
    """Add ``low`` and ``high``, the 95 % interval of each gain (Student's t); null where there is no standard error.

    The degrees of freedom are those of :func:`tested`.
    """
    from scipy.special import stdtrit

    free = (
        (gains["df"] if "df" in gains.columns else gains.select(units_of(gains) - 1).to_series()).cast(pl.Float64).fill_null(0).to_numpy()
    )
    half = pl.Series(np.where(free > 0, stdtrit(np.maximum(free, 1e-9), 0.975), np.nan)).fill_nan(None) * gains["stderr"]
    return gains.with_columns((gains["gain"] - half).alias("low"), (gains["gain"] + half).alias("high"))


def of_common_benchmarks(gains: pl.DataFrame) -> pl.DataFrame:
    """The rows of the benchmarks that means over benchmarks are taken over: those with gains of the study's own scores, so that an import of one
    more benchmark changes no mean; without own gains those of the set of benchmarks that most checkpoints have.
    """
    if "source" not in gains.columns or gains["source"].is_in([OURS]).all():
        return gains
    own = gains.filter(pl.col("source") == OURS)["benchmark"].unique().to_list()
    if not own:
        keys = [key for key in (*RUN, "seed", "epoch") if key in gains.columns]
        each = gains.filter(pl.col("gain").is_not_null()).group_by(keys, maintain_order=True).agg(pl.col("benchmark").unique().sort())
        counts = Counter(tuple(names) for names in each["benchmark"])
        own = max(counts, key=lambda names: (counts[names], len(names)), default=())
    return gains.filter(pl.col("benchmark").is_in(list(own)))


def mean_gains(gains: pl.DataFrame) -> pl.DataFrame:
    """Mean gain over benchmarks of each checkpoint that has all of them (:func:`of_common_benchmarks`), with its standard error.

    The error is that of the items and, where it is known, that of training, as if a seed did the same to every benchmark: an upper bound.
    It is null where that of one benchmark is not known.
    """
    gains = of_common_benchmarks(gains)
    complete = gains["benchmark"].n_unique()
    keys = [*RUN, "method", "rows", "schedule", "epoch"]
    item, training = (pl.col("item_stderr"), pl.col("seed_stderr")) if "item_stderr" in gains.columns else (pl.col("stderr"), pl.lit(0.0))
    means = gains.group_by(keys, maintain_order=True).agg(
        pl.col("gain").mean(),
        pl.when(item.is_not_null().all()).then(((item**2).sum() + training.fill_null(0.0).sum() ** 2).sqrt() / pl.len()).alias("stderr"),
        pl.col("gain").is_not_null().sum().alias("benchmarks"),
    )
    return means.filter(pl.col("benchmarks") == complete)


def gain_vectors(gains: pl.DataFrame, study: dict, of: str, values: str = "gain") -> tuple[list[str], pl.DataFrame]:
    """Gains of single-set runs of the leading method as variables x observations, one row per ``of`` (model, dataset or benchmark).

    Returns the names in the study's order and a frame of as many rows with one column per combination of the other two keys;
    ``values="stderr"`` gives their standard errors in the same places.
    """
    cells = of_leading_method(single(gains, study))
    names = [name for name in study[f"{of}s"] if name in set(cells[of])]
    if not names:
        return [], pl.DataFrame()
    others = [key for key in ("model", "dataset", "benchmark") if key != of]
    wide = cells.with_columns(pl.concat_str(others, separator="/").alias("cell")).pivot("cell", index=of, values=values)
    return names, pl.DataFrame({of: names}).join(wide, on=of, how="left", maintain_order="left").drop(of)


def shared_error(gains: np.ndarray, stderrs: np.ndarray, pair: list[int]) -> float:
    """Upper bound on what measurement error that two variables share adds to their correlation.

    Two gains over the same base score share its error. Their errors' covariance is at most the product of the standard errors;
    its mean over the observations is put in units of the correlation. 0 where there is no such pair.
    """
    if len(pair) != 2:
        return 0.0
    (a, b), (error_a, error_b) = gains[pair], stderrs[pair]
    both = np.isfinite(a) & np.isfinite(b) & np.isfinite(error_a) & np.isfinite(error_b)
    scale = a[both].std() * b[both].std()
    return float((error_a * error_b)[both].mean() / scale) if scale > 0 else 0.0


def perplexity_points(tables: dict[str, pl.DataFrame], study: dict) -> pl.DataFrame:
    """Mean gain and log-perplexity of each base model x training set x scope: leading method, single-set runs."""
    means = of_leading_method(mean_gains(single(tables["gains"], study)))
    points = means.join(tables["perplexity"].drop("rows", "n"), on=["model", "dataset"])
    return points.with_columns(pl.col("perplexity").log().alias("log_perplexity"))


def units(frame: pl.DataFrame) -> tuple[np.ndarray, str]:
    """The independent units among runs: base models where there are five, or more than training sets, else training sets.

    Runs of one base model share its weights and base score, and runs of one training set its data, so a single run is no independent
    unit. Returns the label of each row, and whether these are ``base models`` or ``training sets``.
    """
    models, sets = frame["model"].n_unique(), frame["dataset"].n_unique()
    by_model = models >= FEWEST_CLUSTERS or models > sets
    return frame["model" if by_model else "dataset"].to_numpy(), "base models" if by_model else "training sets"


def units_note(frame: pl.DataFrame) -> list[str]:
    """What intervals and p over :func:`units` leave out, in words; empty where base models are the units."""
    if frame.is_empty() or units(frame)[1] == "base models":
        return []
    models = frame["model"].n_unique()
    few, these = ("one base model is", "this base model") if models == 1 else (f"{models} base models are", "these base models")
    return [f"Units are training sets, because {few} too few to resample: intervals and p hold for {these} only."]


def families(names: list[str]) -> tuple[str, str]:
    """How many families base models have, given that of each; and the caveat that shared families ask for, empty where none is shared."""
    counts = Counter(name for name in names if name != "unknown")
    unknown = len(names) - sum(counts.values())
    size = f"from {len(counts)} {'family' if len(counts) == 1 else 'families'}" + (f", {unknown} of unknown family" if unknown else "")
    size = size if counts or not names else "from unknown families"
    shared = ", ".join(f"{name}: {count}" for name, count in counts.most_common() if count > 1)
    if not shared:
        return size, ""
    return size, (
        f"Base models of one family ({shared}) are counted as separate units although they have much in common, which makes intervals and "
        f"p over base models too narrow."
    )


def method_pairs(
    frame: pl.DataFrame, study: dict, value: str = "gain", keys: tuple[str, ...] = ("model", "dataset", "benchmark")
) -> pl.DataFrame:
    """``value`` after full fine-tuning and after LoRA side by side: the keys, full and lora."""
    last = single(frame, study)
    sides = [last.filter(pl.col("method") == method).select(*keys, pl.col(value).alias(method)) for method in ("full", "lora")]
    return sides[0].join(sides[1], on=keys, maintain_order="left")


def mean_difference(frame: pl.DataFrame, seed: int, what: str = "", value: str = "difference") -> Estimate:
    """Mean of ``value`` over the runs in ``frame``, by :func:`units`."""
    labels, of = units(frame)
    return paired_difference(frame[value], labels, seed, what, unit=of)


def overall_difference(pairs: pl.DataFrame, seed: int, what: str = "LoRA minus full") -> Estimate:
    """LoRA minus full over all benchmarks: each pair of runs counts once, by its mean over the benchmarks that both have."""
    difference = pl.col("lora") - pl.col("full")
    means = pairs.group_by("model", "dataset", maintain_order=True).agg(difference.mean().alias("difference"))
    return mean_difference(means, seed, what)


def trajectories(gains: pl.DataFrame, study: dict) -> pl.DataFrame:
    """Mean gain at each kept epoch of the single-set runs that keep two or more epochs, of one method and one schedule.

    The schedule with most training-set sizes is taken, then the one with most runs; full fine-tuning before LoRA. ``rows`` is the size.
    """
    frame = mean_gains(gains.filter(pl.col("dataset").is_in(kinds(study, "single"))))
    frame = frame.filter(pl.col("epoch").n_unique().over(RUN) > 1)
    if frame.is_empty():
        return frame
    sizes = frame.group_by("method", "schedule").agg(pl.col("rows").n_unique().alias("sizes"), pl.len().alias("points"))
    best = sizes.sort("sizes", "method", "points", "schedule", descending=[True, False, True, False]).row(0, named=True)
    return frame.filter(pl.col("method") == best["method"], pl.col("schedule") == best["schedule"])


def merged_trajectories(gains: pl.DataFrame, study: dict) -> pl.DataFrame:
    """Mean gain at each kept epoch of the runs on whole merged sets that keep two or more epochs."""
    frame = mean_gains(gains.filter(pl.col("dataset").is_in(kinds(study, "merged"))))
    return frame.filter(pl.col("epoch").n_unique().over(RUN) > 1)


def epoch_change(frame: pl.DataFrame, value: str = "gain") -> pl.DataFrame:
    """``value`` at the last kept epoch minus that at the first, per run (``difference``)."""
    ordered = frame.sort("epoch").group_by(RUN, maintain_order=True)
    return ordered.agg(
        (pl.col(value).last() - pl.col(value).first()).alias("difference"),
        pl.col("epoch").first().alias("first"),
        pl.col("epoch").last().alias("last"),
    )


def size_pairs(gains: pl.DataFrame, study: dict) -> pl.DataFrame:
    """Mean gain of single-set runs at the largest minus the smallest size; see :func:`size_change`."""
    return size_change(mean_gains(gains.filter(pl.col("dataset").is_in(kinds(study, "single")))), "gain")


def size_change(frame: pl.DataFrame, value: str) -> pl.DataFrame:
    """``value`` at the largest minus the smallest size per model, training set, method and schedule, at the last epoch both sizes keep."""
    keys = ["model", "dataset", "method", "schedule"]
    frame = frame.filter(pl.col("rows").n_unique().over(keys) > 1)
    ends = frame.filter((pl.col("rows") == pl.col("rows").min().over(keys)) | (pl.col("rows") == pl.col("rows").max().over(keys)))
    wide = ends.group_by([*keys, "epoch"]).agg(pl.col(value).sort_by("rows"), pl.col("rows").sort())
    wide = wide.filter(pl.col("rows").list.n_unique() == 2, pl.col("rows").list.len() == 2)
    wide = wide.filter(pl.col("epoch") == pl.col("epoch").max().over(keys)).sort(keys)
    small, large = (pl.col("rows").list.get(i).alias(name) for i, name in enumerate(("small", "large")))
    return wide.select(*keys, "epoch", small, large, (pl.col(value).list.get(1) - pl.col(value).list.get(0)).alias("difference"))


def left_out(scores: pl.DataFrame, study: dict) -> pl.DataFrame:
    """Score of the run without a training set, at its last epoch, minus that of the whole merged set.

    Compared are runs of the same model, method, rows, schedule and epoch; of several on the whole set, that of the same recipe.
    ``stderr`` adds both scores' variances as if their items were not shared, which overstates it; so do those of the noise of training, where
    ``scores`` has them. ``relative`` is the difference minus
    its mean over the sets left out of the same merged set, with ``relative_stderr``: the score on the whole set, one run that all
    differences share, drops out of it. Both are null where fewer than two sets are left out.
    """
    keys = ["model", "method", "rows", "schedule", "epoch", "benchmark"]
    seeds = ["item_stderr", "seed_stderr", "run_stderr", "seed_df"] if "seed_df" in scores.columns else []
    whole = scores.filter(pl.col("dataset").is_in(kinds(study, "merged")[:1])).select(
        *keys, *(pl.col(name).alias(f"whole_{name}") for name in seeds), whole_recipe="recipe", whole="score", whole_stderr="stderr"
    )
    names = kinds(study, "without")
    without = [study["datasets"][name]["without"] for name in names]
    removed = pl.DataFrame({"dataset": names, "removed": without}, schema={"dataset": pl.String, "removed": pl.String})
    part = final(scores).join(removed, on="dataset", maintain_order="left").join(whole, on=keys, maintain_order="left")
    part = part.sort(pl.col("recipe") != pl.col("whole_recipe"), maintain_order=True)
    part = part.unique(["model", "dataset", "recipe", "benchmark"], keep="first", maintain_order=True)
    difference, stderr = pl.col("score") - pl.col("whole"), (pl.col("stderr") ** 2 + pl.col("whole_stderr") ** 2).sqrt()
    part = part.with_columns(difference.alias("difference"), stderr.alias("difference_stderr"))
    part = part.with_columns(
        pl.min_horizontal(pl.when(pl.col(f"whole_{name}").is_not_null()).then(name), f"whole_{name}")
        if name == "seed_df"
        else (pl.col(name) ** 2 + pl.col(f"whole_{name}") ** 2).sqrt().alias(name)
        for name in seeds
    )
    known = pl.col("difference").is_not_null()
    runs, square = known.sum(), pl.when(known).then(pl.col("stderr") ** 2)
    own = ((1 - 1 / runs) ** 2 - 1 / runs**2) * square  # of a score minus the mean that it is part of
    relative = pl.when(runs > 1).then(pl.col("difference") - pl.col("difference").mean())
    relative_stderr = pl.when(runs > 1).then((own + square.sum() / runs**2).sqrt())
    part = part.with_columns(
        relative.over(*keys, "recipe").alias("relative"), relative_stderr.over(*keys, "recipe").alias("relative_stderr")
    )
    columns = (*keys, "recipe", "removed", "n", "difference", "relative", "relative_stderr", *seeds)
    return part.select(*columns, stderr=pl.col("difference_stderr"))


def layer_profile(layers: pl.DataFrame, study: dict) -> pl.DataFrame:
    """Relative change of whole layers in single-set runs: model, dataset, method, layer, depth, relative_change."""
    whole = single(layers, study).filter(pl.col("component") == "all")
    return whole.select("model", "dataset", "method", "layer", "depth", "relative_change")


def dimension_profile(dimension: pl.DataFrame, study: dict) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Intrinsic dimension by depth of base models, and ``difference`` to it of single-set runs.

    Of several poolings, ``last`` is taken where measured; of several estimators the study's first.
    """
    estimators = study.get("measure", {}).get("representation", {}).get("estimators", ["gride"])
    for column, preferred in (("pooling", "last"), ("estimator", estimators[0])):
        have = sorted(dimension[column].unique().to_list())
        if have:
            dimension = dimension.filter(pl.col(column) == (preferred if preferred in have else have[0]))
    base = dimension.filter(pl.col("epoch") == 0).select("model", "layer", "depth", "dimension", "stderr", "n", "pooling", "estimator")
    own = base.select("model", "layer", base="dimension")
    tuned = single(dimension, study).join(own, on=["model", "layer"], maintain_order="left")
    return base, tuned.select("model", "dataset", "method", "layer", "depth", difference=pl.col("dimension") - pl.col("base"))


def halves(frame: pl.DataFrame, value: str) -> pl.DataFrame:
    """Mean of ``value`` over the layers below and from depth 0.5 on, and ``difference`` (upper minus lower), per run."""
    keys = [key for key in ("model", "dataset", "method") if key in frame.columns]
    upper = pl.col("depth") >= 0.5
    sides = {"lower": pl.col(value).filter(~upper).mean(), "upper": pl.col(value).filter(upper).mean()}
    return frame.group_by(keys, maintain_order=True).agg(**sides).with_columns(difference=pl.col("upper") - pl.col("lower")).drop_nulls()


def array(frame: pl.DataFrame, value: str, axes: dict[str, list[str]]) -> np.ndarray:
    """``value`` over ``axes`` (key column -> the names along that axis), NaN where there is none; rows with other names are left out."""
    values = np.full([len(names) for names in axes.values()], np.nan)
    part = frame.filter(pl.col(key).is_in(names) for key, names in axes.items()) if values.size else frame.clear()
    if part.height:
        places = {key: {name: i for i, name in enumerate(names)} for key, names in axes.items()}
        index = tuple(part[key].replace_strict(place, return_dtype=pl.Int64).to_numpy() for key, place in places.items())
        values[index] = part[value].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return values
