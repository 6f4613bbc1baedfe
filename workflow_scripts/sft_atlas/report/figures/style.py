"""What all figures share: sizes, fonts, colours, legends, heat maps, and the note on missing runs."""

import textwrap
from collections.abc import Callable
from itertools import zip_longest

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sft_atlas.core.disk import DiskFull
from sft_atlas.core.files import atomic
from sft_atlas.core.log import LOG
from sft_atlas.stats import wording
from sft_atlas.study.runs import WITHOUT

COLUMN, PAGE = 3.3, 7.0  # inches: one text column, the full text width
DPI = 200  # of the PNG; the layout is computed at it, because text is a little wider or narrower at another
SMALL = 6.0  # points: nothing is smaller
# Base models, training sets and methods have palettes of their own, in all figures and in the atlas, so that a colour means one thing.
# Base models: Okabe and Ito's colour-blind-safe palette without its yellow, then five darker tones. Training sets: CARTO's "Safe".
MODEL_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C2D04", "#54278F", "#636B2F", "#00441B", "#7A0177",
)  # fmt: skip
DATASET_COLOURS = (
    "#CC6677", "#332288", "#117733", "#DDAA33", "#AA4499", "#44AA99", "#88CCEE", "#882255", "#999933", "#661100", "#6699CC", "#888888",
)  # fmt: skip
METHOD_COLOURS = {"full": "#1F3552", "lora": "#D81B60"}
TERM_COLOURS = (
    "#4D4D4D",
    "#878787",
    "#BABABA",
    "#8073AC",
    "#B2ABD2",
    "#D8DAEB",
    "#EEEEEE",
)  # of a variance: main effects, interactions, rest
SERIES_COLOURS = (
    "#4C4C6D",
    "#B5651D",
    "#3B7A78",
    "#9A9A9A",
    "#6B4C9A",
    "#A0522D",
    "#2F6B3A",
    "#7A7A3A",
)  # anything else: panels' own series
DIVERGING = "RdBu_r"
GREY, PALE = "#666666", "#EEEEEE"
MARKERS = {"full": "o", "lora": "^", "base": "*"}
LINES = {"full": "-", "lora": "--"}
METHODS = wording.METHODS
DEPTH = "depth (0 first layer, 1 last)"

mpl.rcParams.update(
    {
        "font.family": "DejaVu Sans",
        "text.parse_math": False,  # a label with dollar signs is no formula
        "font.size": 7,
        "axes.titlesize": 7,
        "axes.labelsize": 7,
        "xtick.labelsize": 6,
        "ytick.labelsize": 6,
        "legend.fontsize": 6,
        "figure.titlesize": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "axes.titlelocation": "left",
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2,
        "ytick.major.size": 2,
        "lines.linewidth": 1.1,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "axes.grid": False,
        "pdf.fonttype": 42,
        "svg.hashsalt": "sft-atlas",
        "hatch.linewidth": 0.4,
    }
)


def figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, laid out by constraints."""
    canvas = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    canvas.get_layout_engine().set(w_pad=0.05, h_pad=0.05)
    return canvas


def save(canvas: Figure, pdf, png) -> None:
    """Save a figure as PDF and PNG; the files hold no dates."""
    for _ in range(2):  # the layout settles at the second pass; done here it is not repeated for each file
        canvas.draw_without_rendering()
    canvas.set_layout_engine("none")
    with atomic(pdf) as part:
        canvas.savefig(part, format="pdf", metadata={"CreationDate": None, "ModDate": None})
    with atomic(png) as part:
        canvas.savefig(part, format="png", metadata={"Software": None})


def draw_and_save(name: str, draw: Callable[[], Figure], pdf, png) -> None:
    """Draw a figure and save it. An error in it ends neither the job nor the run, whose results it does not touch: the figure, the terminal
    and the log say what happened. DiskFull where there is no room for it."""
    try:
        save(draw(), pdf, png)
    except DiskFull:
        raise
    except Exception as error:  # noqa: BLE001 (logged with its traceback, and in the figure)
        LOG.exception("the figure %s was not drawn, and says so: %s", name, type(error).__name__)
        save(failed(name, error), pdf, png)


def drawn(name: str, draw: Callable[[], Figure]) -> Figure:
    """The figure, or one that says why it could not be drawn, as the log does."""
    try:
        return draw()
    except Exception as error:  # noqa: BLE001 (logged with its traceback, and in the figure)
        LOG.exception("the figure %s was not drawn, and says so: %s", name, type(error).__name__)
        return failed(name, error)


def share_axes(first: Figure, second: Figure) -> None:
    """Give panels of two figures by one function the same limits and colours: the first of each with the same labels, the second, and so on.

    Axes of names keep their places; numbers in heat maps get the colour that can be read on the new ground.
    """
    waiting = list(second.axes)
    for one in first.axes:
        labels = one.get_xlabel(), one.get_ylabel()
        other = next((axis for axis in waiting if (axis.get_xlabel(), axis.get_ylabel()) == labels), None)
        if other is None:
            continue
        waiting.remove(other)
        for way in ("x", "y"):
            sides = [getattr(axis, f"{way}axis").get_major_locator() for axis in (one, other)]
            if not any(isinstance(side, mpl.ticker.FixedLocator | mpl.ticker.NullLocator) for side in sides):
                limits = np.array([getattr(axis, f"get_{way}lim")() for axis in (one, other)])
                for axis in (one, other):
                    if axis.get_aspect() != "auto":  # equal units: the panel's shape gives way, not its limits
                        axis.set_adjustable("box")
                    getattr(axis, f"set_{way}lim")(limits[:, 0].min(), limits[:, 1].max())
        for image, twin in zip(one.images, other.images, strict=False):
            low, high = (choose(each) for choose, each in zip((min, max), zip(image.get_clim(), twin.get_clim(), strict=True), strict=True))
            for axis, each in ((one, image), (other, twin)):
                each.set_clim(low, high)
                _readable(axis, each, high)


def _readable(axis: Axes, image, limit: float) -> None:
    values = image.get_array()
    for text in axis.texts:
        column, row = text.get_position()
        if text.get_color() in ("white", "black") and float(column).is_integer() and float(row).is_integer():
            text.set_color("white" if abs(values[int(row), int(column)]) > 0.62 * limit else "black")


def failed(title: str, error: Exception) -> Figure:
    """A figure that says why it could not be drawn."""
    canvas = figure(COLUMN, 1.6)
    axis = canvas.subplots()
    axis.set_axis_off()
    axis.set_title(title)
    words = f"Not drawn, because of an error: {type(error).__name__}: {str(error)[:160]}. The log of the job `plot` has more."
    text = textwrap.fill(words, 46, break_on_hyphens=False)
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color=GREY, fontsize=7)
    return canvas


def absent(title: str, needed: str) -> Figure:
    """A figure that names what it would show and the runs that it needs."""
    canvas = figure(COLUMN, 1.6)
    explain(canvas.subplots(), title, needed)
    return canvas


def explain(axis: Axes, title: str, needed: str) -> None:
    """Turn a panel into a note on the runs that it needs."""
    axis.set_axis_off()
    axis.set_title(title)
    lines = textwrap.fill(f"Nothing to show for this study: needs {needed}, with values in the tables.", 46, break_on_hyphens=False)
    axis.text(0.5, 0.5, lines, ha="center", va="center", transform=axis.transAxes, color=GREY, fontsize=7)


def colours(names: list[str], palette: tuple[str, ...] = MODEL_COLOURS) -> dict[str, str]:
    """A colour per name, by position in the study; repeats at the palette's end."""
    return {name: palette[i % len(palette)] for i, name in enumerate(names)}


def colour_limit(gains: np.ndarray, significant: np.ndarray) -> float:
    """The gain in points at which colours are darkest, from the significant gains alone: most of a study's gains are near 0.

    It is the largest of them, unless it is more than twice their 95 % point: then one outlier would leave all others pale. At least a point.
    """
    known = np.isfinite(gains)
    sizes = np.abs(gains[known & significant] if (known & significant).any() else gains[known])
    return max(min(float(sizes.max()), 2 * float(np.quantile(sizes, 0.95))), 1.0) if sizes.size else 1.0


def is_dark(colour: str) -> bool:
    """Whether white text on this colour is easier to read than black (relative luminance, WCAG 2)."""
    channels = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722)) < 0.179


def dataset_colours(study: dict, names: list[str]) -> tuple[dict[str, str], list[Line2D]]:
    """A colour per training set, and the legend: by set for up to twelve; by their group beyond, or one grey where groups are many as well."""
    if len(names) <= len(DATASET_COLOURS):
        every = [name for name in study["datasets"] if not name.startswith(WITHOUT)]  # by position in the study: the same in every figure
        palette = colours([*every, *(name for name in names if name not in every)], DATASET_COLOURS)
        return palette, [
            handle(label, palette[name], line="-", size=2.5) for name, label in zip(names, labels(study, "datasets", names), strict=True)
        ]
    groups = list(dict.fromkeys(study["datasets"][name].get("group", "other") for name in names))
    if len(groups) > len(DATASET_COLOURS):
        return dict.fromkeys(names, GREY), [handle(f"one of {len(names)} training sets", GREY, line="-", size=2.5)]
    palette = colours(groups, DATASET_COLOURS)
    members = {group: [name for name in names if study["datasets"][name].get("group", "other") == group] for group in groups}
    handles = [
        handle(f"{group} ({wording.count(len(members[group]), 'training sets')})", palette[group], line="-", size=2.5) for group in groups
    ]
    return {name: palette[group] for group in groups for name in members[group]}, handles


def labels(study: dict, kind: str, names: list[str]) -> list[str]:
    """The labels of models, datasets or benchmarks."""
    return [wording.label(study, kind, name) for name in names]


def known(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The rows with finite numbers in these columns: what is null or NaN cannot be drawn."""
    return frame.filter(pl.col(column).is_finite() for column in columns)


def present(study: dict, kind: str, column) -> list[str]:
    """The study's models, datasets or benchmarks that a column holds, in the study's order."""
    held = set(column)
    return [name for name in study[kind] if name in held]


def handle(label: str, colour: str, marker: str = "o", line: str = "", size: float = 3.5, **more) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], color=colour, label=label, linestyle=line, marker=marker, markersize=size, **more)


def models_legend(canvas: Figure, study: dict, models, methods=(), line: bool = False) -> None:
    """A legend below the figure: colours for base models (points, or with ``line`` lines), markers for methods."""
    palette, shape = colours(list(study["models"])), {"marker": "", "line": "-"} if line else {}
    names = present(study, "models", models)
    handles = [handle(label, palette[name], **shape) for name, label in zip(names, labels(study, "models", names), strict=True)]
    handles += [handle(METHODS[name], GREY, MARKERS[name]) for name in ("base", "full", "lora") if name in set(methods)]
    legend_below(canvas, handles)


def legend_below(canvas: Figure, handles: list) -> None:
    """A legend below the figure with as many columns as its labels leave room for, in rows of similar length."""
    width = 72 * canvas.get_figwidth() - 10  # points, as are the widths of entries
    entry = 30 + 0.62 * SMALL * max(len(handle.get_label()) for handle in handles)
    rows = -(-len(handles) // max(1, int(width / entry)))
    columns = -(-len(handles) // rows)
    canvas.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.2, handletextpad=0.4)


def panels_across(count: int, most: int) -> int:
    """How many of ``count`` panels to put side by side, at most ``most`` (3 or 4), so that few places stay empty."""
    if count <= most:
        return 2 if (count, most) == (4, 3) else count
    return min((most, most - 1), key=lambda across: (-count % across, -across))


def grid(width: float, height: float, places: list, across: int) -> tuple[Figure, np.ndarray, list[tuple[Axes, object]]]:
    """A figure of panels that share both axes, ``across`` side by side: figure, axes (rows x columns), and the panel of each place.

    A place that is None stays empty, as do those beyond the last.
    """
    canvas = figure(width, height)
    axes = canvas.subplots(-(-len(places) // across), across, squeeze=False, sharex=True, sharey=True)
    panels = list(zip_longest(axes.flat, places))
    for axis, place in panels:
        axis.set_visible(place is not None)
    label_lowest(axes)
    return canvas, axes, [(axis, place) for axis, place in panels if place is not None]


def footnote(canvas: Figure, text: str) -> None:
    """A small note below everything else."""
    width = int(canvas.get_figwidth() * 21)
    canvas.supxlabel(textwrap.fill(text, width), x=0.004, ha="left", fontsize=SMALL, color=GREY)


def colour_bar(canvas: Figure, image, axes, label: str, location: str = "bottom", **shape) -> None:
    """A colour bar for the panels ``axes``, without a frame; its label explains hatched cells, if there are any."""
    bar = canvas.colorbar(image, ax=axes, location=location, **shape)
    hatched = any(patch.get_hatch() for axis in np.ravel(axes) for patch in axis.patches)
    bar.set_label(f"{label}; hatched: no value" if hatched else label)
    bar.outline.set_visible(False)


def band(axis: Axes, x, y, low, high, colour: str, alpha: float, line: str = "-", **more) -> None:
    """A line in a band from ``low`` to ``high``."""
    axis.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0)
    axis.plot(x, y, line, color=colour, **more)


def interval(
    axis: Axes, y: float, low: float, effect: float, high: float, colour: str, filled: bool, marker: str = "o", width: float = 0.9
) -> None:
    """An effect with its interval at height ``y``; the marker is ``filled`` or white."""
    axis.plot([low, high], [y, y], color=colour, linewidth=width)
    axis.plot(effect, y, marker, color=colour, markerfacecolor=colour if filled else "white", markersize=3.5)


def label_lowest(axes: np.ndarray) -> None:
    """Show tick labels at the lowest visible panel of each column of a grid of panels with a shared x axis."""
    for column in axes.T:
        shown = [axis for axis in column if axis.get_visible()]
        for axis in shown:
            axis.tick_params(labelbottom=axis is shown[-1])


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus sign."""
    return wording.number(value, digits).replace("-", "−")


def rows_height(count: int, each: float) -> float:
    """The height in inches of ``count`` rows of a heat map: ``each`` for up to 60, then less, so that 100 rows fit on a page, and at most 15 inches."""
    return each * count if count <= 60 else max(each * 60, min(0.11 * count, 15.0))


def thinned(axis: Axes, count: int, vertical: bool) -> int:
    """Every how many-th label of ``count`` places along an axis can be read; the layout is not final yet, so with a reserve."""
    extent = axis.get_window_extent()
    return max(1, int(np.ceil((1.0 if vertical else 1.5) * SMALL / 72 * count / ((extent.height if vertical else extent.width) / DPI))))


def heat_map(axis: Axes, values, rows: list[str], columns: list[str], limit: float, digits: int, muted=None, blank=(), texts=None):
    """Draw a matrix (rows x columns, NaN where missing) with its numbers in the cells; muted cells are grey.

    Cells (i, j) in ``blank`` bear no number; ``texts`` (rows x columns) stand in place of the numbers. Where cells are too small there are no numbers, and only every so many-th label. Returns the image.
    """
    values = np.asarray(values, dtype=float)
    muted = np.zeros(values.shape, bool) if muted is None else np.asarray(muted, bool)
    image = axis.imshow(np.where(muted, np.nan, values), cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axis.set_facecolor(PALE)
    every_row, every_column = thinned(axis, len(rows), True), thinned(axis, len(columns), False)
    numbered = every_row == 1 and thinned(axis, int(1.4 * len(columns)), False) == 1
    for i, j in np.ndindex(values.shape):
        if np.isnan(values[i, j]):
            axis.add_patch(mpl.patches.Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="white", edgecolor=GREY, hatch="xxxx", linewidth=0))
        elif numbered and (i, j) not in blank:
            colour = GREY if muted[i, j] else "white" if abs(values[i, j]) > 0.62 * limit else "black"
            text = number(values[i, j], digits) if texts is None else texts[i][j]
            axis.text(j, i, text, ha="center", va="center", fontsize=SMALL, color=colour)
    axis.set_xticks(range(0, len(columns), every_column), columns[::every_column], rotation=90)
    axis.set_yticks(range(0, len(rows), every_row), rows[::every_row])
    axis.tick_params(length=0)
    if every_row == 1 == every_column:
        axis.hlines(np.arange(0.5, len(rows) - 1), -0.5, len(columns) - 0.5, color="white", linewidth=0.6)
        axis.vlines(np.arange(0.5, len(columns) - 1), -0.5, len(rows) - 0.5, color="white", linewidth=0.6)
    axis.spines[:].set_visible(False)
    return image
