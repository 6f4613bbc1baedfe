"""Gains over the base model, paired item by item."""

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.study.paths import ResultFile
from sft_atlas.study.result_files import CHECKPOINT, REAL, SCORE, TEXT, WHOLE, columns, read, require_benchmarks, require_one_backend

GAINS = {
    **SCORE,
    "metric": TEXT,
    **columns("base_score score gain stderr seed_covariance", REAL),
    **columns("n n_clusters unscored", WHOLE),
    "z": REAL,
}
SAMPLES = {**SCORE, "item": WHOLE, "score": REAL, "backend": TEXT}


def gains(study: dict, files: list[ResultFile]) -> pl.DataFrame:
    """Gains over the base model, one base model at a time so that memory holds one model's samples, not the study's."""
    parts = []
    for model in study["models"]:
        base = [file for file in files if file.keys["model"] == model and file.keys["dataset"] == "base"]
        tuned = [file for file in files if file.keys["model"] == model and file.keys["dataset"] != "base"]
        if base and tuned:
            parts.append(paired_gains(study, base, tuned))
    entries = [(name, entry.get("metric")) for name, entry in study["benchmarks"].items()]
    metrics = pl.DataFrame(entries, columns("benchmark metric", TEXT), orient="row")
    empty = pl.DataFrame(schema={name: kind for name, kind in GAINS.items() if name != "metric"})
    joined = pl.concat([empty, *parts]).join(metrics, on="benchmark", how="left", maintain_order="left")
    return joined.select(pl.col(name).cast(kind) for name, kind in GAINS.items())


def paired_gains(study: dict, base: list[ResultFile], tuned: list[ResultFile]) -> pl.DataFrame:
    """Gain of each checkpoint and benchmark over the same base model's samples, item by item.

    ``stderr`` is that of the mean per-item difference, clustered like that of a score (:func:`sft_atlas.evaluate.scores.standard_error`): its
    standard deviation (n - 1) over the root of n where every item stands alone; null for one cluster. ``z`` is
    gain over stderr; with a stderr of 0 it is 0 or infinite. Items that either side could not score are left out and counted as
    ``unscored``; ``n_clusters`` counts the independent units among the others. ``seed_covariance`` is the mean covariance of a gain's error with that of the same run with another seed, in both of which
    the items are the same (clustered as the standard error); null with one seed. Raises AtlasError when a checkpoint was measured
    on other items, or with another engine, than its base model.
    """
    reference = read(base, {**SAMPLES, "cluster": TEXT})
    require_benchmarks(study, base, reference.select("_file", "benchmark").unique())
    samples = read(tuned, SAMPLES)
    both = pl.concat([reference.select("_file", "backend"), samples.select(pl.col("_file") + len(base), "backend")])
    require_one_backend(study, [*base, *tuned], both)
    require_benchmarks(study, tuned, samples.select("_file", "benchmark").unique())
    keys = samples.group_by("_file").agg(pl.col(*CHECKPOINT, "suite").first())
    pairs = samples.select("_file", "suite", "benchmark", "item", pl.col("score").fill_nan(None)).join(
        reference.select(
            "suite", "benchmark", "item", pl.col("score").fill_nan(None).alias("base_score"), pl.lit(True).alias("matched"), _unit()
        ),
        on=["suite", "benchmark", "item"],
        how="left",
    )
    _require_items(tuned, pairs, reference)
    pairs = pairs.filter(pl.col("matched")).sort("_file", "benchmark", "item")  # sums of floats depend on their order
    scored = pl.col("score").is_not_null() & pl.col("base_score").is_not_null()
    difference = (pl.col("score") - pl.col("base_score")).alias("gain")
    result = pairs.group_by("_file", "benchmark", maintain_order=True).agg(
        pl.col("base_score").filter(scored).mean(),
        pl.col("score").filter(scored).mean(),
        difference.mean(),
        difference.std().alias("spread"),
        difference.count().alias("n"),
        (~scored).sum().alias("unscored"),
    )
    residuals = pairs.filter(scored).with_columns((difference - difference.mean().over("_file", "benchmark")).alias("residual"))
    sums = residuals.group_by("_file", "benchmark", "unit", maintain_order=True).agg(pl.col("residual").sum().alias("sum"))
    totals = sums.group_by("_file", "benchmark", maintain_order=True).agg(squares=(pl.col("sum") ** 2).sum(), units=pl.len())
    units = pl.col("units").cast(REAL)
    clustered = (units / (units - 1) * pl.col("squares")).sqrt() / pl.col("n")
    stderr = pl.when(units > 1).then(pl.when(pl.col("spread") > 0).then(clustered).otherwise(0.0))  # no rounding where all are alike
    result = result.join(totals, on=["_file", "benchmark"], how="left", maintain_order="left").with_columns(stderr=stderr)
    result = result.join(_seed_covariance(study, tuned, sums, result), on=["_file", "benchmark"], how="left", maintain_order="left")
    z = (pl.col("gain") / pl.col("stderr")).fill_nan(0.0)
    result = result.with_columns(z.alias("z"), n_clusters="units").join(keys, on="_file").sort("_file", "benchmark")
    return result.select(pl.col(name).cast(kind) for name, kind in GAINS.items() if name != "metric")


def _seed_covariance(study: dict, tuned: list[ResultFile], sums: pl.DataFrame, gains: pl.DataFrame) -> pl.DataFrame:
    """_file, benchmark and seed_covariance of the runs that were trained with several seeds.

    ``sums``: _file, benchmark, unit and the sum of the unit's residuals; ``gains``: _file, benchmark, n and units.
    """
    recipe = {(run["model"], run["dataset"], run["folder"]): run["recipe"] for run in study["runs"]}
    places = [tuple(file.keys[key] for key in ("model", "dataset", "recipe", "epoch", "suite")) for file in tuned]
    cells = [(*place[:2], recipe.get(place[:3], place[2]), *place[3:]) for place in places]
    number = {cell: i for i, cell in enumerate(dict.fromkeys(cells))}
    files = pl.DataFrame({"_file": range(len(cells)), "cell": [number[cell] for cell in cells]}, {"_file": pl.UInt32, "cell": WHOLE})
    files = files.with_columns(others=pl.len().over("cell") - 1).filter(pl.col("others") > 0)
    shares = sums.join(files, on="_file").join(gains.select("_file", "benchmark", "n", units="units"), on=["_file", "benchmark"])
    shares = shares.with_columns(share=pl.col("sum") / pl.col("n"))  # what each unit contributes to the error of the gain
    others = pl.col("share").sum().over("cell", "benchmark", "unit") - pl.col("share")
    units = pl.col("units").first().cast(REAL)
    covariance = units / (units - 1) * pl.col("product").sum() / pl.col("others").first()
    products = shares.with_columns(product=pl.col("share") * others).sort("_file", "benchmark", "unit")
    return products.group_by("_file", "benchmark", maintain_order=True).agg(
        seed_covariance=pl.when(pl.col("units").first() > 1).then(covariance)
    )


def _unit() -> pl.Expr:
    """The independent unit of an item: its number, or that of its cluster, which is below 0."""
    return pl.coalesce(-pl.col("cluster").rank("dense").cast(WHOLE), pl.col("item")).alias("unit")


def _require_items(tuned: list[ResultFile], pairs: pl.DataFrame, reference: pl.DataFrame) -> None:
    sizes = reference.group_by("suite", "benchmark").agg(pl.len().alias("items"), pl.col("item").n_unique().alias("distinct_items"))
    checked = pairs.group_by("_file", "suite", "benchmark").agg(
        pl.len().alias("n"), pl.col("item").n_unique().alias("distinct"), pl.col("matched").sum()
    )
    checked = checked.join(sizes, on=["suite", "benchmark"])  # a suite whose base file is absent (allow_missing) yields no gain
    wrong = checked.filter(
        pl.any_horizontal(pl.col(name) != pl.col("items") for name in ("n", "distinct", "matched", "distinct_items"))
    ).sort("_file")
    if wrong.height:
        row = wrong.row(0, named=True)
        raise AtlasError(
            f"{tuned[row['_file']].path}: {row['benchmark']} has {row['n']} items ({row['distinct']} distinct), "
            f"its base model has {row['items']} ({row['distinct_items']} distinct), {row['matched']} of them shared; "
            f"evaluate both again on the same items"
        )
