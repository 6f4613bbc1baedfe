"""Findings about what is inside the checkpoints: weights, hidden states, likelihoods."""

from dataclasses import replace

import numpy as np
import polars as pl

from sft_atlas.analyse import map_effects, model_map, select
from sft_atlas.report.findings import METHODS, Finding, Statement, evidence, needs, wording
from sft_atlas.stats.estimates import Estimate, paired_difference, two_sided_p


def weight_change(layers: pl.DataFrame, study: dict) -> Finding:
    """Whether upper layers change more than lower ones."""
    title = "Where the weights change"
    profile = select.layer_profile(layers, study)
    halves = select.halves(profile, "relative_change")
    if halves.is_empty():
        return needs(title, "layer_change", "runs on single training sets, of base models with two or more layers")
    statements, notes = [], []
    for (method,), part in halves.group_by("method", maintain_order=True):
        units, of = select.units(part)
        ratio = paired_difference(np.log(part["upper"] / part["lower"]), units, study["seed"], METHODS[method], of)

        def tell(estimate: Estimate, q: float) -> str:
            verdict = wording(
                estimate,
                q,
                "the upper half of the layers changed more",
                "the lower half of the layers changed more",
                "no clear difference between halves",
            )
            return f"{estimate.what}: {verdict}; log of upper over lower relative change {evidence(estimate, q)}."

        statements.append(Statement(ratio, tell))
        medians = (
            profile.filter(pl.col("method") == method)
            .group_by("depth")
            .agg(pl.col("relative_change").median())
            .sort("relative_change", "depth")
        )
        peak = medians.row(-1, named=True)
        place = f"{METHODS[method]}: the median change is largest at depth {peak['depth']:.2f}"
        notes.append(f"{place}, {100 * peak['relative_change']:.2g} % of the weights' norm.")
    return Finding(title, "layer_change", statements, notes + select.units_note(halves))


def dimension(table: pl.DataFrame, study: dict) -> Finding:
    """Change of intrinsic dimension in the lower and upper half."""
    title = "Intrinsic dimension, tuned minus base"
    base, change = select.dimension_profile(table, study)
    method = select.leading_method(change)
    change = select.of_leading_method(change)
    halves = select.halves(change, "difference")
    if halves.is_empty():
        return needs(title, "dimension", "represented runs on single training sets")
    halves = halves.rename({"difference": "rise"})
    units, of = select.units(halves)

    def tell(estimate: Estimate, q: float) -> str:
        verdict = wording(estimate, q, "higher than in the base model", "lower than in the base model", "no clear change")
        return f"{estimate.what}: {verdict}; {evidence(estimate, q)}."

    statements = []
    for half, name in (("lower", "Layers below half depth"), ("upper", "Layers from half depth on")):
        found = paired_difference(halves[half], units, study["seed"], name, of)
        if of != "base models":
            found = beside(found, baseline_error(base.join(halves.select("model").unique(), on="model"), half))
        statements.append(Statement(found, tell))
    shared = f"The runs of a base model share the error of its one baseline. {METHODS[method]}, last checkpoints."
    if of != "base models":
        shared += " Resampling training sets does not show that error; its standard error is added to intervals and p."
    return Finding(title, "dimension", statements, [shared, *select.units_note(halves)])


def baseline_error(base: pl.DataFrame, half: str) -> float:
    """Standard error of the mean over base models of their dimension in one half of the depth; NaN where one is unknown.

    The layers of a model are measured on the same texts: their errors are taken to be one.
    """
    part = base.filter((pl.col("depth") >= 0.5) == (half == "upper"), pl.col("dimension").is_not_null())
    errors = part.group_by("model").agg(pl.col("stderr").mean())["stderr"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return float(np.sqrt((errors**2).sum()) / len(errors)) if len(errors) else np.nan


def beside(found: Estimate, stderr: float) -> Estimate:
    """The estimate with an error of known size that all of its units share: in quadrature in the interval, and p no smaller than by t of both."""
    reach, own = 1.959964 * stderr, (found.high - found.low) / 2 / 1.959964
    low, high = found.effect - np.hypot(found.effect - found.low, reach), found.effect + np.hypot(found.high - found.effect, reach)
    spread = np.hypot(own, stderr)
    by_both = float(two_sided_p(found.effect / spread, found.n)) if spread > 0 else found.p
    kind = f"{found.interval_method} and the baselines' error"
    return replace(found, low=float(low), high=float(high), p=float(np.maximum(found.p, by_both)), interval_method=kind)


def base_share(likelihood: pl.DataFrame, study: dict) -> Finding:
    """How much of the distance between checkpoints lies between base models."""
    title = "Base models on the map of checkpoints"
    found, chance = map_effects.base_share(model_map.vectors(likelihood), study)
    if np.isnan(found.effect):
        return needs(title, "model_map", "represented runs of two or more base models on single training sets")

    def tell(estimate: Estimate, q: float) -> str:
        told = evidence(estimate, q, scale=100, unit=" %", digits=0)
        if q < 0.05 and estimate.low > chance:
            return f"Checkpoints of one base model lie together; between base models lies this share of the squared distance: {told}."
        return f"No clear relation between base model and place on the map; share of the squared distance: {told}."

    note = f"Last checkpoints on single training sets. By chance the share would be about {100 * chance:.0f} %."
    untested = "Too few base models and training sets for a test."
    return Finding(title, "model_map", [Statement(found, tell)], [untested if np.isnan(chance) else note])
