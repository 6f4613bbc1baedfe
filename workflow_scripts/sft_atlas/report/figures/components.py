"""Principal components of the effects of training sets: variance explained, and a biplot of training sets and benchmarks."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from sft_atlas.analyse import consistency, select, variance
from sft_atlas.report.figures import style

SIDES = {"centred": ("base-free", style.SERIES_COLOURS[0]), "gain": ("gains", style.SERIES_COLOURS[1])}

BESIDE = 1.06  # where names begin, in widths of the panel


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """The cumulated share of variance against unrelated variables, and the biplot of the base-free effects in two panels."""
    cells = select.of_leading_method(consistency.cells(style.known(tables["gains"], "score"), study))
    by_value = {value: variance.components(cells, value, "benchmark", study["seed"]) for value in SIDES}
    components = by_value["centred"]
    if components is None:
        return style.absent("Principal components", "three or more runs and three or more benchmarks with scores for all")
    canvas = style.figure(style.PAGE, max(2.9, 0.9 + 0.1 * len(components.variables)))
    axes = canvas.subplots(1, 3, width_ratios=[1.1, 1, 1])
    scree_panel(axes[0], by_value)
    sets_panel(axes[1], components, study)
    loadings_panel(axes[2], components, study)
    share = 100 * components.share[:2]
    for axis in axes[1:]:
        for line in (axis.axhline, axis.axvline):
            line(0, color=style.GREY, linewidth=0.3, zorder=0)
        axis.set_xlabel(f"component 1 ({share[0]:.0f} %)")
    axes[1].set_ylabel(f"component 2 ({share[1]:.0f} %)")
    return canvas


def scree_panel(axis: Axes, by_value: dict[str, variance.Components | None]) -> None:
    """Cumulated share per component, with the 95 % band of unrelated variables."""
    for value, components in by_value.items():
        if components is None:
            continue
        name, colour = SIDES[value]
        x = np.arange(1, len(components.share) + 1)
        null = 100 * np.percentile(np.cumsum(components.null, axis=1), [2.5, 97.5], axis=0)
        label = f"{name}: {components.needed} for 90 %,\nn = {len(components.observations)} runs,\n{len(components.variables)} benchmarks"
        style.band(axis, x, 100 * np.cumsum(components.share), *null, colour, 0.18, "o-", markersize=2.5, label=label)
    axis.axhline(90, color=style.GREY, linewidth=0.5, linestyle=":")
    axis.set_ylim(0, 102)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("components")
    axis.set_ylabel("variance explained, %")
    axis.set_title("benchmarks as variables;\nbands: 95 % of shuffled data")
    axis.legend(loc="lower right")


def sets_panel(axis: Axes, components: variance.Components, study: dict) -> None:
    """Small dots: runs; large dots: their mean per training set, named."""
    places, sets = components.places[:, :2], [names[1] for names in components.observations]
    palette, _ = style.dataset_colours(study, list(dict.fromkeys(sets)))
    axis.scatter(*places.T, s=5, color=[palette[name] for name in sets], alpha=0.35, linewidths=0)
    names = list(dict.fromkeys(sets))
    means = np.array([places[[other == name for other in sets]].mean(axis=0) for name in names])
    axis.scatter(*means.T, s=22, color=[palette[name] for name in names], edgecolors="white", linewidths=0.6, zorder=3)
    note = name_points(axis, means, style.labels(study, "datasets", names), [palette[name] for name in names])
    axis.set_title(f"base-free effects, n = {len(sets)} runs;\nlarge dots: mean per training set{note}")


def loadings_panel(axis: Axes, components: variance.Components, study: dict) -> None:
    """An arrow per benchmark."""
    loadings = components.loadings[:, :2]
    for tip in loadings:
        axis.annotate(
            "", tip, (0, 0), arrowprops={"arrowstyle": "-|>", "color": style.SERIES_COLOURS[0], "linewidth": 0.6, "mutation_scale": 5}
        )
    axis.scatter(*loadings.T, s=0)  # so that the axes reach them
    note = name_points(axis, loadings, style.labels(study, "benchmarks", components.variables), [style.GREY] * len(loadings))
    axis.set_title(f"loadings,\nn = {len(loadings)} benchmarks{note}")


def name_points(axis: Axes, points: np.ndarray, names: list[str], colours: list[str]) -> str:
    """Names in a column to the right of the panel, each with a line to its point.

    The places are given so that the lines are shortest in total, and such lines never cross. Of more names than fit, those of the points farthest from the centre; returns what a title says of that, or nothing.
    """
    fit = max(1, int(axis.get_window_extent().height / style.DPI / 0.1))
    named = np.argsort(-np.hypot(*points.T))[:fit]
    heights = np.linspace(0.98, 0.02, len(named)) if len(named) > 1 else np.array([0.5])
    scale = axis.get_window_extent().size  # pixels, so that lengths are those on the page
    places = scale * axis.transAxes.inverted().transform(axis.transData.transform(points[named]))
    slots = scale * np.column_stack([np.full(len(named), BESIDE), heights])
    for i, slot in zip(*linear_sum_assignment(np.linalg.norm(places[:, None] - slots, axis=2)), strict=True):
        i, height = named[i], heights[slot]
        line = {"arrowstyle": "-", "color": colours[i], "linewidth": 0.3, "alpha": 0.6, "shrinkA": 0, "shrinkB": 1}
        text = {"fontsize": style.SMALL, "color": colours[i], "va": "center"}
        axis.annotate(names[i], points[i], (BESIDE, height), textcoords=axis.transAxes, arrowprops=line, **text)
    return f", {len(named)} named" if len(named) < len(points) else ""
