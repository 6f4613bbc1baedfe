"""Findings about why it works: perplexity and other predictors, layers, what rules the map of checkpoints."""

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.analyse.predictors import ALL, PREDICTORS, within_models
from sft_atlas.report.findings import METHODS, Finding, Statement, evidence, needs, wording
from sft_atlas.stats.estimates import Estimate

STABLE = 0.5  # widest range of depths for 95 % of the bootstrap peaks at which a peak has a place
TERMS = {"model": "base models", "dataset": "training sets", "method": "methods", "run": "runs", "epoch": "epochs"}


def perplexity(tables: dict[str, pl.DataFrame], study: dict) -> Finding:
    """Perplexity of the training set under the base model against the mean gain, within base models."""
    title = "Perplexity of the training set and gain"
    points = select.perplexity_points(tables, study)
    if points.is_empty():
        return needs(title, "perplexity_gain", "runs on single training sets and their perplexity under the base models")

    def tell(estimate: Estimate, q: float) -> str:
        verdict = wording(
            estimate,
            q,
            "sets of higher perplexity gained more",
            "sets of lower perplexity gained more",
            "no clear relation with the gain",
        )
        return f"{estimate.what.capitalize()}: {verdict}; within-model r = {evidence(estimate, q)}."

    found = [
        within_models(points.filter(pl.col("scope") == scope), "log_perplexity", study["seed"], words)
        for scope, words in select.SCOPES.items()
    ]
    note = "p shuffles training sets as wholes, alike in all base models, because a set that helps one base model tends to help others."
    if not any("base models" in estimate.interval_method for estimate in found):
        note += " The intervals resample training sets only; they say nothing about other base models."
    return Finding(title, "perplexity_gain", [Statement(estimate, tell) for estimate in found], [note])


def estimate_of(row: dict, what: str) -> Estimate:
    """An estimate from a row of a table of statistics."""
    numbers = {key: np.nan if row[key] is None else row[key] for key in ("effect", "low", "high", "p")}
    return Estimate(what, **numbers, n=row["n"], unit=row["unit"], interval_method=row["interval_method"])


def predictors(frame: pl.DataFrame) -> Finding:
    """Which properties go with the gain, and whether they predict it where it was not seen."""
    title = "What tells the gain before training"
    defined = frame.filter(pl.col("effect").is_not_nan())
    correlations = defined.filter(pl.col("statistic") == "correlation")
    if correlations.is_empty():
        return needs(title, "predictors", "runs on four or more single training sets")
    notes = []
    others = correlations.filter(pl.col("subset") == ALL, ~pl.col("predictor").is_in(["perplexity_response", "perplexity_full"]))
    statements = [Statement(estimate_of(row, PREDICTORS[row["predictor"]][0]), _correlation) for row in others.iter_rows(named=True)]
    notes += [f"Where gains were not seen: {told}." for told in _held_out(defined.filter(pl.col("subset") == ALL))]
    for subset in correlations["subset"].unique(maintain_order=True).to_list():
        part = correlations.filter(pl.col("subset") == subset)
        sure = [PREDICTORS[row["predictor"]][0] for row in part.filter(pl.col("q") < 0.05).iter_rows(named=True)]
        which = "All training sets" if subset == ALL else subset.capitalize()
        beats = _beaten(defined.filter(pl.col("subset") == subset))
        notes.append(
            f"{which} ({part['sets'].max()} sets): {', '.join(sure) or 'none'} of {part.height} predictors with q < 0.05 among predictors "
            f"alone; where gains were not seen, {beats}."
        )
    slopes = defined.filter(pl.col("subset") == ALL, pl.col("statistic") == "slope")
    sure = slopes.filter(pl.col("q") < 0.05)["predictor"].to_list()
    told = ", ".join(PREDICTORS[name][0] for name in sure) or "none"
    notes.append(f"Mixed models with random base models and training sets, {slopes.height} fitted; with q < 0.05: {told}.")
    naive = others.filter(pl.col("p_within") < 0.05, pl.col("p") >= 0.05)
    if naive.height:
        names = ", ".join(PREDICTORS[name][0] for name in naive["predictor"])
        notes.append(
            f"Shuffling within each base model by itself, which counts one training set several times, would have passed: {names}."
        )
    return Finding(title, "predictors", statements, notes, lambda q: _table(statements, q))


def _correlation(estimate: Estimate, q: float) -> str:
    verdict = wording(estimate, q, "the more, the more gain", "the more, the less gain", "no clear relation with the gain")
    return f"{estimate.what[0].upper()}{estimate.what[1:]}: {verdict}; within-model r = {evidence(estimate, q)}."


def _table(statements: list[Statement], q: list[float]) -> list[str]:
    """Clear relations in a sentence each, the others by name with the largest of them."""
    from sft_atlas.report.findings import bullets, clear

    told = list(zip(statements, q, strict=True))
    sure = [statement.tell(statement.estimate, value) for statement, value in told if clear(statement.estimate, value)]
    rest = [(statement, value) for statement, value in told if not clear(statement.estimate, value)]
    lines = bullets(sure)
    if rest:
        largest, value = max(rest, key=lambda pair: abs(pair[0].estimate.effect))
        names = ", ".join(statement.estimate.what for statement, _ in rest)
        most = f"the largest is {largest.estimate.what}, r = {evidence(largest.estimate, value)}"
        lines += bullets([f"No clear relation within base models: {names}; {most}."])
    return lines


HELD_OUT = {
    "new base model": "the predictor alone, for a new base model",
    "new base model, dataset known": "beside the dataset mean, for a new base model",
    "new dataset": "beside the model mean, for a new training set",
}


def _held_out(frame: pl.DataFrame) -> list[str]:
    """For each kind of gain left out: the best predictor, its error and the baseline's."""
    told = []
    for statistic, words in HELD_OUT.items():
        part = frame.filter(pl.col("statistic") == statistic)
        if part.is_empty():
            told.append(f"{words}, it would take three or more of them")
            continue
        best = part.sort("effect", descending=True).row(0, named=True)
        removed = f"removes {100 * best['effect']:.0f} %" if best["effect"] > 0 else f"adds {-100 * best['effect']:.0f} %"
        interval = f"{100 * best['low']:.0f} to {100 * best['high']:.0f}"
        told.append(
            f"{words}, the best of {part.height}, {PREDICTORS[best['predictor']][0]}, {removed} [{interval} % removed] of the squared error "
            f"of the {best['baseline']} ({100 * best['rmse']:.1f} points against {100 * best['baseline_rmse']:.1f}), "
            f"n = {best['n']} {best['unit']}"
        )
    return told


def _beaten(frame: pl.DataFrame) -> str:
    """Which predictors beat a baseline: interval above 0 and q < 0.05 among the predictors."""
    part = frame.filter(pl.col("statistic").is_in(list(HELD_OUT)), pl.col("low") > 0, pl.col("q") < 0.05)
    told = [f"{PREDICTORS[row['predictor']][0]} beats the {row['baseline']} ({row['statistic']})" for row in part.iter_rows(named=True)]
    return ", ".join(told) or "no predictor beats its baseline"


def layers_and_gain(peaks: pl.DataFrame) -> Finding:
    """Whether weight change goes with the gain at some depth, and whether that depth is certain."""
    title = "Weight change and gain by depth"
    if peaks.is_empty():
        return needs(title, "layer_gain", "runs on four or more single training sets")
    statements, units = [], {"gain": "runs", "agreement": "pairs of base models"}
    for row in peaks.iter_rows(named=True):
        estimate = Estimate(METHODS[row["method"]], row["value"], np.nan, np.nan, row["p"], row["n"], units[row["measure"]])
        statements.append(Statement(estimate, _peak(row)))
    note = (
        "p is for the largest value over all depths (max-T over shuffles of training sets). A place is named where 95 % of the bootstrap "
        f"peaks lie within {STABLE} of the depth and the value there exceeds the mean over depths."
    )
    return Finding(title, "layer_gain", statements, [note])


def _peak(row: dict):
    gain = row["measure"] == "gain"
    what = "change goes with the gain" if gain else "base models agree on which sets change a layer"

    def tell(estimate: Estimate, q: float) -> str:
        number = f"largest {'r' if gain else 'mean r'} {evidence(estimate, q)}"
        of = f"{row['models']} base models, {row['sets']} training sets"
        if not q < 0.05:
            return f"{estimate.what}: no clear depth at which {what}; {number}, at depth {row['depth']:.2f}; {of}."
        sign = " (more change, less gain)" if gain and estimate.effect < 0 else ""
        place = f"[{row['depth_low']:.2f} to {row['depth_high']:.2f}], {100 * row['near']:.0f} % of bootstrap peaks within 0.1"
        stable = row["depth_high"] - row["depth_low"] <= STABLE and row["rise_low"] > 0
        where = f"most at depth {row['depth']:.2f} {place}" if stable else f"at no certain depth (peak {row['depth']:.2f} {place})"
        return f"{estimate.what}: {what}{sign}, {where}; {number}; {of}."

    return tell


def what_rules_the_map(shares: pl.DataFrame, effects: pl.DataFrame) -> Finding:
    """Shares of the squared distance; spread by epoch, size, method."""
    title = "What rules the map of checkpoints"
    if shares.is_empty():
        return needs(title, "map_shares", "represented checkpoints of two or more base models or training sets")
    statements = []
    for row in shares.filter(pl.col("term") != "residual", pl.col("share").is_not_nan()).iter_rows(named=True):
        which = "Last checkpoints" if row["design"] == "last" else "Runs with every epoch kept"
        estimate = Estimate(f"{which}, between {TERMS[row['term']]}", row["share"], np.nan, np.nan, row["p"], row["n"], "checkpoints")
        statements.append(Statement(estimate, _share(row)))
    statements += [
        Statement(estimate_of(row | {"effect": row["value"]}, row["effect"]), _effect(row))
        for row in effects.filter(pl.col("value").is_not_nan()).iter_rows(named=True)
    ]
    absent = {
        "spread": "two or more kept epochs",
        "size": "two sizes of the same sets",
        "method": "both methods",
        "same set": "both methods",
    }
    lacking = sorted({absent[name] for name in effects.filter(pl.col("value").is_nan())["effect"]})
    tested = shares.filter(pl.col("p").is_not_nan())
    how = [f"{TERMS[row['term']]} by {row['test']}" for row in tested.iter_rows(named=True)]
    notes = [f"Shares: PERMANOVA, each term given the others, tested by rearranging what is independent: {', '.join(how) or 'too little'}."]
    if tested["test"].str.starts_with("order").any():
        notes.append("A p by order also answers to sets, or base models, that differ in spread only.")
    given = tested.filter(pl.col("term").is_in(["method", "epoch"]), pl.col("test").str.ends_with("training sets"))["term"].to_list()
    given += effects.filter(pl.col("value").is_not_nan(), pl.col("interval_method").str.contains(r"over \d+ training sets"))[
        "effect"
    ].to_list()
    if given:
        names = ", ".join(dict.fromkeys(given))
        notes.append(
            f"Units of {names} are training sets, as base models are few: what is special to one is in none of their p and intervals."
        )
    notes += [f"Not to be told here: it would take runs with {' and with '.join(lacking)}."] if lacking else []
    return Finding(title, "map_shares", statements, notes, also=("map_drawings",))


def _share(row: dict):
    def tell(estimate: Estimate, q: float) -> str:
        told = evidence(estimate, q, scale=100, unit=" %", digits=1)
        if np.isnan(estimate.p):
            why = f": {row['test']}" if row["test"] else ""
            return f"{estimate.what} lies this share of the squared distance (not tested{why}): {told}."
        sure = "lies this share of the squared distance" if q < 0.05 else "lies no more of the squared distance than by chance"
        return f"{estimate.what} {sure}: {told}; by chance {100 * row['chance']:.1f} %."

    return tell


def _effect(row: dict):
    words = {
        "spread": ("Checkpoints of a base model, from first to last kept epoch", "they spread", "they draw together", "no clear change of their spread"),
        "size": ("More rows", "further from the base model", "closer to the base model", "no clear change of the divergence from the base model"),
        "method": ("LoRA minus full tuning", "LoRA moved further", "LoRA moved less far", "no clear difference in how far they moved"),
    }  # fmt: skip

    def tell(estimate: Estimate, q: float) -> str:
        if row["effect"] == "same set":
            same = "the same set" if q < 0.05 and estimate.low > row["reference"] else "no set in particular"
            told = evidence(estimate, q, scale=100, unit=" %", digits=0)
            return f"Nearest to a LoRA checkpoint is the full tuning on {same}: {told}; by chance {100 * row['reference']:.0f} %."
        what, up, down, unclear = words[row["effect"]]
        return f"{what}: {wording(estimate, q, up, down, unclear)}; {evidence(estimate, q, unit=' bits per byte', digits=3)}."

    return tell
