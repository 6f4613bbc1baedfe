"""Effect of leaving one training set out of the merged set, per benchmark."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import select
from sft_atlas.report.figures import style
from sft_atlas.stats.wording import span


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """One panel per base model and method; grey cells are within twice their standard error of 0."""
    cells = select.left_out(tables["scores"], study).drop_nulls("difference")
    if cells.is_empty():
        return style.absent(
            "Leaving one training set out", "runs on a merged set and on the same set without each of its parts (`leave_one_out: true`)"
        )
    removed = [name for name in study["datasets"] if name in set(cells["removed"])]
    benchmarks = [name for name in study["benchmarks"] if name in set(cells["benchmark"])]
    panels = cells.select("model", "method").unique(maintain_order=True).sort("model", "method").rows()
    across = min(2, len(panels)) if len(benchmarks) <= 12 else 1
    down = -(-len(panels) // across)
    width = style.PAGE if across > 1 or len(benchmarks) > 12 else max(style.COLUMN, min(style.PAGE, 1.5 + 0.3 * len(benchmarks)))
    canvas = style.figure(width, 1.3 + down * (0.4 + 0.17 * len(removed)))
    axes = canvas.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    limit = 100 * max(float(cells["difference"].abs().max()), 0.01)
    image = None
    for index, axis in enumerate(axes.flat):
        if index >= len(panels):
            axis.set_visible(False)
            continue
        model, method = panels[index]
        part = cells.filter(pl.col("model") == model, pl.col("method") == method)
        image = panel(axis, part, removed, benchmarks, study, limit)
        axis.set_title(
            f"{style.labels(study, 'models', [model])[0]}, {style.METHODS[method]}\nn = {span(part['n'])} items per cell; grey: within 2 SE"
        )
    style.label_lowest(axes)
    bar = canvas.colorbar(image, ax=axes, location="bottom", shrink=0.7, aspect=30, pad=0.02)
    bar.set_label("score without minus score with the training set, points")
    bar.outline.set_visible(False)
    return canvas


def panel(axis: Axes, cells: pl.DataFrame, removed: list[str], benchmarks: list[str], study: dict, limit: float):
    """One base model and method; ``cells`` has removed, benchmark, difference and stderr."""
    values, muted = np.full((len(removed), len(benchmarks)), np.nan), np.zeros((len(removed), len(benchmarks)), bool)
    for name, benchmark, difference, stderr in cells.select("removed", "benchmark", "difference", "stderr").iter_rows():
        at = removed.index(name), benchmarks.index(benchmark)
        values[at] = 100 * difference
        muted[at] = stderr is None or abs(difference) <= 2 * stderr
    rows = [f"without {label}" for label in style.labels(study, "datasets", removed)]
    return style.heat_map(axis, values, rows, style.labels(study, "benchmarks", benchmarks), limit, 0, muted)
