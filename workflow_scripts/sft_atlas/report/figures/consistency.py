"""Agreement of base models on the effect of a training set on a benchmark: training sets x benchmarks, base-free and by gains."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import consistency, select
from sft_atlas.report.figures import style
from sft_atlas.stats.wording import SIGNIFICANT, count_span

TITLES = {"centred": "Relative to the mean of all training sets (base-free)", "gain": "Relative to the base model (gain)"}


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """Two maps of sign agreement; grey cells are not significant over base models, or have too few to be decided."""
    cells = select.of_leading_method(consistency.cells(style.known(tables["gains"], "score"), study))
    if cells["model"].n_unique() < 2 or cells["dataset"].n_unique() < 2:
        return style.absent("Consistency across base models", "runs of two or more base models on two or more training sets")
    table = pl.concat([consistency.consistency(cells, value, study["seed"]) for value in consistency.VALUES])
    sets, benchmarks = (table[key].unique(maintain_order=True).to_list() for key in ("dataset", "benchmark"))
    labels = style.labels(study, "benchmarks", benchmarks)
    canvas = style.figure(style.PAGE, 1.4 + 2 * (0.3 + style.rows_height(len(sets), 0.16)) + 0.075 * max(map(len, labels)))
    axes = canvas.subplots(2, 1, sharex=True)
    for axis, (value, title) in zip(axes, TITLES.items(), strict=True):
        part = table.filter(pl.col("value") == value)
        image = panel(axis, part, sets, benchmarks, study)
        axis.set_title(f"{title}:\n{significant(part)}")
    style.label_lowest(axes.reshape(-1, 1))
    words = "base models up minus down, % of all (numbers: up : down, the rest tie; grey: q ≥ 0.05, or too few to decide)"
    style.colour_bar(canvas, image, axes, words, shrink=0.45, aspect=40, pad=0.02)
    return canvas


def significant(table: pl.DataFrame) -> str:
    """How many effects are significant, of those that the base models are enough to decide."""
    decided = table.filter(pl.col("q").is_not_nan())
    rest = table.filter(pl.col("q").is_nan())
    few = f"{rest.height} cannot be decided with {count_span(rest['n'], 'base models')}"
    if decided.is_empty():
        return f"no effect can be decided with so few base models, n = {count_span(table['n'], 'base models')}"
    text = f"{(decided['q'] < SIGNIFICANT).sum()} of {decided.height} effects significant (q < 0.05), n = {count_span(decided['n'], 'base models')}"
    return f"{text}; {few}" if rest.height else text


def panel(axis: Axes, table: pl.DataFrame, sets: list[str], benchmarks: list[str], study: dict):
    """One map from a table of consistency: dataset, benchmark, up, down, n (base models) and q. Ties count neither as up nor as down."""
    shown = table.with_columns(agreement=pl.when(pl.col("n") > 0).then(100 * (pl.col("up") - pl.col("down")) / pl.col("n")))
    values, q, up, down = (
        select.array(shown, value, {"dataset": sets, "benchmark": benchmarks}) for value in ("agreement", "q", "up", "down")
    )
    rows, columns = style.labels(study, "datasets", sets), style.labels(study, "benchmarks", benchmarks)
    texts = [[f"{a:.0f} : {b:.0f}" for a, b in zip(*pair, strict=True)] for pair in zip(up, down, strict=True)]
    return style.heat_map(axis, values, rows, columns, 100, 0, ~(q < SIGNIFICANT), texts=texts)
