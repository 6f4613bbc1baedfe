"""Correlation matrices of gains between training sets, benchmarks and base models, in hierarchical order."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_atlas.analyse import select
from sft_atlas.report.figures import style
from sft_atlas.stats.estimates import correlation_matrix
from sft_atlas.stats.wording import span

PANELS = {"dataset": "Training sets", "benchmark": "Benchmarks", "model": "Base models"}


def draw(tables: dict[str, pl.DataFrame], study: dict, what: str = "gains") -> Figure:
    """Three matrices side by side; each cell is the Pearson correlation of two vectors of gains (or ``what`` the table holds instead)."""
    known = style.known(tables["gains"], "gain")
    gains = {of: select.gain_vectors(known, study, of) for of in PANELS}
    if not any(len(names) > 1 and wide.width > 2 for names, wide in gains.values()):
        return style.absent("Similarity of gains", "runs on two or more training sets, or of two or more base models")
    longest = max(len(label) for of, (names, _) in gains.items() for label in style.labels(study, f"{of}s", names))
    largest = max(len(names) for names, _ in gains.values())
    if largest <= 8:
        canvas = style.figure(style.PAGE, 1.75 + 0.075 * longest)
        axes = list(canvas.subplots(1, 3, width_ratios=[max(3, len(names)) for names, _ in gains.values()]))
    elif largest <= 12:
        canvas = style.figure(style.PAGE, 2 * (0.6 + 0.17 * largest + 0.075 * longest))
        *axes, spare = canvas.subplots(2, 2).flat
        spare.set_visible(False)
    elif len(gains["dataset"][0]) > 40:  # the training sets' matrix alone takes the width of the page
        rows = len(gains["dataset"][0]), max(len(gains[of][0]) for of in ("model", "benchmark"))
        heights = [0.6 + style.rows_height(size, 0.17) + 0.075 * longest for size in rows]
        canvas = style.figure(style.PAGE, sum(heights))
        parts = canvas.subplot_mosaic([["dataset", "dataset"], ["model", "benchmark"]], height_ratios=heights)
        axes = [parts[of] for of in gains]
    else:  # the benchmarks' matrix does
        rows = max(len(gains[of][0]) for of in ("dataset", "model")), len(gains["benchmark"][0])
        heights = [0.6 + style.rows_height(size, 0.17) + 0.075 * longest for size in rows]
        canvas = style.figure(style.PAGE, sum(heights))
        parts = canvas.subplot_mosaic([["dataset", "model"], ["benchmark", "benchmark"]], height_ratios=heights)
        axes = [parts[of] for of in gains]
    image = None
    for axis, (of, (names, wide)) in zip(axes, gains.items(), strict=True):
        if len(names) < 2 or wide.width < 3:
            style.explain(axis, PANELS[of], f"two or\nmore {PANELS[of].lower()} with 3 {what} in common")
        else:
            image = panel(axis, wide.to_numpy(), style.labels(study, f"{of}s", names), PANELS[of], what)
    if image is not None:
        style.colour_bar(canvas, image, axes, f"Pearson r of {what} × 100", "right", shrink=0.6, aspect=18, pad=0.01)
    return canvas


def panel(axis: Axes, values: np.ndarray, names: list[str], title: str, what: str = "gains"):
    """One matrix from ``values`` (variables x observations), ordered so that similar variables are neighbours."""
    r, n = correlation_matrix(values)
    order = hierarchical_order(r)
    names = [names[i] for i in order]
    shown = r[np.ix_(order, order)]
    image = style.heat_map(axis, 100 * shown, names, names, 100, 0, blank={(i, i) for i in range(len(names))})
    pairs = n[np.triu_indices(len(n), 1)]
    axis.set_title(f"{title}\nr × 100, n = {span(pairs.tolist())} {what}")
    return image


def hierarchical_order(r: np.ndarray) -> list[int]:
    """Order of the variables by average-linkage clustering of 1 - r; NaN counts as no correlation."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(r) < 3:
        return list(range(len(r)))
    distance = 1 - np.nan_to_num(r)
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True)).tolist()
