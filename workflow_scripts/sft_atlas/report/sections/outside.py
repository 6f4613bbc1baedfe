"""Findings about checkpoints that were trained elsewhere: their gains, and which analyses leave them out for want of facts."""

import polars as pl

from sft_atlas.analyse import select
from sft_atlas.report.findings import Finding
from sft_atlas.stats.wording import count, number
from sft_atlas.study.runs import UNKNOWN

MOST = 20  # that are named


def outside(tables: dict[str, pl.DataFrame], study: dict) -> list[Finding]:
    """The section; [] where every checkpoint was trained in this study. ``tables`` are averaged over seeds."""
    runs = [run for run in study["runs"] if run.get("outside")]
    if not runs:
        return []
    gains = {tuple(row[key] for key in select.RUN): row for row in select.mean_gains(tables["gains"]).iter_rows(named=True)}
    layers = tables["layers"].filter(pl.col("component") == "all").group_by(select.RUN).agg(pl.col("relative_change").mean())
    changes = {tuple(row[:3]): row[3] for row in layers.iter_rows()}
    notes = [_line(run, gains, changes) for run in runs[:MOST]]
    if len(runs) > MOST:
        notes.append(f"{count(len(runs) - MOST, 'more checkpoints')} are in the atlas.")
    notes.append(
        "All are asked with the prompt template of the study. The one that they were trained with is not known, so that a gain may be too low."
    )
    return [Finding("Checkpoints that were trained elsewhere", "model_map", notes=[*notes, *_left_out(runs, study)])]


def _line(run: dict, gains: dict[tuple, dict], changes: dict[tuple, float]) -> str:
    key = (run["model"], run["dataset"], run["recipe"])
    source = run["outside"].get("hub") or run["outside"].get("path")
    gain, change = gains.get(key), changes.get(key)
    parts = [
        "not every benchmark has a gain"
        if gain is None
        else f"mean gain over benchmarks {number(100 * gain['gain'], 1)}{_error(gain)} points"
    ]
    parts += [] if change is None else [f"mean change of a layer's weights {number(100 * change, 2)} % of their norm"]
    return f"{run['folder']} ({source}; {run['method']}, from {run['model']}): {', '.join(parts)}."


def _error(gain: dict) -> str:
    return "" if gain["stderr"] is None else f" ± {number(100 * gain['stderr'], 1)} (standard error)"


def _left_out(runs: list[dict], study: dict) -> list[str]:
    """Which checkpoints which analyses leave out, and for want of which fact."""
    foreign = {name for name, entry in study["datasets"].items() if entry.get("foreign")}
    reasons = {
        "Training set unknown, so that all comparisons of training sets and methods leave them out": lambda run: run["dataset"] == UNKNOWN,
        "Training set that this study does not have, so that perplexity, similarity, predictors and clean scores leave them out": lambda run: (
            run["dataset"] in foreign - {UNKNOWN}
        ),
        "Rows unknown, so that effects of size leave them out": lambda run: run["rows"] is None,
        "Seed unknown, so that they say nothing on the noise of training": lambda run: run["seed"] is None,
        "A single checkpoint each, so that effects of epochs leave them out": lambda run: True,
    }
    found = {reason: [run["folder"] for run in runs if applies(run)] for reason, applies in reasons.items()}
    return [f"{reason}: {_named(names, len(runs))}." for reason, names in found.items() if names]


def _named(names: list[str], everything: int) -> str:
    if len(names) == everything and everything > 1:
        return f"all {everything}"
    return ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")
