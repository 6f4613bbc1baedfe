"""The page *Compare*: two checkpoints of a base model, or two recipes: scores with a paired test, weight change, answers that differ.

data/compare.js              the pairs of recipes, and per base model how many pairs of checkpoints are tested and how many are not
data/compare/{number}.js     the tested pairs of one base model, numbered as in ``data/study.js``
"""

from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.atlas.contents import Contents, address, by_column
from sft_atlas.atlas.site import Site
from sft_atlas.stats.estimates import benjamini_hochberg
from sft_atlas.study.paths import result_files
from sft_atlas.study.result_files import TEXT, read
from sft_atlas.tables.gains import SAMPLES

TITLE = "Compare"
PAIRS = 3000  # of checkpoints that are tested per base model, at most
ALL = "all"  # the mean over benchmarks


def add(site: Site, contents: Contents) -> None:
    """Write the page and its data."""
    study, models = contents.study, {}
    for number, model in enumerate(study["models"]):
        scores = item_scores(contents, model)
        if not scores:
            continue
        names = [
            name for name in contents.checkpoints["address"] if name.startswith(f"{model}/") and any(name in own for own in scores.values())
        ]
        wanted, possible = pairs(contents, names)
        chosen = wanted[:PAIRS]
        site.data(f"compare/{number}", {"checkpoints": names, **tested(scores, names, chosen)})
        models[model] = {"number": number, "tested": len(chosen), "over_limit": len(wanted) - len(chosen), "never": possible - len(wanted)}
    site.data("compare", {"models": models, "limit": PAIRS, "recipes": recipes(contents), "layers": layers(contents)})
    site.page("compare", ("datatables", "plotly"), heading="Compare two checkpoints or recipes", reading=contents.reading)


class Items(dict):
    """The scores of one benchmark by checkpoint (address), each one per item, NaN where there is none; ``units``: the item's cluster."""

    units: np.ndarray


def item_scores(contents: Contents, model: str) -> dict[str, Items]:
    """Item scores of a base model's checkpoints by benchmark. A benchmark in several suites counts in the first of them."""
    if not contents.root:
        return {}
    there = [file for file in result_files(contents.study, "gains", Path(contents.root)) if file.keys["model"] == model]
    there = [file for file in there if file.path.is_file()]
    frame = read(there, {**SAMPLES, "cluster": TEXT})
    result: dict[str, Items] = {}
    for (benchmark, _), part in frame.group_by("benchmark", "suite", maintain_order=True):
        if benchmark in result:
            continue
        items = part.unique("item", keep="first").sort("item").select("item", "cluster")
        place = {item: i for i, item in enumerate(items["item"])}
        # an item without a cluster is one of its own, whose number is behind those of the clusters
        names = items["cluster"].rank("dense").cast(pl.Int64)
        own = result[benchmark] = Items()
        own.units = np.unique(names.fill_null(pl.int_range(len(place), eager=True) + len(place) + 1).to_numpy(), return_inverse=True)[1]
        for keys, rows in part.group_by("model", "dataset", "recipe", "epoch", maintain_order=True):
            values = np.full(len(place), np.nan)
            values[[place[item] for item in rows["item"]]] = rows["score"].cast(pl.Float64).fill_null(np.nan).to_numpy()
            own[address(*keys)] = values
    return result


def pairs(contents: Contents, names: list[str]) -> tuple[list[tuple[int, int]], int]:
    """The pairs of checkpoints that are to be tested, as places in ``names``, and the number of all pairs.

    First the base model with every checkpoint, then the last checkpoints of all runs with one another, then those of one run. An earlier
    checkpoint of one run is never tested against another run.
    """
    table = contents.checkpoints
    last = {name for name, is_last, epoch in zip(table["address"], table["last"], table["epoch"], strict=True) if is_last and epoch}
    run = [name.rsplit("/", 1)[0] for name in names]
    ordered = list(combinations(range(len(names)), 2))
    kinds = (
        lambda a, b: names[a].endswith("/base/base/0"),
        lambda a, b: names[a] in last and names[b] in last,
        lambda a, b: run[a] == run[b],
    )
    wanted = dict.fromkeys(pair for kind in kinds for pair in ordered if kind(*pair))
    return list(wanted), len(ordered)


def tested(scores: dict[str, Items], names: list[str], chosen: list[tuple[int, int]]) -> dict:
    """Per pair and benchmark, by column: places of the checkpoints in ``names``, benchmark, and the second's score minus the first's.

    In points: ``difference``, ``stderr``, ``low``, ``high`` and the scores of both (``score_first``, ``score_second``) over the ``n`` items
    that both scored; ``q`` is Benjamini-Hochberg's over the benchmarks of the pair. ``better`` and ``worse`` count items. The standard
    error is that of a gain (:func:`sft_atlas.tables.gains.paired_gains`), clustered in the same way.
    """
    rows = []
    for benchmark, own in scores.items():
        for place, (a, b) in enumerate(chosen):
            if names[a] in own and names[b] in own:
                rows.append(
                    {"pair": place, "first": a, "second": b, "benchmark": benchmark, **paired(own[names[a]], own[names[b]], own.units)}
                )
    numbers = ("gain", "stderr", "z", "score_first", "score_second")
    schema = {**dict.fromkeys(("pair", "first", "second"), pl.Int64), "benchmark": pl.String}
    schema |= dict.fromkeys(("n", "better", "worse"), pl.Int64) | dict.fromkeys(numbers, pl.Float64)
    frame = select.with_intervals(select.tested(pl.DataFrame(rows, schema=schema)))
    frame = frame.with_columns(q=pl.col("p").map_batches(corrected, return_dtype=pl.Float64).over("pair"))
    in_points = ("difference", "stderr", "low", "high", "score_first", "score_second")
    frame = frame.rename({"gain": "difference"}).sort("pair", maintain_order=True).with_columns(pl.col(name) * 100 for name in in_points)
    return by_column(frame.select("first", "second", "benchmark", *in_points, "q", "n", "better", "worse"))


def corrected(p: pl.Series) -> pl.Series:
    """Benjamini-Hochberg over one series of p-values."""
    return pl.Series(benjamini_hochberg(p.to_numpy()), dtype=pl.Float64)


def paired(first: np.ndarray, second: np.ndarray, units: np.ndarray) -> dict:
    """Mean difference of item scores, second minus first, with its clustered standard error, z, n and the counts of items."""
    known = np.isfinite(first) & np.isfinite(second)
    n = int(known.sum())
    if not n:
        return {"gain": None, "stderr": None, "z": None, "score_first": None, "score_second": None, "n": 0, "better": 0, "worse": 0}
    difference = second[known] - first[known]
    gain = float(difference.mean())
    own = units[known]
    sums = np.bincount(own, difference - gain)[np.bincount(own) > 0]
    stderr = None
    if len(sums) > 1:
        alike = (difference == difference[0]).all()  # no rounding where all are alike
        stderr = 0.0 if alike else float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / n)
    z = None if stderr is None else 0.0 if gain == 0 else gain / stderr if stderr else float(np.copysign(np.inf, gain))
    scores = {"score_first": float(first[known].mean()), "score_second": float(second[known].mean())}
    return {
        "gain": gain,
        "stderr": stderr,
        "z": z,
        **scores,
        "n": n,
        "better": int((difference > 0).sum()),
        "worse": int((difference < 0).sum()),
    }


def recipes(contents: Contents) -> dict:
    """Pairs of recipes by column: first, second, benchmark (or ``ALL``), the second's score minus the first's in points, and its test.

    Compared are last checkpoints of the same base model and training set, means over seeds; single sets only, where there are any.
    Independent units are base models, or training sets (``unit``); ``p`` is null where they are too few for any p below 0.05. ``q`` is Benjamini-Hochberg's over the benchmarks of the pair, apart
    from the mean over all.
    """
    study, rows = contents.study, []
    frame = select.final(contents.tables["gains"])
    single = frame.filter(pl.col("dataset").is_in(select.kinds(study, "single")))
    used = set(frame["recipe"])
    for first, second in combinations([name for name in study["recipes"] if name in used], 2):
        for part in (single, frame):
            found = of_recipes(part, first, second, study["seed"])
            if found:
                break
        rows += found
    numbers = ("difference", "low", "high", "p", "q")
    schema = {**dict.fromkeys(("first", "second", "benchmark", "unit", "interval"), pl.String), **dict.fromkeys(numbers, pl.Float64)}
    frame = pl.DataFrame(rows, schema=schema | dict.fromkeys(("n", "runs", "up", "down"), pl.Int64))
    return by_column(frame.with_columns(pl.col(name) * 100 for name in ("difference", "low", "high")))


def of_recipes(gains: pl.DataFrame, first: str, second: str, seed: int) -> list[dict]:
    """The rows of :func:`recipes` for one pair, as fractions; none where no base model and training set has both."""
    keys = ["model", "dataset", "benchmark"]
    sides = [
        gains.filter(pl.col("recipe") == name).select(*keys, pl.col("gain").alias(as_name))
        for name, as_name in ((first, "a"), (second, "b"))
    ]
    both = sides[0].join(sides[1], on=keys, maintain_order="left").with_columns(difference=pl.col("b") - pl.col("a"))
    both = both.filter(pl.col("difference").is_finite())
    if both.is_empty():
        return []
    means = both.group_by("model", "dataset", maintain_order=True).agg(pl.col("difference").mean())
    rows = []
    for benchmark, part in [(ALL, means), *((name, part) for (name,), part in both.group_by("benchmark", maintain_order=True))]:
        found = select.mean_difference(part, seed)
        counts = {"runs": part.height, "up": int((part["difference"] > 0).sum()), "down": int((part["difference"] < 0).sum())}
        rows.append({
            "first": first, "second": second, "benchmark": benchmark, "difference": found.effect, "low": found.low, "high": found.high,
            "p": found.p if found.decidable else None, "q": None, "n": found.n, "unit": found.unit, "interval": found.interval_method, **counts,
        })  # fmt: skip
    for row, q in zip(rows[1:], benjamini_hochberg([np.nan if row["p"] is None else row["p"] for row in rows[1:]]), strict=True):
        row["q"] = float(q)
    return rows


def layers(contents: Contents) -> dict:
    """Relative weight change of whole layers at last checkpoints, mean over the runs on single sets, by base model, recipe and layer."""
    table = contents.tables.get("layers")
    if table is None:
        return {}
    frame = select.final(table).filter(pl.col("component") == "all", pl.col("dataset").is_in(select.kinds(contents.study, "single")))
    keys = ["model", "recipe", "layer", "depth"]
    means = frame.group_by(keys, maintain_order=True).agg(pl.col("relative_change").mean(), runs=pl.len())
    return by_column(means.sort("model", "recipe", "layer", maintain_order=True))
