"""Advice from the published scores: the ranking of a base model's own scores, or of the mean over the others for a base model without any."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from sft_atlas.analyse import ranking, select
from sft_atlas.analyse.ranking import BASELINE, UNKNOWN, Alternative, Quality, Ranked, effects, half_widths, held_out, quality, residuals
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.markdown import bullets, table
from sft_atlas.stats.wording import METHODS, SIGNIFICANT, count, describe, number, p_value, sentence_case
from sft_atlas.study.messages import nearest

SOURCE = "published scores"
OWN, OTHERS = "its own published scores", "published scores of other base models"


@dataclass(frozen=True)
class Scores:
    """Effects in points of each benchmark's range, relative to the base model's mean over training sets.

    ``effect`` [base models, sets], means over benchmarks; ``by_benchmark`` [base models, sets, benchmarks]; traits of base models by name.
    """

    effect: np.ndarray
    by_benchmark: np.ndarray
    models: list[str]
    sets: list[str]
    labels: dict[str, str]
    traits: dict[str, list[str]]
    benchmarks: list[str]
    tasks: int
    method: str


def scores(cells: pl.DataFrame) -> Scores:
    """The effects of ``cells`` (see :mod:`sft_atlas.published.select_single_sets`), of full fine-tuning where there is any.

    Sets are compared on the tests that all sets of a base model have; a benchmark counts once, whatever the number of its variants.
    """
    part = select.of_leading_method(cells).drop_nulls("score")
    common = pl.col("dataset").n_unique().over("model", "task") == pl.col("dataset").n_unique().over("model")
    part = part.filter(common)
    means = part.group_by("model", "dataset", "benchmark").agg(pl.col("score").mean())
    models, sets, benchmarks = (part[key].unique().sort().to_list() for key in ("model", "dataset", "benchmark"))
    cube = select.array(means, "score", {"model": models, "dataset": sets, "benchmark": benchmarks})
    facts = part.unique("model").select("model", "label", "family", "language").rows_by_key("model", unique=True)
    labels = {name: facts[name][0] for name in models} | dict(part.select("dataset", "dataset_label").unique().iter_rows())
    traits = {trait: [facts[name][i] for name in models] for i, trait in enumerate(("family", "language"), 1)}
    flat = ranking.column_means(np.moveaxis(cube, 2, 0)) if benchmarks else cube.reshape(len(models), len(sets))
    by_benchmark = cube - np.stack([ranking.column_means(np.moveaxis(cube, 1, 0))] * max(len(sets), 1), axis=1) if sets else cube
    method = METHODS.get(select.leading_method(part) or "", "")
    return Scores(effects(flat), by_benchmark, models, sets, labels, traits, benchmarks, part["task"].n_unique(), method)


@dataclass(frozen=True)
class PublishedAdvice:
    """``rows``, best first, and empty where there is no ranking; what they rest on (``basis``: OWN or OTHERS); ``wanted``: candidates."""

    rows: list[Ranked]
    basis: str
    unit: str
    quality: Quality
    scores: Scores
    wanted: list[str]


def advise(cells: pl.DataFrame, model: str, wanted: list[str], traits: dict[str, str], seed: int) -> PublishedAdvice:
    """Rank ``wanted`` (empty: all) published training sets for a base model; ``traits``: its family and language, where known."""
    data = scores(cells)
    if absent := [name for name in wanted if name not in data.sets]:
        raise AtlasError(
            f"advise.datasets: there are no published scores of {', '.join(absent)}{nearest(absent[0], data.sets)}; the published training sets "
            f"are {', '.join(data.sets) or 'none'}"
        )
    wanted = wanted or data.sets
    if model in data.models:
        place = data.models.index(model)
        measured = quality(data.effect, data.traits, seed)  # of the rankings that base models without scores of their own get
        values = data.by_benchmark[place].T
        rows = ranking.ranked(values[np.isfinite(values).any(axis=1)], data.sets, np.full(len(data.sets), np.nan), "benchmarks", seed)
        return PublishedAdvice([one for one in rows if one.dataset in wanted], OWN, "benchmarks", measured, data, wanted)
    measured = quality(data.effect, data.traits, seed)
    if not measured.useful:
        return PublishedAdvice([], OTHERS, "base models", measured, data, wanted)
    labels = data.traits.get(measured.trait, [])
    alike = np.array([traits.get(measured.trait, UNKNOWN) == label != UNKNOWN for label in labels], bool)
    use = alike if alike.any() else np.ones(len(data.models), bool)
    half = half_widths(residuals(held_out(data.effect, labels if alike.any() else None), data.effect))
    rows = ranking.ranked(data.effect[use], data.sets, half, "base models", seed)
    return PublishedAdvice([one for one in rows if one.dataset in wanted], OTHERS, "base models", measured, data, wanted)


def rows(advice: PublishedAdvice, model: str) -> list[dict]:
    """The advice as rows of the table; fractions."""
    return [
        {
            "source": SOURCE, "basis": advice.basis, "model": model, "rank": rank, "dataset": one.dataset, "n": one.n, "unit": advice.unit,
            "relative": one.effect / 100, "mean_low": one.low / 100, "mean_high": one.high / 100, "p": one.p, "q": one.q,
            "relative_low": one.below / 100, "relative_high": one.above / 100, "known": True,
        }
        for rank, one in enumerate(advice.rows, 1)
    ]  # fmt: skip


def section(advice: PublishedAdvice, model: str, source: str, traits: dict[str, str]) -> list[str]:
    """Lines of Markdown: the ranking or the refusal, how good such rankings are, and what they rest on."""
    data, own = advice.scores, advice.basis == OWN
    n = count(len(data.models), "base models")
    lines = [f"## From the {SOURCE}", ""]
    if advice.rows:
        lines += [f"Ranked by {advice.basis}{'' if own else f' (n = {n}): {model} has none'}.", "", *ranking_table(advice), ""]
        lines += bullets(notes(advice, model))
    else:
        lines += bullets([refusal(advice.quality)])
    if advice.quality.enough:
        lines += ["", "### How good such a ranking is for a base model that is held out", ""]
        lines += [*quality_table(advice.quality), "", *bullets(judgement(advice, model, traits))]
    size = f"{n} x {count(len(data.sets), 'training sets')} x {count(len(data.benchmarks), 'benchmarks')} ({data.tasks} columns of scores)"
    basis = [
        f"Source: {source}, after the audit's repairs; {data.method}, last epoch of the main recipe; n = {size}. One training run a cell, so the "
        "noise of training once more is not known.",
        "Effects are in points of each benchmark's range, relative to the base model's mean over training sets. Each benchmark counts once. "
        "Gains over the base model itself are not predicted, because the published scores of many base models are unusable.",
    ]
    families = select.families(data.traits["family"])[1]
    return [*lines, "", *bullets([*basis, *([families] if families else [])])]


def ranking_table(advice: PublishedAdvice) -> list[str]:
    """The ranking with intervals, q and n."""

    def interval(low: float, high: float) -> str:
        return f"{number(low, 1)} to {number(high, 1)}" if np.isfinite(low) else "none"

    own = advice.basis == OWN
    head = ["rank", "training set", "points", "95 % interval of the mean", "q", f"n {advice.unit}"]
    rows = []
    for rank, one in enumerate(advice.rows, 1):
        label = advice.scores.labels[one.dataset]
        name = one.dataset if label == one.dataset else f"{one.dataset} ({label})"
        q = p_value(one.q, "q").removeprefix("q = ").removeprefix("q ") if np.isfinite(one.q) else "cannot be decided"
        more = [] if own else [interval(one.below, one.above)]
        rows.append((rank, name, f"{one.effect:+.1f}", interval(one.low, one.high), q, one.n, *more))
    return table([*head, *([] if own else ["95 % prediction interval for this base model"])], rows)


def notes(advice: PublishedAdvice, model: str) -> list[str]:
    """What the ranking does not decide."""
    lines, (first, *others) = [], advice.rows
    if advice.rows and first.behind.effect == 0:  # the first of all sets is among the candidates
        tied = [one for one in others if not (one.behind_q < SIGNIFICANT)]
        if tied:
            names = ", ".join(f"{one.dataset} ({describe(one.behind, one.behind_q, unit=' points', digits=1)})" for one in tied)
            lines.append(f"Not shown to be behind {first.dataset}: {names}.")
    if advice.basis == OWN:
        lines.append(f"These are scores of {model} itself, no prediction. Intervals and q resample benchmarks, not training runs.")
    data = advice.scores
    lacking = [name for name in advice.wanted if name not in {one.dataset for one in advice.rows}]
    if lacking:
        lines.append(f"Without published scores of {model}: {', '.join(lacking)}.")
    picked = [data.sets.index(name) for name in advice.wanted]
    if 1 < len(picked) < len(data.sets) and advice.quality.enough:
        predicted, effect = advice.quality.predicted[:, picked], data.effect[:, picked]
        own, chance = (ranking.regrets(values, effect)[0] for values in (predicted, np.where(np.isfinite(effect), 0.0, np.nan)))
        lines.append(
            f"Among these {len(picked)} candidates the first place for a base model held out is {mean_of(own)} points behind the best "
            f"(a candidate at random: {mean_of(chance)}; n = {count(len(effect), 'base models')})."
        )
    return lines


def mean_of(values: np.ndarray, digits: int = 2) -> str:
    return number(float(np.nanmean(values)), digits) if np.isfinite(values).any() else "not defined"


def refusal(measured: Quality) -> str:
    """Why there is no ranking, in one sentence."""
    if not measured.enough:
        needed = f"{ranking.FEWEST_MODELS} base models and {ranking.FEWEST_SETS} training sets"
        return f"No ranking: this needs published scores of at least {needed}; there are {measured.models} and {measured.sets}."
    return (
        f"No ranking: with a base model held out, the {BASELINE} is not better than a set at random (rank correlation "
        f"{mean_of(measured.adviser.rank)}, {p_value(measured.p)}; regret {mean_of(measured.adviser.regret)} against "
        f"{mean_of(measured.chance.regret)} points; n = {count(measured.models, 'base models')})."
    )


def quality_table(measured: Quality) -> list[str]:
    """Rank correlation, regret and error of each way to predict."""
    head = ("prediction", "rank correlation", "regret, points", "best set found", "error (RMSE), points", "baseline's error minus its own")
    rows = []
    for one in (measured.baseline, *measured.others, measured.chance):
        difference = "" if one.better is None else describe(one.better, one.q, unit=" points", digits=2)
        found = "" if one is measured.chance else f"{one.top} of {measured.models}"
        rows.append((name_of(one), mean_of(one.rank), mean_of(one.regret), found, mean_of(one.error), difference))
    return table(head, rows, pad=False)


def name_of(one: Alternative) -> str:
    return f"{one.name} (baseline)" if one.name == BASELINE else one.name


def judgement(advice: PublishedAdvice, model: str, traits: dict[str, str]) -> list[str]:
    """Whether anything is better than the baseline, whether the baseline is better than chance, and whether the intervals cover."""
    measured = advice.quality
    n = f"n = {count(measured.models, 'base models')}"
    lines = [
        f"Rank correlation by shuffling: {p_value(measured.p)}. Against a set at random, the first place saves "
        f"{describe(measured.regret, np.nan, unit=' points', digits=1).replace(', q = nan', '')}. Regret is what the best set in hindsight is ahead."
    ]
    if measured.trait is None:
        lines.append(
            f"{sentence_case(' and '.join(one.name for one in measured.others if one.better is not None))}: refused, neither is shown to be better "
            f"than the {BASELINE}, so the mean over all of them serves, and nothing better than it is claimed."
        )
    else:
        value = traits.get(measured.trait, UNKNOWN)
        known = value in advice.scores.traits[measured.trait] and value != UNKNOWN
        adviser = measured.adviser
        lines.append(
            f"The mean of the same {measured.trait} is shown to be better than the {BASELINE} and is used for a base model whose {measured.trait} is "
            f"known. Chosen anew for each base model held out: rank correlation {mean_of(adviser.rank)}, regret {mean_of(adviser.regret)} points. "
            + (
                f"This base model's {measured.trait} is {value}."
                if known
                else f"This base model's is not: the mean over all is used for {model}."
            )
        )
    if measured.intervals:
        share = 100 * measured.covered / measured.intervals
        lines.append(
            f"95 % prediction intervals held {measured.covered} of {measured.intervals} effects of base models held out ({share:.1f} %; {n})."
        )
    return lines
