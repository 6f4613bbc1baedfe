"""Effect of leaving one training set out of the merged set, per benchmark, relative to leaving out another one.

The run on the whole set is one run, whose luck would shift a whole column; relative to the mean over the sets left out it drops out.
"""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import select
from sft_atlas.report.figures import style
from sft_atlas.stats.wording import span


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """One panel per base model and method; grey cells are within twice their standard error of 0, or have none."""
    cells = style.known(select.left_out(style.known(tables["scores"], "score"), study), "relative")
    if cells.is_empty():
        needed = "runs on a merged set and on the same set without each of two or more of its parts (`leave_one_out: true`)"
        return style.absent("Leaving one training set out", needed)
    removed, benchmarks = style.present(study, "datasets", cells["removed"]), style.present(study, "benchmarks", cells["benchmark"])
    panels = cells.select("model", "method").unique(maintain_order=True).sort("model", "method").rows()
    across = min(2, len(panels)) if len(benchmarks) <= 12 else 1
    down = -(-len(panels) // across)
    width = style.PAGE if across > 1 or len(benchmarks) > 12 else max(style.COLUMN, min(style.PAGE, 1.5 + 0.3 * len(benchmarks)))
    canvas, axes, drawn = style.grid(width, 1.3 + down * (0.4 + style.rows_height(len(removed), 0.17)), panels, across)
    limit = 100 * max(float(cells["relative"].abs().max()), 0.01)
    for axis, (model, method) in drawn:
        part = cells.filter(pl.col("model") == model, pl.col("method") == method)
        image = panel(axis, part, removed, benchmarks, study, limit)
        which = f"{style.labels(study, 'models', [model])[0]}, {style.METHODS[method]}"
        axis.set_title(f"{which}\nn = {span(part['n'])} items per cell; grey: within 2 SE, or no SE")
    style.colour_bar(
        canvas,
        image,
        axes,
        "score without this set, points above or below\nthe mean over all sets left out",
        shrink=0.7,
        aspect=30,
        pad=0.02,
    )
    return canvas


def panel(axis: Axes, cells: pl.DataFrame, removed: list[str], benchmarks: list[str], study: dict, limit: float):
    """One base model and method; ``cells`` has removed, benchmark, relative and relative_stderr."""
    value, stderr = (select.array(cells, key, {"removed": removed, "benchmark": benchmarks}) for key in ("relative", "relative_stderr"))
    rows = [f"without {label}" for label in style.labels(study, "datasets", removed)]
    return style.heat_map(axis, 100 * value, rows, style.labels(study, "benchmarks", benchmarks), limit, 0, ~(abs(value) > 2 * stderr))
