"""The figures of published scores: those of a study where they apply, and four of their own."""

import numpy as np
import polars as pl
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text

from sft_atlas.analyse import select
from sft_atlas.published import POLICIES, columns
from sft_atlas.published.audit.wide import widen
from sft_atlas.published.frames import Data
from sft_atlas.report.figures import components, consistency, gains, leave_one_out, lora_full, similarity, style, variance
from sft_atlas.report.figures.lora_full import forest_panel
from sft_atlas.stats.estimates import Estimate
from sft_atlas.stats.wording import count, span

GROUPS = ("mathematics", "code", "knowledge", "examination", "reasoning", "instruction following")
STATES = {"as published": "#E3E7EA", "recomputed": "#0072B2", "set to null": "#D55E00", "missing": "#FFFFFF"}
NOTES = {"gains": ("one method and one variant of each benchmark",)}
POLICY_LABELS = dict(zip(POLICIES, ("scores as published", "repaired scores"), strict=True))


def epochs(trajectories: pl.DataFrame, study: dict) -> Figure:
    """Mean change since the first kept epoch by group of benchmarks, a panel per kind of run.

    A series is a base model on a benchmark with a score at every epoch. Panels of single sets show the series that all of them have, and
    so do those of merged sets, so that panels differ in the runs alone.
    """
    kinds = trajectories.select("kind", "method", "rows", "schedule").unique()
    kinds = kinds.sort("kind", "rows", "method", descending=[True, False, False])
    if kinds.is_empty():
        return style.absent("Change over the epochs", "runs that keep two or more epochs")
    canvas = style.figure(style.PAGE, 2.7)
    axes = canvas.subplots(1, kinds.height, sharey=True, squeeze=False)[0]
    groups = {name: entry["group"] for name, entry in study["benchmarks"].items()}
    palette = style.colours([*GROUPS, "other"], style.SERIES_COLOURS)
    panels = [
        trajectories.join(pl.DataFrame([kind], schema_overrides={"schedule": pl.String}), on=list(kind), nulls_equal=True)
        for kind in kinds.iter_rows(named=True)
    ]
    series = ["model", "benchmark"]
    panels = [part.filter(pl.col("epoch").n_unique().over(series) == part["epoch"].n_unique()).sort("epoch") for part in panels]
    for axis, kind, part in zip(axes, kinds.iter_rows(named=True), panels, strict=True):
        for other in panels:
            if other["kind"].unique().to_list() == part["kind"].unique().to_list():
                part = part.join(other.select(series).unique(), on=series, how="semi", maintain_order="left")
        if part.is_empty():
            style.explain(
                axis, f"{kind['kind']} sets, {kind['rows']:,} rows", "base models and\nbenchmarks with scores\nat every epoch in all panels"
            )
            continue
        first = pl.col("score").sort_by("epoch").first().over("model", "benchmark")
        part = part.with_columns(
            (pl.col("score") - first).alias("change"), pl.col("benchmark").replace_strict(groups, default="other").alias("group")
        )
        for group in (*GROUPS, "other"):
            line = part.filter(pl.col("group") == group).group_by("epoch").agg(pl.col("change").mean()).sort("epoch")
            if line.height:
                axis.plot(line["epoch"], line["change"], "o-", markersize=2.2, color=palette[group], label=group)
        axis.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        name = f"{int(part['n'].max())} single sets" if kind["kind"] == "single" else "merged sets"
        shown = part.select("model", "benchmark").unique().height
        axis.set_title(
            f"{name}, {kind['rows']:,} rows each\n{style.METHODS[kind['method']]}, {kind['schedule']} LR\n"
            f"n = {count(part['model'].n_unique(), 'base models')}, {shown} series"
        )
    axes[0].set_ylabel("mean change since the first epoch, points")
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if entries:
        canvas.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=6)
    return canvas


def size(table: pl.DataFrame, study: dict) -> Figure:
    """Largest minus smallest number of rows per benchmark, at the last epoch and over all epochs."""
    if table.filter(pl.col("effect").is_not_nan()).is_empty():
        return style.absent("Size of the training set", "runs on the same training sets at two sizes")
    names = [name for name in study["benchmarks"] if name in set(table["benchmark"])]
    labels = [*style.labels(study, "benchmarks", names), "mean over benchmarks"]
    canvas = style.figure(style.PAGE, 1.1 + 0.16 * len(labels))
    axes = canvas.subplots(1, 2, sharex=True)
    titles = {"last": "at the last epoch", "every": "over all epochs"}
    for axis, (which, title) in zip(axes, titles.items(), strict=True):
        rows = {row["benchmark"]: row for row in table.filter(pl.col("epochs") == which).iter_rows(named=True)}
        estimates = [
            Estimate(name, *(rows[name][key] / 100 for key in ("effect", "low", "high")), rows[name]["p"], rows[name]["n"])
            for name in [*names, "all"]
        ]
        forest_panel(axis, estimates, labels, "more minus fewer rows")
        axis.set_title(f"{title}; mean and 95 % interval,\nn = {span(estimate.n for estimate in estimates)} {rows['all']['unit']}")
    axes[1].tick_params(labelleft=False)
    return canvas


def cross_lingual(cells: pl.DataFrame, transfer: pl.DataFrame, study: dict) -> Figure:
    """Base-free effects of full fine-tuning on the same examination in two languages, a dot per base model and training set."""
    pairs = [row for row in select.of_leading_method(transfer).iter_rows(named=True) if row["n"]]
    if not pairs:
        return style.absent("Transfer between languages", "MMLU in two languages")
    shown = [row for row in pairs if (row["first"], row["second"]) != ("mmlu-5", "jmmlu-0")][:4]
    canvas = style.figure(style.PAGE, 2.6)
    axes = canvas.subplots(1, len(shown), squeeze=False)[0]
    palette = style.colours(list(study["models"]))
    part = select.of_leading_method(cells)
    for axis, row in zip(axes, shown, strict=True):
        first, second = (
            part.filter(pl.col("benchmark") == row[key]).select("model", "dataset", pl.col("centred").alias(key))
            for key in ("first", "second")
        )
        both = first.join(second, on=["model", "dataset"], maintain_order="left").drop_nulls()
        for (model,), points in both.group_by("model", maintain_order=True):
            axis.scatter(points["first"], points["second"], s=7, color=palette[model], linewidths=0, alpha=0.75)
        axis.axhline(0, color=style.GREY, linewidth=0.4, zorder=0)
        axis.axvline(0, color=style.GREY, linewidth=0.4, zorder=0)
        axis.set_xlabel(f"{columns.task(row['first']).label}, points")
        axis.set_ylabel(f"{columns.task(row['second']).label}, points")
        interval = f"{style.number(row['low'])} to {style.number(row['high'])}"
        axis.set_title(f"within-model r = {style.number(row['effect'])}\n[{interval}]\nn = {row['n']} runs")
    style.models_legend(canvas, study, [name for name in study["models"] if name in set(part["model"])])
    return canvas


def quality(published: pl.DataFrame, repairs: pl.DataFrame, study: dict, policy: str) -> Figure:
    """Every checkpoint x analysed benchmark: as published, missing, or changed by the audit (``repaired`` only)."""
    wide = widen(published)
    tasks = list(study["benchmarks"])
    state = np.where(np.isfinite(np.stack([wide.of(task) for task in tasks], axis=1)), 0, 3)
    order = {name: i for i, name in enumerate(study["models"])}
    if policy != "raw":
        place = {int(row): i for i, row in enumerate(wide.row)}
        for row, task, value in repairs.select("row", "task", "value").iter_rows():
            if task in tasks:
                state[place[row], tasks.index(task)] = 2 if value is None else 1
    keys = wide.keys.with_row_index("i").with_columns(pl.col("model").replace_strict(order, return_dtype=pl.Int64).alias("order"))
    keys = keys.sort("order", pl.col("method") != "base", "method", "rows", "schedule", "dataset", "epoch")
    canvas = style.figure(style.COLUMN * 1.25, 6.6)
    axis = canvas.subplots()
    axis.imshow(
        state[keys["i"].to_numpy()], aspect="auto", interpolation="nearest", cmap=ListedColormap(list(STATES.values())), vmin=-0.5, vmax=3.5
    )
    sizes = keys.group_by("model", maintain_order=True).len()
    ends = sizes["len"].cum_sum().to_list()
    starts = [0, *ends[:-1]]
    for end in ends[:-1]:
        axis.axhline(end - 0.5, color="black", linewidth=0.5)
    axis.set_xticks(range(len(tasks)), style.labels(study, "benchmarks", tasks), rotation=90)
    axis.set_yticks(
        [(a + b) / 2 for a, b in zip(starts, ends, strict=True)],
        [f"{study['models'][name]['label']}\n({b - a})" for name, a, b in zip(sizes["model"], starts, ends, strict=True)],
    )
    axis.vlines(np.arange(0.5, len(tasks) - 1), -0.5, len(state) - 0.5, color="white", linewidth=0.3)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    counts = {name: int((state == i).sum()) for i, name in enumerate(STATES)}
    axis.set_title(f"n = {len(state):,} checkpoints × {len(tasks)} columns;\nwithin a model: base model, full fine-tuning, LoRA")
    handles = [
        Patch(facecolor=colour, edgecolor=style.GREY, linewidth=0.4, label=f"{name} ({counts[name]:,})")
        for name, colour in STATES.items()
        if counts[name]
    ]
    canvas.legend(handles=handles, loc="outside lower center", ncols=2)
    return canvas


def draw(name: str, data: Data, tables: dict[str, pl.DataFrame], published: pl.DataFrame, repairs: pl.DataFrame, policy: str) -> Figure:
    """The figure ``name`` under a policy, which is printed below it with the base models that it leaves out.

    ``data`` and ``tables`` (:func:`analyse_published.tables`) are under the policy; ``published`` are the tidy scores as published.
    """
    figure = quality(published, repairs, data.study, policy) if name == "quality" else of_scores(name, data, tables)
    notes = [POLICY_LABELS[policy], *NOTES.get(name, ()), *_not_shown(figure, data.study)]
    style.footnote(figure, "; ".join(notes))
    return figure


def of_scores(name: str, data: Data, tables: dict[str, pl.DataFrame]) -> Figure:
    """The figure ``name`` of any scores in the form of a study; ``tables`` as in :func:`draw`."""
    study = data.study
    own = {"gains": data.gains, "scores": data.scores}
    makers = {
        "gains": lambda: gains.draw({"gains": _shown(data.gains)}, study, "test for independent items"),
        "similarity": lambda: similarity.draw(own, study),
        "similarity_base_free": lambda: similarity.draw(
            {"gains": base_free(data.gains, study, ["model", "method", "benchmark"], True)}, study, "base-free effects"
        ),
        "components": lambda: components.draw(own, study),
        "consistency": lambda: consistency.draw(own, study),
        "lora_full": lambda: lora_full.draw(
            {"gains": base_free(data.gains, study, ["model", "benchmark"])}, study, "mean-centred score of"
        ),
        "epochs": lambda: epochs(tables["trajectories"], study),
        "size": lambda: size(tables["size"], study),
        "leave_one_out": lambda: leave_one_out.draw(own, study),
        "cross_lingual": lambda: cross_lingual(data.cells, tables["transfer"], study),
        "variance": lambda: variance.draw(own, study),
    }
    return makers[name]()


def _not_shown(figure: Figure, study: dict) -> list[str]:
    """The base models that a figure which names base models leaves out, in words."""
    words = "\n".join(text.get_text() for text in figure.findobj(Text))
    labels = [entry["label"] for entry in study["models"].values()]
    absent = [label for label in labels if label not in words]
    return [f"not shown for want of results: {', '.join(absent)}"] if 0 < len(absent) < len(labels) else []


def _shown(table: pl.DataFrame) -> pl.DataFrame:
    """What fits on a page: one method, one variant of each benchmark, models and benchmarks with any gain."""
    shown = [task for task in columns.ZERO_SHOT if task in set(table["benchmark"])] or table["benchmark"].unique().to_list()
    part = select.of_leading_method(table).filter(pl.col("benchmark").is_in(shown))
    return part.filter(pl.col("gain").is_not_null().any().over("model"), pl.col("gain").is_not_null().any().over("benchmark"))


def base_free(table: pl.DataFrame, study: dict, keys: list[str], unit: bool = False) -> pl.DataFrame:
    """A table of gains where the gain is replaced by the score minus its mean over the single-set runs with the same ``keys``.

    Runs are those of the main recipes. ``unit``: scaled to unit spread per benchmark, so that all benchmarks have the same weight in a
    correlation over benchmarks.
    """
    main = list(select.main_recipes(study).values())
    part = table.filter(pl.col("dataset").is_in(select.kinds(study, "single")), pl.col("recipe").is_in(main))
    part = part.with_columns((pl.col("score") - pl.col("score").mean().over(keys)).alias("gain"))
    return part.with_columns(pl.col("gain") / pl.col("gain").std().over("benchmark")) if unit else part
