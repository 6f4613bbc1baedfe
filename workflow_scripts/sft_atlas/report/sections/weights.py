"""Findings about weights: where they change, and whether that goes with the gain."""

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.report.findings import Finding, Statement, compare, unavailable
from sft_atlas.stats.estimates import Estimate
from sft_atlas.stats.wording import METHODS, SIGNIFICANT, describe, sentence_case

WIDEST = 0.5  # range of depths with 95 % of the bootstrap peaks, up to which a peak has a place


def change_by_depth(layers: pl.DataFrame, study: dict) -> Finding:
    """Whether upper layers change more than lower ones."""
    title = "Weight change by depth"
    profile = select.layer_profile(layers, study)
    halves = select.halves(profile, "relative_change")
    if halves.is_empty():
        return unavailable(title, "layer_change", "runs on single training sets, of base models with two or more layers")
    statements, notes = [], []
    neither = "no significant difference between lower and upper layers"
    of = "log ratio of relative change, upper to lower half, "
    sentence = compare("upper layers change more", "lower layers change more", neither, of)
    for (method,), part in halves.group_by("method", maintain_order=True):
        ratios = part.with_columns(difference=(pl.col("upper") / pl.col("lower")).log())
        ratio = select.mean_difference(ratios, study["seed"], sentence_case(METHODS[method]))
        statements.append(Statement(ratio, sentence))
        change = profile.filter(pl.col("method") == method).group_by("depth").agg(pl.col("relative_change").median())
        peak = change.sort("relative_change", "depth").row(-1, named=True)
        size = f"{100 * peak['relative_change']:.2g} % of the weights' norm"
        notes.append(f"{sentence_case(METHODS[method])}: the median change is largest at depth {peak['depth']:.2f}, {size}.")
    return Finding(title, "layer_change", statements, notes + select.units_note(halves))


def change_and_gain(peaks: pl.DataFrame) -> Finding:
    """Whether weight change goes with the gain at some depth, and whether that depth is certain."""
    title = "Weight change and gain"
    if peaks.is_empty():
        return unavailable(title, "layer_gain", "runs on four or more single training sets")
    statements, units = [], {"gain": "runs", "agreement": "pairs of base models"}
    for row in peaks.iter_rows(named=True):
        estimate = Estimate(sentence_case(METHODS[row["method"]]), row["value"], np.nan, np.nan, row["p"], row["n"], units[row["measure"]])
        statements.append(Statement(estimate, _peak(row)))
    note = (
        "p is for the largest value over all depths (max-T, shuffling training sets). The depth of a peak counts as certain where 95 % of "
        f"the bootstrap peaks span at most {WIDEST} and the value at the peak exceeds the mean over depths."
    )
    return Finding(title, "layer_gain", statements, [note])


def _peak(row: dict):
    """The sentence for the largest value over depths (a row of ``layer_peaks``)."""
    gain = row["measure"] == "gain"
    what = "weight change {}correlates with gain" if gain else "base models agree on which training sets change a layer"
    none = "weight change correlates significantly with gain" if gain else "base models agree significantly on which sets change a layer"

    def sentence(estimate: Estimate, q: float) -> str:
        value = f"largest {'r' if gain else 'mean r'} {describe(estimate, q)}"
        size = f"{row['models']} base models, {row['sets']} training sets"
        if not q < SIGNIFICANT:
            return f"{estimate.what}: no depth at which {none}; {value}, at depth {row['depth']:.2f}; {size}."
        place = f"[{row['depth_low']:.2f} to {row['depth_high']:.2f}], {100 * row['near']:.0f} % of bootstrap peaks within 0.1"
        certain = row["depth_high"] - row["depth_low"] <= WIDEST and row["rise_low"] > 0
        where = f"most at depth {row['depth']:.2f} {place}" if certain else f"at uncertain depth (peak {row['depth']:.2f} {place})"
        sign = "negatively " if estimate.effect < 0 else ""
        return f"{estimate.what}: {what.format(sign)}, {where}; {value}; {size}."

    return sentence
