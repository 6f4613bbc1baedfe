"""Findings about hidden states and likelihoods: intrinsic dimension, and the map of checkpoints."""

from dataclasses import replace

import numpy as np
import polars as pl

from sft_atlas.analyse import analyse_map, select
from sft_atlas.report.findings import Finding, Statement, compare, unavailable
from sft_atlas.report.sections.predictors import estimate_of
from sft_atlas.stats.estimates import Estimate, smallest_p, two_sided_p
from sft_atlas.stats.wording import METHODS, SIGNIFICANT, describe, is_significant, sentence_case, verdict

TERMS = {"model": "base models", "dataset": "training sets", "method": "methods", "run": "runs", "epoch": "epochs"}
DIVERGENCE = {"unit": " bits per byte", "digits": 3}


def dimension(table: pl.DataFrame, study: dict) -> Finding:
    """Change of intrinsic dimension in the lower and upper half of the layers."""
    title = "Intrinsic dimension after fine-tuning"
    base, change = select.dimension_profile(table, study)
    method = select.leading_method(change)
    halves = select.halves(select.of_leading_method(change), "difference")
    if halves.is_empty():
        return unavailable(title, "dimension", "runs with `measure_representation: true` on single training sets")
    unit = select.units(halves)[1]
    statements, sentence = [], compare("higher than in the base model", "lower than in the base model", "no significant change")
    for half in ("lower", "upper"):
        estimate = select.mean_difference(halves, study["seed"], f"{half.capitalize()} half of the layers", half)
        if unit != "base models":
            estimate = with_shared_error(estimate, baseline_error(base.join(halves.select("model").unique(), on="model"), half))
        statements.append(Statement(estimate, sentence))
    shared = f"{sentence_case(METHODS[method])} minus base model, last checkpoints. The runs of a base model share the error of its one baseline."
    if unit != "base models":
        shared += " Resampling training sets does not show that error, so its standard error is added to intervals and p."
    return Finding(title, "dimension", statements, [shared, *select.units_note(halves)])


def baseline_error(base: pl.DataFrame, half: str) -> float:
    """Standard error of the mean over base models of their dimension in one half of the depth; NaN where one is unknown.

    The layers of a model are measured on the same texts: their errors are taken to be one.
    """
    part = base.filter((pl.col("depth") >= 0.5) == (half == "upper"), pl.col("dimension").is_not_null())
    errors = part.group_by("model").agg(pl.col("stderr").mean())["stderr"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return float(np.sqrt((errors**2).sum()) / len(errors)) if len(errors) else np.nan


def with_shared_error(estimate: Estimate, stderr: float) -> Estimate:
    """The estimate with an error of known size that all of its units share.

    The error is added in quadrature to the interval; p becomes that of a t test with both errors, where that is larger.
    """
    reach, own = 1.959964 * stderr, (estimate.high - estimate.low) / 2 / 1.959964
    low = estimate.effect - np.hypot(estimate.effect - estimate.low, reach)
    high = estimate.effect + np.hypot(estimate.high - estimate.effect, reach)
    spread = np.hypot(own, stderr)
    p = float(two_sided_p(estimate.effect / spread, estimate.n)) if spread > 0 else estimate.p
    kind = f"{estimate.interval_method} plus baseline error"
    return replace(estimate, low=float(low), high=float(high), p=float(np.maximum(estimate.p, p)), interval_method=kind)


def base_models(likelihood: pl.DataFrame, study: dict) -> Finding:
    """How much of the distance between checkpoints lies between base models."""
    title = "Base models on the map of checkpoints"
    share, chance = analyse_map.base_share(analyse_map.vectors(likelihood), study)
    if np.isnan(share.effect):
        return unavailable(
            title, "model_map", "runs of two or more base models with `measure_representation: true` on single training sets"
        )

    def clustered(estimate: Estimate, q: float) -> bool:
        return q < SIGNIFICANT and estimate.low > chance

    def sentence(estimate: Estimate, q: float) -> str:
        result = "Checkpoints cluster by base model" if clustered(estimate, q) else "No significant clustering of checkpoints by base model"
        return f"{result}; share of squared distance between base models {describe(estimate, q, scale=100, unit=' %', digits=0)}."

    note = f"Last checkpoints on single training sets. Share expected by chance: about {100 * chance:.0f} %."
    untested = "Too few base models and training sets for a test."
    return Finding(title, "model_map", [Statement(share, sentence, clustered)], [untested if np.isnan(chance) else note])


def factors(shares: pl.DataFrame, effects: pl.DataFrame) -> Finding:
    """Shares of the squared distance between checkpoints; effects of epochs, size and method on divergences."""
    title = "Factors behind distances between checkpoints"
    if shares.is_empty():
        return unavailable(title, "map_shares", "runs of two or more base models or training sets with `measure_representation: true`")
    statements = []
    for row in shares.filter(pl.col("term") != "residual", pl.col("share").is_not_nan()).iter_rows(named=True):
        design = "Last checkpoints" if row["design"] == "last" else "Runs that keep every epoch"
        what = f"{design}, share of squared distance between {TERMS[row['term']]}"
        estimate = Estimate(what, row["share"], np.nan, np.nan, row["p"], row["n"], "checkpoints")
        statements.append(Statement(estimate, _share(row)))
    defined = effects.filter(pl.col("value").is_not_nan())
    for row in defined.iter_rows(named=True):
        attainable_p = np.nan if row["effect"] == "same set" else float(smallest_p(row["n"]))  # the others are sign-flip tests
        statements.append(Statement(estimate_of(row | {"effect": row["value"]}, "", attainable_p), _effect(row)))
    tested = shares.filter(pl.col("p").is_not_nan())
    tests = [f"{TERMS[row['term']]} ({row['test']})" for row in tested.iter_rows(named=True)]
    notes = [f"Shares: PERMANOVA, each term given the others. Tests: {', '.join(tests) or 'too few units'}."]
    if tested["test"].str.contains("permuted").any():
        notes.append("These permutation tests also react to training sets or base models that differ only in spread.")
    by_sets = tested.filter(pl.col("term").is_in(["method", "epoch"]), pl.col("test").str.ends_with("training sets"))["term"].to_list()
    by_sets += defined.filter(pl.col("interval_method").str.contains(r"over \d+ training sets"))["effect"].to_list()
    if by_sets:
        names = ", ".join(dict.fromkeys(by_sets))
        notes.append(
            f"Too few base models to resample, so the units of {names} are training sets: results hold for these base models only."
        )
    needs = {
        "spread": "two or more kept epochs",
        "size": "two sizes of the same sets",
        "method": "both methods",
        "same set": "both methods",
    }
    lacking = sorted({needs[name] for name in effects.filter(pl.col("value").is_nan())["effect"]})
    notes += [f"Not available in this study: needs runs with {' and with '.join(lacking)}."] if lacking else []
    return Finding(title, "map_shares", statements, notes, more_figures=("map_drawings",))


def _share(row: dict):
    """The sentence for a row of ``map_shares``."""

    def sentence(estimate: Estimate, q: float) -> str:
        share = describe(estimate, q, scale=100, unit=" %", digits=1)
        if np.isnan(estimate.p):
            return f"{estimate.what}: {share} (not tested{': ' + row['test'] if row['test'] else ''})."
        result = "significant" if q < SIGNIFICANT else "not significant"
        return f"{estimate.what}: {result}; {share}; by chance {100 * row['chance']:.1f} %."

    return sentence


def _significant(row: dict):
    """Whether an effect in a row of ``map_effects`` is significant; the share with the same set is compared with chance, not with 0."""
    if row["effect"] != "same set":
        return is_significant
    return lambda estimate, q: q < SIGNIFICANT and estimate.low > row["reference"]


def _effect(row: dict):
    """The sentence for a row of ``map_effects``."""
    words = {
        "spread": ("Spread of a base model's checkpoints, first to last kept epoch", "increases", "decreases", "no significant change"),
        "size": ("Divergence from the base model, largest minus smallest training size", "larger", "smaller", "no significant difference"),
        "method": ("Divergence from the base model, LoRA minus full fine-tuning", "larger", "smaller", "no significant difference"),
    }  # fmt: skip

    def sentence(estimate: Estimate, q: float) -> str:
        if row["effect"] == "same set":
            same = "significantly more than by chance" if q < SIGNIFICANT and estimate.low > row["reference"] else "no more than by chance"
            share = describe(estimate, q, scale=100, unit=" %", digits=0)
            chance = f"by chance {100 * row['reference']:.0f} %"
            return f"LoRA checkpoints whose nearest fully fine-tuned checkpoint has the same training set: {same}; {share}; {chance}."
        what, up, down, neither = words[row["effect"]]
        return f"{what}: {verdict(estimate, q, up, down, neither)}; {describe(estimate, q, **DIVERGENCE)}."

    return sentence
