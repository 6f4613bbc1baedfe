"""From scored items to a benchmark's score: mean, standard error, and how many answers were parsed, truncated or short of examples."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

# One row per item. Scores are fractions; null: not known, or not applicable to this kind of task. An item without a score says in
# `missing` why. `subtask`: the task that the item is of, where the benchmark is a group of tasks.
SAMPLES = (
    "benchmark", "subtask", "item", "prompt", "target", "output", "extracted", "score", "strict", "parsed", "formed", "truncated", "shots", "cluster",
    "missing",
)  # fmt: skip
# What gave the answers: engine, its version, and the dtype in which the checkpoint ran.
SCORED_BY = ("backend", "backend_version", "dtype")


def standard_error(values: Sequence[float], clusters: Iterable[object | None]) -> tuple[float, int]:
    """Standard error of the mean of ``values`` and the number of clusters; items without a cluster are one each.

    The cluster-robust error sqrt(G / (G - 1) * sum over clusters of (sum of residuals)^2) / n; where every item stands alone it is the
    standard deviation (n - 1) over the root of n. NaN for fewer than two clusters. (Miller 2024, arXiv 2411.00640.)
    """
    n, mean = len(values), math.fsum(values) / len(values)
    sums: dict[object, float] = defaultdict(float)
    for position, (value, cluster) in enumerate(zip(values, clusters, strict=True)):
        sums[("item", position) if cluster is None else ("cluster", cluster)] += value - mean
    groups = len(sums)
    if groups < 2:
        return math.nan, groups
    return math.sqrt(groups / (groups - 1) * math.fsum(total**2 for total in sums.values())) / n, groups


def score_rows(rows: list[dict], metric: str, scored_by: Mapping[str, str], **more: object) -> list[dict[str, object]]:
    """The score row of one benchmark, then, where it is a group, one of each of its tasks that has an item, named in `subtask`.

    As :func:`score_row`; every row has numbers of its own items, and the error of the group is that of the mean over all of them.
    """
    by_task: dict[str, list[dict]] = {}
    for row in rows:
        if row["subtask"] is not None:
            by_task.setdefault(row["subtask"], []).append(row)
    parts = [(None, rows), *by_task.items()]
    return [score_row(part, metric, scored_by, max(row["shots"] for row in part), subtask=name, **more) for name, part in parts]


def score_row(rows: list[dict], metric: str, scored_by: Mapping[str, str], shots: int, **more: object) -> dict[str, object]:
    """The score row of one benchmark from its items (keys of SAMPLES). Items without a score are counted as ``n_missing``, never as 0;
    with none scored the score is null. ``scored_by``: values of SCORED_BY."""
    scored = [row for row in rows if row["score"] is not None]
    entry = {
        "benchmark": rows[0]["benchmark"], "subtask": None, "metric": metric, "score": None, "stderr": None, "n": len(scored),
        **{name: scored_by.get(name) for name in SCORED_BY}, "scale": 1.0,
        "score_strict": mean(row["strict"] for row in scored), "parsed": mean(row["parsed"] for row in rows), "formed": mean(row["formed"] for row in rows),
        "n_missing": len(rows) - len(scored), "n_parsed": _count(row["parsed"] for row in rows),
        "n_truncated": _count(row["truncated"] for row in rows), "n_clusters": 0,
        "judge": None, "judge_stderr": None, "score_length_controlled": None, "stderr_length_controlled": None,
        "sandbox_missing": None, "shots": shots, "n_fewer_shots": sum(row["shots"] < shots for row in scored),
    }  # fmt: skip
    if scored:
        values = [row["score"] for row in scored]
        entry["stderr"], entry["n_clusters"] = standard_error(values, [row["cluster"] for row in scored])
        entry["score"] = mean(values)
    return entry | more


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are known; None where none is."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _count(values: Iterable[float | None]) -> int | None:
    known = [bool(value) for value in values if value is not None]
    return sum(known) if known else None


def samples_frame(rows: list[dict]):
    """Scored items as a polars frame with the columns of SAMPLES, in order."""
    import polars as pl

    types = dict.fromkeys(("score", "strict", "parsed", "formed"), pl.Float64)
    types |= {"item": pl.Int64, "shots": pl.Int64, "truncated": pl.Boolean}
    return pl.DataFrame(rows, schema={name: types.get(name, pl.String) for name in SAMPLES})


def scores_frame(rows: list[dict]):
    """Score rows as a polars frame; null where a number is not known."""
    import polars as pl

    fractions = (
        "score", "stderr", "scale", "score_strict", "parsed", "formed", "judge_stderr", "score_length_controlled", "stderr_length_controlled",
    )  # fmt: skip
    counts = ("n", "n_missing", "n_parsed", "n_truncated", "n_clusters", "shots", "n_fewer_shots")
    types = (
        dict.fromkeys(fractions, pl.Float64)
        | dict.fromkeys(counts, pl.Int64)
        | dict.fromkeys(("subtask", *SCORED_BY, "judge", "sandbox_missing"), pl.String)
    )
    return pl.DataFrame(rows, schema_overrides=types)
