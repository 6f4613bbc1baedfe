"""The runs of a recipe with several seeds as one: means over seeds, whose standard errors hold the noise of training.

A cell is a base model x training set x recipe (x epoch). Its seeds are replicates: they count as one run, however many there are, so that
a cell with more seeds weighs no more than another; it only has a smaller error. docs/statistics.md derives the formulas.
"""

import polars as pl

from sft_atlas.study.result_files import REAL

CELL = ["model", "dataset", "recipe", "epoch"]
ROWS = {  # table -> what beside the cell tells its rows apart
    "gains": ["suite", "benchmark"],
    "scores": ["suite", "benchmark"],
    "layers": ["layer", "component"],
    "dimension": ["layer", "pooling", "estimator"],
    "likelihood": ["benchmark", "item"],
}
FEWEST = ("n", "n_clusters", "n_parsed", "parameters")  # counts of which the smallest of the seeds is shown; of all others the largest


def averaged(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The table with one row for all seeds of a cell and ``seeds``, their number, in the place of ``seed``; other tables as they are.

    Gains and scores have the noise of training in them: see :func:`with_noise`.
    """
    if name not in ROWS or "seed" not in frame.columns:
        return frame
    keys = [*CELL, *ROWS[name]]
    errors = "stderr" in frame.columns and name in ("gains", "scores")
    if errors:
        frame = with_noise(frame, keys)
    frame = frame.with_columns(pl.len().over(keys).cast(pl.Int64).alias("seeds")).with_row_index("_row")
    several = frame.filter(pl.col("seeds") > 1)
    if several.height:
        means = several.group_by(keys, maintain_order=True).agg(
            _of_seeds(column, kind) for column, kind in several.schema.items() if column not in keys
        )
        frame = pl.concat([frame.filter(pl.col("seeds") == 1), means.select(frame.columns)]).sort("_row")
    if name == "gains":
        frame = frame.with_columns(z=(pl.col("gain") / pl.col("stderr")).fill_nan(0.0))
    order = ["seeds" if column == "seed" else column for column in frame.columns if column not in ("_row", "seeds")]
    return frame.select(order)


def _of_seeds(column: str, kind: pl.DataType) -> pl.Expr:
    if column == "_row":
        return pl.col(column).first()
    if column == "blocks":
        return pl.col(column).list.explode(keep_nulls=False, empty_as_null=False).unique(maintain_order=True)
    if kind == REAL:
        return pl.col(column).mean()
    if kind.is_integer():
        return pl.col(column).min() if column in FEWEST else pl.col(column).max()
    return pl.col(column).first()


def with_noise(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Gains or scores of each seed with the errors of their cell's mean over seeds.

    ``item_stderr``: by the items, which are the same with every seed; ``seed_stderr``: by the seeds, beyond what other items would change
    (:func:`noise_of_training`), null where no cell of the recipe has two seeds; ``stderr``: both together. ``df``: degrees of freedom of a
    t statistic with ``stderr`` (Satterthwaite 1946). Scores have no ``seed_covariance``, so that their errors are upper bounds: as
    if an item's answers were the same with every seed, and as if nothing between the seeds were due to items.
    """
    noise = noise_of_training(frame, keys)
    frame = frame.join(noise, on=_pool(keys), how="left", maintain_order="left")
    seeds, square = pl.len().over(keys), pl.col("stderr") ** 2
    shared = pl.col("seed_covariance").fill_null(square) if "seed_covariance" in frame.columns else square
    item = pl.when(seeds > 1).then((square.mean() + (seeds - 1) * shared.mean()).over(keys) / seeds).otherwise(square)
    frame = frame.with_columns(_item=item.clip(lower_bound=0.0), _seed=pl.col("seed_variance") / seeds, _run=pl.col("run_variance") / seeds)
    frame = frame.with_columns(
        item_stderr=pl.when(pl.col("seed_df").is_null()).then("stderr").otherwise(pl.col("_item").sqrt()),
        seed_stderr=pl.col("_seed").sqrt(),
        run_stderr=pl.col("_run").sqrt(),
    )
    total = pl.col("_item") + pl.col("_seed").fill_null(0.0)
    units = units_of(frame) - 1.0
    uncertain = pl.col("_item") ** 2 / units + (pl.col("_run") ** 2 / pl.col("seed_df")).fill_null(0.0)
    return frame.with_columns(
        stderr=pl.when(pl.col("seed_df").is_null()).then("stderr").otherwise(total.sqrt()),
        df=pl.when(pl.col("seed_df").is_null() | (uncertain <= 0)).then(units).otherwise(total**2 / uncertain),
    ).drop("_item", "_seed", "_run", "run_variance", "seed_variance")


def units_of(frame: pl.DataFrame) -> pl.Expr:
    """The independent units behind each item-level error: clusters of items where they are known, else items."""
    return pl.coalesce("n_clusters", "n") if "n_clusters" in frame.columns else pl.col("n")


def noise_of_training(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Variance between seeds of one recipe, epoch and benchmark, pooled over its base models and training sets.

    ``run_variance``: of gains (or scores) of single runs on the same items, each cell weighted by its seeds minus 1; ``seed_df``: the sum of
    these weights; ``seed_variance``: without the part that is due to the items, which other items would draw anew, at least 0.
    """
    gain = "gain" if "gain" in frame.columns else "score"
    own = pl.col("stderr") ** 2 - pl.col("seed_covariance") if "seed_covariance" in frame.columns else pl.lit(0.0)
    cells = frame.group_by(keys, maintain_order=True).agg(
        pl.col(gain).var().alias("variance"), own.mean().fill_null(0.0).alias("items"), (pl.col(gain).count() - 1.0).alias("weight")
    )
    cells = cells.filter(pl.col("weight") > 0)
    weight = pl.col("weight")
    pooled = cells.group_by(_pool(keys), maintain_order=True).agg(
        run_variance=(weight * pl.col("variance")).sum() / weight.sum(),
        items=(weight * pl.col("items")).sum() / weight.sum(),
        seed_df=weight.sum(),
    )
    return pooled.with_columns(seed_variance=(pl.col("run_variance") - pl.col("items")).clip(lower_bound=0.0)).drop("items")


def _pool(keys: list[str]) -> list[str]:
    return [key for key in keys if key not in ("model", "dataset")]
