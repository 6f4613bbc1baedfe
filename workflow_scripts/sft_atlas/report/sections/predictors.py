"""Findings about predictors of gain: what is known before training, and how well it predicts gains that were held out."""

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.analyse.analyse_predictors import ALL, PREDICTORS, within_models
from sft_atlas.core.markdown import bullets
from sft_atlas.report.findings import WIDTH, Finding, Statement, compare, unavailable
from sft_atlas.stats.estimates import Estimate
from sft_atlas.stats.wording import SIGNIFICANT, count, describe, is_significant, sentence_case, verdict

HELD_OUT = {  # statistic -> what predicts, and what it takes
    "new base model": ("New base model, predictor alone", "three base models"),
    "new base model, dataset known": ("New base model, dataset mean plus predictor", "three base models"),
    "new dataset": ("New training set, model mean plus predictor", "three training sets"),
}


def perplexity(tables: dict[str, pl.DataFrame], study: dict) -> Finding:
    """Perplexity of the training set under the base model against the mean gain, within base models."""
    title = "Perplexity and gain"
    points = select.perplexity_points(tables, study)
    if points.is_empty():
        return unavailable(title, "perplexity_gain", "runs on single training sets and their perplexity under the base models")
    sentence = compare(
        "higher perplexity, larger gain", "lower perplexity, larger gain", "no significant correlation with gain", "within-model r = "
    )
    estimates = [
        within_models(points.filter(pl.col("scope") == scope), "log_perplexity", study["seed"], words.capitalize())
        for scope, words in select.SCOPES.items()
    ]
    note = "p shuffles whole training sets, in the same way for every base model, because a set that helps one tends to help the others."
    if not any("base models" in estimate.interval_method for estimate in estimates):
        note += " The intervals resample training sets only and say nothing about other base models."
    return Finding(title, "perplexity_gain", [Statement(estimate, sentence) for estimate in estimates], [note])


def estimate_of(row: dict, what: str, attainable_p: float = np.nan) -> Estimate:
    """The estimate in a row of a table of statistics; ``attainable_p`` is the smallest p that its test can give."""
    numbers = {key: np.nan if row[key] is None else row[key] for key in ("effect", "low", "high", "p")}
    of_row = {key: row[key] for key in ("n", "unit", "interval_method")}
    return Estimate(what, **numbers, **of_row, attainable_p=attainable_p)


def predictors(frame: pl.DataFrame) -> Finding:
    """Which properties correlate with the gain, and whether they predict held-out gains."""
    title = "Predictors of gain"
    defined = frame.filter(pl.col("effect").is_not_nan())
    correlations = defined.filter(pl.col("statistic") == "correlation")
    if correlations.is_empty():
        return unavailable(title, "predictors", "runs on four or more single training sets")
    others = correlations.filter(pl.col("subset") == ALL, ~pl.col("predictor").is_in(["perplexity_response", "perplexity_full"]))
    statements = [Statement(estimate_of(row, PREDICTORS[row["predictor"]][0]), _correlation) for row in others.iter_rows(named=True)]
    notes = _held_out(defined.filter(pl.col("subset") == ALL))
    notes.append(
        "The dataset mean is the mean gain of a training set in the other base models; the model mean is that of a base model on the other "
        "training sets."
    )
    for subset in correlations["subset"].unique(maintain_order=True).to_list():
        part = correlations.filter(pl.col("subset") == subset)
        which = "All training sets" if subset == ALL else subset.capitalize()
        notes.append(
            f"{which} ({part['sets'].max()}), p corrected over these {part.height} predictors only: {_significant(part)}. "
            f"On held-out gains, {_better_than_baseline(defined.filter(pl.col('subset') == subset))}."
        )
    slopes = defined.filter(pl.col("subset") == ALL, pl.col("statistic") == "slope")
    notes.append(f"Mixed models with random base models and training sets ({slopes.height} fitted): {_significant(slopes)}.")
    within = others.filter(pl.col("p_within") < SIGNIFICANT, pl.col("p") >= SIGNIFICANT)
    if within.height:
        names = ", ".join(PREDICTORS[name][0] for name in within["predictor"])
        notes.append(f"Significant only if gains are shuffled within each base model, which counts a training set several times: {names}.")
    return Finding(title, "predictors", statements, notes, lambda q: _list(statements, q))


def _correlation(estimate: Estimate, q: float) -> str:
    what = estimate.what
    neither = f"{sentence_case(what)}: no significant correlation with gain"
    return f"{verdict(estimate, q, f'Higher {what}, larger gain', f'Lower {what}, larger gain', neither)}; within-model r = {describe(estimate, q)}."


def _list(statements: list[Statement], q: list[float]) -> list[str]:
    """Significant correlations in a sentence each, the others by name with the largest of them."""
    pairs = list(zip(statements, q, strict=True))
    lines = bullets([one.sentence(one.estimate, value) for one, value in pairs if is_significant(one.estimate, value)], WIDTH)
    rest = [(one.estimate, value) for one, value in pairs if not is_significant(one.estimate, value)]
    if rest:
        largest, value = max(rest, key=lambda pair: abs(pair[0].effect))
        names = ", ".join(estimate.what for estimate, _ in rest)
        most = f"the largest is {largest.what}, r = {describe(largest, value)}"
        lines += bullets([f"No significant correlation within base models: {names}; {most}."], WIDTH)
    return lines


def _significant(part: pl.DataFrame) -> str:
    """Which predictors of a part of the table are significant (q < 0.05), in words."""
    names = [PREDICTORS[name][0] for name in part.filter(pl.col("q") < SIGNIFICANT)["predictor"]]
    return f"significant {'is' if len(names) == 1 else 'are'} {', '.join(names)}" if names else "none is significant"


def _held_out(frame: pl.DataFrame) -> list[str]:
    """For each kind of gain left out: the best predictor, its error and the baseline's."""
    notes = []
    for statistic, (what, needed) in HELD_OUT.items():
        part = frame.filter(pl.col("statistic") == statistic)
        if part.is_empty():
            notes.append(f"{what}: not available in this study, needs {needed}.")
            continue
        best = part.sort("effect", descending=True).row(0, named=True)
        bounds = f" [{100 * best['low']:.0f} to {100 * best['high']:.0f}]" if np.isfinite(best["low"]) else ""
        interval = f"{100 * best['effect']:.0f} %{bounds}"
        removed = f"removes {interval}" if best["effect"] > 0 else f"removes none ({interval})"
        notes.append(
            f"{what}: the best of {part.height}, {PREDICTORS[best['predictor']][0]}, {removed} of the squared error of the "
            f"{best['baseline']} (RMSE {100 * best['rmse']:.1f} against {100 * best['baseline_rmse']:.1f} points), "
            f"n = {count(best['n'], best['unit'])}{'' if bounds else ', too few for an interval'}."
        )
    return notes


def _better_than_baseline(frame: pl.DataFrame) -> str:
    """Which predictors beat a baseline: interval above 0 and q < 0.05 among the predictors."""
    part = frame.filter(pl.col("statistic").is_in(list(HELD_OUT)), pl.col("low") > 0, pl.col("q") < SIGNIFICANT)
    names = [f"{PREDICTORS[row['predictor']][0]} beats the {row['baseline']} ({row['statistic']})" for row in part.iter_rows(named=True)]
    return ", ".join(names) or "no predictor beats its baseline"
