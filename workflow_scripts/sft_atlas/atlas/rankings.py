"""Which training set is best for what, and how sure that is: over base models, and on each base model.

Compared are the last checkpoints of single-set runs with the main recipe of a method. A topic is a benchmark, a group of benchmarks, or all
of them. On each base model it counts the benchmarks on which all its training sets have a score, so that sets are compared on the same
ones. Sets are ranked by their scores relative to the mean set, which needs no base score; gains are shown where there is one. Everything is
in percentage points.
"""

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.report.sections.scores import mean_effect
from sft_atlas.stats.estimates import Estimate, benjamini_hochberg, combined
from sft_atlas.stats.wording import SIGNIFICANT

SETS = [
    "topic",
    "method",
    "dataset",
    "rank",
    "score_gap",
    "gain",
    "low",
    "high",
    "q",
    "n",
    "unit",
    "interval",
    "behind",
    "behind_low",
    "behind_high",
    "behind_q",
    "behind_n",
    "behind_interval",
    "first_on",
]
MODELS = [
    "topic",
    "method",
    "model",
    "dataset",
    "gain",
    "low",
    "high",
    "benchmarks",
    "items",
    "second",
    "lead",
    "lead_low",
    "lead_high",
    "p",
    "sets",
    "close",
]


def topics(study: dict, benchmarks: list[str]) -> list[dict]:
    """All benchmarks, groups of two or more, and single benchmarks: key, label, benchmarks."""
    groups: dict[str, list[str]] = {}
    for name in benchmarks:
        groups.setdefault(study["benchmarks"][name].get("group", "other"), []).append(name)
    found = [{"key": f"group {name}", "label": name, "benchmarks": members} for name, members in groups.items() if len(members) > 1]
    single = [
        {"key": f"benchmark {name}", "label": study["benchmarks"][name].get("label", name), "benchmarks": [name]} for name in benchmarks
    ]
    return [{"key": "all", "label": "all benchmarks", "benchmarks": benchmarks}, *found, *single]


def rankings(gains: pl.DataFrame, scores: pl.DataFrame, study: dict) -> dict:
    """``topics``, and by column ``sets`` (a row per topic, method and training set) and ``models`` (per topic, method and base model).

    ``behind`` is the best set's score minus this set's, over the base models that have both; ``behind_q`` corrects for the other sets. Of a
    base model ``lead`` is the best set's score minus the second's, ``p`` is Bonferroni-corrected for the sets, and ``close`` names the sets
    that its scores do not tell apart from the best. ``interval`` names the units of an interval.
    """
    keys = [*select.RUN, "epoch", "benchmark"]
    errors = scores.select(*keys, score_stderr="stderr").unique(keys, keep="first", maintain_order=True)
    cells = select.single(gains, study).join(errors, on=keys, how="left", maintain_order="left")
    cells = cells.with_columns(pl.col(name) * 100 for name in ("score", "gain", "stderr", "score_stderr"))
    names = [name for name in study["benchmarks"] if name in set(cells["benchmark"])]
    found = topics(study, names)
    sets, models = [], []
    for topic in found:
        for (method,), part in cells.filter(pl.col("benchmark").is_in(topic["benchmarks"])).group_by("method", maintain_order=True):
            runs = means(part)
            if runs["dataset"].n_unique() > 1:
                sets += [{"topic": topic["key"], "method": method, **row} for row in over_models(runs, study)]
                models += [{"topic": topic["key"], "method": method, **row} for row in on_each_model(runs)]
    return {"topics": found, "sets": _columns(sets, SETS), "models": _columns(models, MODELS)}


def means(cells: pl.DataFrame) -> pl.DataFrame:
    """Per base model and training set the mean over the benchmarks on which all the model's sets have a score: score and gain with errors.

    The gain is over those of the benchmarks that have a base score; ``relative`` is the score minus the mean over the model's sets.
    """
    known = cells.filter(pl.col("score").is_finite())
    sets = known.group_by("model").agg(pl.col("dataset").n_unique().alias("sets"))
    shared = known.group_by("model", "benchmark").agg(pl.col("dataset").n_unique().alias("have")).join(sets, on="model")
    shared = shared.filter(pl.col("have") == pl.col("sets")).select("model", "benchmark")
    gain = pl.col("gain").is_finite()
    runs = (
        known.join(shared, on=["model", "benchmark"], how="semi", maintain_order="left")
        .group_by("model", "dataset", maintain_order=True)
        .agg(
            pl.col("score").mean(),
            ((pl.col("score_stderr") ** 2).sum().sqrt() / pl.len()).alias("score_stderr"),
            pl.col("gain").filter(gain).mean(),
            ((pl.col("stderr").filter(gain) ** 2).sum().sqrt() / gain.sum()).fill_nan(None).alias("stderr"),
            pl.len().alias("benchmarks"),
            pl.col("n").sum().alias("items"),
            pl.col("recipe").first(),
            pl.col("epoch").first(),
            pl.col("score_stderr").null_count().alias("unknown"),
        )
    )
    runs = runs.with_columns(pl.when(pl.col("unknown") == 0).then(pl.col("score_stderr")).alias("score_stderr"))
    return runs.with_columns((pl.col("score") - pl.col("score").mean().over("model")).alias("relative"))


def over_models(runs: pl.DataFrame, study: dict) -> list[dict]:
    """The training sets in the order of their scores relative to the mean set, each with its gain and its distance from the first."""
    place = {name: i for i, name in enumerate(study["datasets"])}
    order = runs.group_by("dataset").agg(pl.col("relative").mean()).to_dicts()
    order = sorted(order, key=lambda row: (-row["relative"], place[row["dataset"]]))
    best = order[0]["dataset"]
    first = runs.filter(pl.col("score") == pl.col("score").max().over("model"))["dataset"].to_list()
    estimates, distances = [], []
    for row in order:
        own = runs.filter(pl.col("dataset") == row["dataset"])
        estimates.append(mean_effect(own, "gain", row["dataset"], "checkpoints", study["seed"], 1))
        distances.append(mean_effect(gap(runs, best, row["dataset"]), "gap", row["dataset"], "checkpoints", study["seed"], 1))
    q = benjamini_hochberg([_p(estimate) for estimate in estimates])
    behind_q = benjamini_hochberg([np.nan, *(_p(estimate) for estimate in distances[1:])])
    return [
        {
            "dataset": row["dataset"], "rank": i + 1, "score_gap": row["relative"],
            "gain": estimate.effect, "low": estimate.low, "high": estimate.high, "q": q[i],
            "n": estimate.n, "unit": estimate.unit, "interval": estimate.interval_method,
            "behind": distance.effect if i else None, "behind_low": distance.low if i else None, "behind_high": distance.high if i else None,
            "behind_q": behind_q[i], "behind_n": distance.n, "behind_interval": distance.interval_method, "first_on": first.count(row["dataset"]),
        }
        for i, (row, estimate, distance) in enumerate(zip(order, estimates, distances, strict=True))
    ]  # fmt: skip


def gap(runs: pl.DataFrame, best: str, other: str) -> pl.DataFrame:
    """Scores of one training set minus another's on the base models that have both: model, gap, stderr (as if their items were not shared)."""
    sides = [runs.filter(pl.col("dataset") == name).select("model", "score", "score_stderr") for name in (best, other)]
    both = sides[0].join(sides[1], on="model", suffix="_other", maintain_order="left")
    stderr = (pl.col("score_stderr") ** 2 + pl.col("score_stderr_other") ** 2).sqrt()
    return both.select("model", (pl.col("score") - pl.col("score_other")).alias("gap"), stderr.alias("stderr"))


def on_each_model(runs: pl.DataFrame) -> list[dict]:
    """The best training set of each base model, its lead over the second, and the sets that are not told apart from it."""
    rows = []
    for (model,), part in runs.group_by("model", maintain_order=True):
        ranked = part.sort("score", descending=True, maintain_order=True)
        best = ranked.row(0, named=True)
        gain = combined([best["gain"]], [best["stderr"]], "", "checkpoints")
        others = [
            (
                row["dataset"],
                combined(
                    *gap(part, best["dataset"], row["dataset"]).select("gap", "stderr").to_numpy().T, "", "checkpoints", ranked.height - 1
                ),
            )
            for row in ranked.iter_rows(named=True)
            if row["dataset"] != best["dataset"]
        ]
        lead = others[0][1] if others else None
        rows.append(
            {
                "model": model, "dataset": best["dataset"], "gain": best["gain"], "low": gain.low, "high": gain.high,
                "benchmarks": best["benchmarks"], "items": best["items"], "recipe": best["recipe"], "epoch": best["epoch"],
                "second": others[0][0] if others else None, "sets": ranked.height,
                "lead": None if not others else best["score"] - ranked["score"][1],
                "lead_low": lead.low if lead else None, "lead_high": lead.high if lead else None, "p": lead.p if lead else None,
                "close": [name for name, estimate in others if not estimate.p < SIGNIFICANT],
            }
        )  # fmt: skip
    return rows


def _p(estimate: Estimate) -> float:
    """p where it can be decided."""
    return estimate.p if estimate.decidable else np.nan


def _columns(rows: list[dict], names: list[str]) -> dict[str, list]:
    extra = [name for name in ("recipe", "epoch") if rows and name in rows[0]]
    return {name: [_plain(row[name]) for row in rows] for name in [*names, *extra]}


def _plain(value: object) -> object:
    return round(float(value), 5) if isinstance(value, float | np.floating) else value
