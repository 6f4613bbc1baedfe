"""Heat maps of gains: one panel per base model and method, training sets x benchmarks."""

import textwrap

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import select
from sft_atlas.report.figures import style
from sft_atlas.stats.wording import SIGNIFICANT, span


def draw(tables: dict[str, pl.DataFrame], study: dict, test: str = "paired test") -> Figure:
    """Gains of single-set runs in points; grey cells are not significant after Benjamini-Hochberg over all cells of the figure."""
    cells = select.tested(select.single(style.known(tables["gains"], "gain"), study))
    if cells.is_empty():
        return style.absent("Gain over the base model", "runs on single training sets with scores of their base models")
    models, datasets, benchmarks = (style.present(study, f"{key}s", cells[key]) for key in ("model", "dataset", "benchmark"))
    methods = sorted(cells["method"].unique().to_list())
    places, across = arrange(models, methods, len(benchmarks))
    run = set(cells.select("model", "method").iter_rows())
    # No panel for a method that a base model was not trained with; the first panel of a row has the labels.
    places = [place for start in range(0, len(places), across) for place in _leading(places[start : start + across], run)]
    labels = style.labels(study, "benchmarks", benchmarks)
    # one number needs about 0.17 in across and 0.14 in down
    width = style.PAGE if across > 1 else min(style.PAGE, max(style.COLUMN, 1.4 + 0.28 * len(benchmarks)))
    down = len(places) // across
    height = down * (0.25 + style.rows_height(len(datasets), 0.15)) + 0.075 * max(map(len, labels)) + 0.75
    canvas, axes, panels = style.grid(width, height, places, across)
    limit = colour_limit(cells)
    for axis, (model, method) in panels:
        part = cells.filter(pl.col("model") == model, pl.col("method") == method)
        image = panel(axis, part, datasets, benchmarks, study, limit)
        name = style.labels(study, "models", [model])[0]
        axis.set_title(f"{name},{chr(10) if across > 2 and len(name) > 12 else ' '}{style.METHODS[method]}")
    style.colour_bar(canvas, image, axes, "gain over the base model, percentage points", shrink=0.45, aspect=40, pad=0.02, extend="both")
    significant = (cells["q"] < SIGNIFICANT).sum()
    text = (
        f"Coloured: significant, {significant} of {cells.height} gains ({test}, false discovery rate 5 % over all cells). "
        f"Grey: not significant. n\u00a0=\u00a0{span(cells['n'])} items per cell."
    )
    canvas.suptitle(textwrap.fill(text, int(width * 17)), fontsize=7, x=0.01, ha="left")
    return canvas


def colour_limit(cells: pl.DataFrame) -> float:
    """The gain in points at which colours are darkest; ``cells`` has gain (fractions) and q."""
    return style.colour_limit(100 * cells["gain"].to_numpy(), (cells["q"] < SIGNIFICANT).fill_null(False).to_numpy())


def _leading(row: list[tuple[str, str] | None], run: set[tuple[str, str]]) -> list[tuple[str, str] | None]:
    """The places of a row that were run, then empty ones."""
    there = [place for place in row if place in run]
    return there + [None] * (len(row) - len(there))


def arrange(models: list[str], methods: list[str], benchmarks: int) -> tuple[list[tuple[str, str] | None], int]:
    """Model and method of each panel, row by row (None: leave empty), and how many panels stand side by side.

    Up to 9 benchmarks: all models with one method, then with the other. More need wider panels: the methods of a model side by side.
    """
    if benchmarks > 9 and len(methods) > 1:
        return [(model, method) for model in models for method in methods], len(methods)
    across = min(2, len(models)) if benchmarks > 9 else style.panels_across(len(models), 3)
    empty = [None] * (-len(models) % across)
    return [place for method in methods for place in [*((model, method) for model in models), *empty]], across


def panel(axis: Axes, cells: pl.DataFrame, datasets: list[str], benchmarks: list[str], study: dict, limit: float):
    """One base model and method; ``cells`` has dataset, benchmark, gain and q."""
    gain, q = (select.array(cells, value, {"dataset": datasets, "benchmark": benchmarks}) for value in ("gain", "q"))
    rows, columns = style.labels(study, "datasets", datasets), style.labels(study, "benchmarks", benchmarks)
    return style.heat_map(axis, 100 * gain, rows, columns, limit, 0, ~(q < SIGNIFICANT))
