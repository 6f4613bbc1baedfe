"""Figures of the findings that people can hover over and click: the matrices and scatter plots, from the selections that the figures draw.

A panel is a dict of plain values. A matrix has rows, columns, values, hints, muted cells (grey) and the limit of its colours; a scatter plot has
x, y, hints, the base model of each point and the address of its checkpoint. Gains are in percentage points.
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from sft_atlas.analyse import consistency, select
from sft_atlas.atlas.contents import Contents, address
from sft_atlas.stats.estimates import correlation_matrix
from sft_atlas.stats.wording import METHODS, SIGNIFICANT, label, number, p_value


def panels(name: str, contents: Contents) -> list[dict]:
    """The panels of a figure; none where the figure has no interactive form, or the study nothing to show in it."""
    return CHARTS[name](contents) if name in CHARTS else []


def similarity(contents: Contents) -> list[dict]:
    """Correlations of gains between training sets, benchmarks and base models, in hierarchical order."""
    from sft_atlas.report.figures.similarity import hierarchical_order

    study, found = contents.study, []
    gains = contents.tables["gains"].filter(pl.col("gain").is_finite())
    for of, title in (("dataset", "Training sets"), ("benchmark", "Benchmarks"), ("model", "Base models")):
        names, wide = select.gain_vectors(gains, study, of)
        if len(names) < 2 or wide.width < 3:
            continue
        r, n = correlation_matrix(wide.to_numpy())
        order = hierarchical_order(r)
        labels = [label(study, f"{of}s", names[i]) for i in order]
        r, n = r[np.ix_(order, order)], n[np.ix_(order, order)]
        hints = [
            [f"{a} and {b}\nr = {number(r[i, j], 2)}, n = {n[i, j]} gains" for j, b in enumerate(labels)] for i, a in enumerate(labels)
        ]
        found.append(matrix(f"{title}: Pearson r of gains", labels, labels, r, hints, 1.0))
    return found


def agreement(contents: Contents) -> list[dict]:
    """Mean effect of training sets on benchmarks over base models; grey where not significant, or where it cannot be decided."""
    study = contents.study
    cells = select.of_leading_method(consistency.cells(contents.tables["gains"].filter(pl.col("score").is_finite()), study))
    if cells.is_empty() or cells["model"].n_unique() < 2 or cells["dataset"].n_unique() < 2:
        return []
    found = []
    for value, title in (("centred", "Relative to the mean training set"), ("gain", "Relative to the base model")):
        table = consistency.consistency(cells, value, study["seed"]).filter(pl.col("effect").is_not_nan())
        sets, benchmarks = (
            [name for name in study[kind] if name in set(table[key])]
            for kind, key in (("datasets", "dataset"), ("benchmarks", "benchmark"))
        )
        if table.is_empty():
            continue
        said = {
            (row["dataset"], row["benchmark"]): (
                f"{label(study, 'datasets', row['dataset'])} on {label(study, 'benchmarks', row['benchmark'])}\n{interval(row['effect'], row['low'], row['high'])}\n"
                f"{'cannot be decided' if np.isnan(row['q']) else p_value(row['q'], 'q')}, n = {row['n']} base models: {row['up']} up, {row['down']} down, {row['ties']} tied"
            )
            for row in table.iter_rows(named=True)
        }
        axes = {"dataset": sets, "benchmark": benchmarks}
        values, q = (select.array(table, key, axes) for key in ("effect", "q"))
        hints = [[said.get((row, column), "") for column in benchmarks] for row in sets]
        names = [label(study, "datasets", one) for one in sets], [label(study, "benchmarks", one) for one in benchmarks]
        limit = max(1.0, float(np.nanquantile(np.abs(values), 0.98)))
        found.append(matrix(f"{title}: mean effect over base models, points", *names, values, hints, limit, ~(q < SIGNIFICANT)))
    return found


def left_out(contents: Contents) -> list[dict]:
    """Scores without a training set, relative to the mean over the sets left out; grey within two standard errors of 0."""
    study = contents.study
    cells = select.left_out(contents.tables["scores"].filter(pl.col("score").is_finite()), study)
    cells = cells.filter(pl.col("relative").is_finite()).with_columns(pl.col("relative", "relative_stderr") * 100)
    found = []
    for (model, method), part in cells.group_by("model", "method", maintain_order=True):
        removed, benchmarks = (
            [name for name in study[kind] if name in set(part[key])] for kind, key in (("datasets", "removed"), ("benchmarks", "benchmark"))
        )
        axes = {"removed": removed, "benchmark": benchmarks}
        values, errors, n = (select.array(part, key, axes) for key in ("relative", "relative_stderr", "n"))
        rows, columns = [label(study, "datasets", one) for one in removed], [label(study, "benchmarks", one) for one in benchmarks]
        hints = [
            [
                ""
                if np.isnan(values[i, j])
                else f"without {a}: {b}\n{number(values[i, j], 1)} ± {number(errors[i, j], 1)} points, n = {n[i, j]:.0f}"
                for j, b in enumerate(columns)
            ]
            for i, a in enumerate(rows)
        ]
        title = f"{label(study, 'models', model)}, {METHODS[method]}: score without a set, points"
        limit = max(1.0, float(np.nanmax(np.abs(values))))
        found.append(matrix(title, [f"without {one}" for one in rows], columns, values, hints, limit, ~(np.abs(values) > 2 * errors)))
    return found


def perplexity(contents: Contents) -> list[dict]:
    """Mean gain over the perplexity of the training set under the base model, response only and with the question."""
    if "perplexity" not in contents.tables:
        return []
    points = select.perplexity_points(contents.tables, contents.study).filter(pl.col("gain").is_finite(), pl.col("perplexity").is_finite())
    found = []
    for scope, title in select.SCOPES.items():
        part = points.filter(pl.col("scope") == scope)
        if part.height:
            hints = [
                f"{name(contents, row)}\nperplexity {row['perplexity']:.3g}\nmean gain {number(100 * row['gain'], 1)} ± {number(100 * row['stderr'], 1)} points"
                for row in part.iter_rows(named=True)
            ]
            found.append(
                scatter(
                    f"Perplexity of the {title}",
                    contents,
                    part,
                    part["perplexity"],
                    100 * part["gain"],
                    hints,
                    "perplexity (log axis)",
                    "mean gain, points",
                )
                | {"log": True}
            )
    return found


def methods(contents: Contents) -> list[dict]:
    """Gain of LoRA over that of full fine-tuning, for the same base model, training set and benchmark."""
    pairs = select.method_pairs(contents.tables["gains"], contents.study).filter(pl.col("full").is_finite(), pl.col("lora").is_finite())
    if pairs.is_empty():
        return []
    keys = ["model", "dataset", "benchmark"]
    full = select.single(contents.tables["gains"], contents.study).filter(pl.col("method") == "full").select(*keys, "recipe", "epoch")
    pairs = pairs.join(full, on=keys, how="left", maintain_order="left")
    hints = [
        f"{name(contents, row)}, {label(contents.study, 'benchmarks', row['benchmark'])}\nfull {number(100 * row['full'], 1)}, LoRA {number(100 * row['lora'], 1)} points"
        for row in pairs.iter_rows(named=True)
    ]
    axes = "gain of full fine-tuning, points", "gain of LoRA, points"
    return [
        scatter("Every pair of runs and benchmark", contents, pairs, 100 * pairs["full"], 100 * pairs["lora"], hints, *axes)
        | {"equal": True}
    ]


CHARTS: dict[str, Callable[[Contents], list[dict]]] = {
    "similarity": similarity,
    "consistency": agreement,
    "leave_one_out": left_out,
    "perplexity_gain": perplexity,
    "lora_full": methods,
}


def matrix(
    title: str, rows: list[str], columns: list[str], values: np.ndarray, hints: list, limit: float, muted: np.ndarray | None = None
) -> dict:
    """A panel of cells."""
    grey = np.zeros(values.shape, bool) if muted is None else np.asarray(muted)
    cells = {"values": np.round(values, 4).tolist(), "muted": grey.tolist(), "hints": hints, "limit": round(limit, 4)}
    return {"kind": "matrix", "title": title, "rows": rows, "columns": columns, **cells}


def scatter(
    title: str, contents: Contents, part: pl.DataFrame, x: pl.Series, y: pl.Series, hints: list[str], x_title: str, y_title: str
) -> dict:
    """A panel of points; a click leads to the checkpoint (the first seed stands for all)."""
    folders: dict[tuple, str] = {}
    for run in contents.study["runs"]:
        folders.setdefault((run["model"], run["dataset"], run["recipe"]), run.get("folder", run["recipe"]))
    keys = part.select("model", "dataset", "recipe", "epoch").iter_rows()
    addresses = [address(model, dataset, folders[model, dataset, recipe], epoch) for model, dataset, recipe, epoch in keys]
    shown = {
        "x": x.round_sig_figs(5).to_list(),
        "y": y.round(3).to_list(),
        "hints": hints,
        "models": part["model"].to_list(),
        "addresses": addresses,
    }
    return {"kind": "scatter", "title": title, "x_title": x_title, "y_title": y_title, **shown}


def name(contents: Contents, row: dict) -> str:
    """Base model and training set of a row."""
    return f"{label(contents.study, 'models', row['model'])} + {label(contents.study, 'datasets', row['dataset'])}"


def interval(effect: float, low: float, high: float) -> str:
    """A mean effect with its interval, where there is one."""
    text = f"{number(effect, 1)} points"
    return text if np.isnan(low) else f"{text} [{number(low, 1)} to {number(high, 1)}]"
