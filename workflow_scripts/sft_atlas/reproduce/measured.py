"""Statistics of the claims that need more than scores, from what a study measured: perplexity, weights, hidden states, likelihoods.

The claims are those of :data:`sft_atlas.published.claims.PAPER`. Two claims that scores test by an analogue are about the map of likelihoods;
where a study has the map, it decides them and the analogue no longer does.
"""

from dataclasses import replace

import numpy as np
import polars as pl

from sft_atlas.analyse import analyse_map, select
from sft_atlas.analyse.analyse_predictors import ALL, PREDICTORS
from sft_atlas.published import claims
from sft_atlas.published.claims import Claim, Statistic, of_estimate, of_paper
from sft_atlas.reproduce.own_results import Own, layer_peaks, predictors, vectors
from sft_atlas.stats.estimates import explained_share
from sft_atlas.stats.wording import METHODS, SIGNIFICANT, p_value, sentence_case

POLICY = "own"  # of the statistics of a study's own results
WEAK = 0.3  # a correlation with the gain up to which a property matters little
MIDDLE = 1 / 6  # how far from depth 0.5 the middle layers reach: the middle third
OVERLAP = 0.1  # share of the squared distance up to which methods overlap
CERTAIN = 2 / 3  # as wide as 95 % of the bootstrap peaks may spread for a peak to have a place


def all_claims(own: Own) -> list[Claim]:
    """The claims of MEASURED, each with the statistics that the study allows; without any where it has nothing for them."""
    table, peaks, checkpoints = predictors(own), layer_peaks(own), vectors(own)
    effects = analyse_map.effects(checkpoints, own.study)
    found = {
        "perplexity": perplexity(table),
        "weak-predictors": weak_predictors(table),
        "layers": middle(peaks, "gain"),
        "weights-upwards": upwards(own),
        "layer-agreement": middle(peaks, "agreement"),
        "dimension": dimension(own),
        "map-methods": map_methods(checkpoints, own.study),
        "map-size": map_effect(effects, "size", "divergence from the base model, largest minus smallest number of rows"),
    }

    def scope(key: str) -> str:
        tuned = own.tables[TABLES[key]].filter(pl.col("epoch") > 0)
        return claims.scope(tuned["model"].n_unique())

    return [of_paper(key, METHOD[key], found[key], needs=NEEDS[key], scope=scope(key), **OPTIONS.get(key, {})) for key in claims.MEASURED]


TABLES = {  # of the runs that each claim is about
    **dict.fromkeys(("perplexity", "weak-predictors"), "gains"),
    **dict.fromkeys(("layers", "weights-upwards", "layer-agreement"), "layers"),
    "dimension": "dimension",
    **dict.fromkeys(("map-methods", "map-size"), "likelihood"),
}


METHOD = {
    "perplexity": "correlation of log perplexity with the mean gain, within base models; one-sided p is half of the two-sided one of the shuffle of"
    " training sets",
    "weak-predictors": f'correlations with the gain within base models. "Little" means an interval inside ± {WEAK}',
    "layers": "depth of the largest correlation of weight change with the gain, minus 0.5, for full fine-tuning and LoRA, where that correlation"
    " is significant over all depths. The middle is the middle third, ± 0.17; the interval holds 95 % of the bootstrap peaks",
    "weights-upwards": "log ratio of the relative change, upper to lower half of the layers",
    "layer-agreement": "depth at which base models agree most, minus 0.5, where the agreement is significant over all depths; the middle as above",
    "dimension": "change of the intrinsic dimension by fine-tuning, upper minus lower half of the layers",
    "map-methods": "share of the squared distance between a base model's last checkpoints that lies between methods, minus that by chance;"
    f' "overlap" means an interval inside ± {100 * OVERLAP:.0f} %',
    "map-size": "divergence from the base model in bits per byte, largest minus smallest number of rows",
}
NEEDS = {
    "perplexity": "runs on four training sets and the sets' perplexities",
    "weak-predictors": "runs on four training sets, the sets' properties and similarities",
    "layers": "runs on four training sets, scored, with their weight changes",
    "weights-upwards": "weight changes of runs on single training sets",
    "layer-agreement": "weight changes of two base models on four training sets",
    "dimension": "hidden states of runs on single training sets and of their base models",
    "map-methods": "likelihoods of full and LoRA runs on the same training sets",
    "map-size": "likelihoods of runs on the same training sets at two sizes",
}
OPTIONS = {
    "perplexity": {"direction": -1},
    "weak-predictors": {"direction": 0, "margin": WEAK},
    "layers": {"direction": 0, "margin": MIDDLE},
    "layer-agreement": {"direction": 0, "margin": MIDDLE},
    "map-methods": {"direction": 0, "margin": 100 * OVERLAP},
}


def _sides(row: dict, effect: float) -> dict[str, float]:
    """One-sided p-values from a two-sided one, by the sign of the effect."""
    p = row["p"]
    if p is None or not np.isfinite(p):
        return {}
    near, far = p / 2, 1 - p / 2
    return {"greater": near, "less": far} if effect > 0 else {"greater": far, "less": near}


def _correlations(table: pl.DataFrame, names: tuple[str, ...], test: bool) -> list[Statistic]:
    part = table.filter(pl.col("subset") == ALL, pl.col("statistic") == "correlation", pl.col("predictor").is_in(names))
    statistics = []
    for row in part.filter(pl.col("effect").is_finite()).iter_rows(named=True):
        numbers = {key: row[key] for key in ("low", "high")} | (_sides(row, row["effect"]) if test else {})
        label = f"r of {PREDICTORS[row['predictor']][0]} and gain"
        statistics.append(Statistic(label, POLICY, "base-free", row["effect"], n=row["n"], unit=row["unit"], **numbers))
    return statistics


def perplexity(table: pl.DataFrame) -> list[Statistic]:
    """Within base models, of the response alone and of the full text."""
    return _correlations(table, ("perplexity_response", "perplexity_full"), test=True)


def weak_predictors(table: pl.DataFrame) -> list[Statistic]:
    """Length, and similarity of training set and benchmark: of meaning where an encoder measured it, else of words."""
    semantic = ("semantic_centroid", "semantic_nearest")
    similar = semantic if table["predictor"].is_in(semantic).any() else ("lexical_centroid", "lexical_nearest")
    return _correlations(table, ("tokens_response", "words", *similar), test=False)


def middle(peaks: pl.DataFrame, measure: str) -> list[Statistic]:
    """Where the curve of each method peaks, minus 0.5; without an interval where no depth is significant or the peak has no place."""
    statistics = []
    for row in peaks.filter(pl.col("measure") == measure).iter_rows(named=True):
        certain = row["p"] < SIGNIFICANT and row["rise_low"] > 0 and row["depth_high"] - row["depth_low"] <= CERTAIN
        bounds = {"low": row["depth_low"] - 0.5, "high": row["depth_high"] - 0.5} if certain else {}
        note = "" if certain else f"no certain depth: r = {row['value']:.2f}, {p_value(row['p'])} over all depths"
        size = {"n": row["n"], "unit": "runs" if measure == "gain" else "pairs of base models"}
        label = f"{sentence_case(METHODS[row['method']])}: depth of the peak ({row['depth']:.2f}) minus 0.5"
        statistics.append(Statistic(label, POLICY, "base-free", row["depth"] - 0.5, note=note, **bounds, **size))
    return statistics


def upwards(own: Own) -> list[Statistic]:
    """Upper over lower half, for each method."""
    halves = select.halves(select.layer_profile(own.tables["layers"], own.study), "relative_change")
    statistics = []
    for (method,), part in halves.group_by("method", maintain_order=True):
        ratios = part.with_columns(difference=(pl.col("upper") / pl.col("lower")).log())
        estimate = select.mean_difference(ratios, own.study["seed"])
        label = f"{sentence_case(METHODS.get(method, method))}: log ratio of the halves"
        statistics.append(of_estimate(estimate, label, POLICY, "base-free", unit=estimate.unit))
    return statistics


def dimension(own: Own) -> list[Statistic]:
    """Upper minus lower half, of the leading method."""
    halves = select.halves(select.of_leading_method(select.dimension_profile(own.tables["dimension"], own.study)[1]), "difference")
    if halves.is_empty():
        return []
    estimate = select.mean_difference(halves, own.study["seed"])
    return [of_estimate(estimate, "upper minus lower half", POLICY, "base-free", unit=estimate.unit)]


def map_methods(checkpoints: analyse_map.Vectors, study: dict) -> list[Statistic]:
    """Between methods within base models; the interval is a jackknife over training sets."""
    last = select.single(checkpoints.keys.with_row_index("_row"), study)
    both = pl.col("method").n_unique().over("model", "dataset") == 2
    last = last.filter(pl.col("method").is_in(["full", "lora"])).filter(both)
    sets = last["dataset"].unique(maintain_order=True).to_list()
    if len(sets) < 2 or not checkpoints.values.size:
        return []
    squared = checkpoints.squared_distances()

    def beyond_chance(part: pl.DataFrame) -> float:
        at, model = part["_row"].to_numpy(), part["model"].to_numpy()
        distances, groups = squared[np.ix_(at, at)], model + "/" + part["method"].to_numpy()
        of_model, of_group = (explained_share(distances, labels, np.zeros(len(at))).effect for labels in (model, groups))
        of_model = 0.0 if np.isnan(of_model) else of_model
        models = part["model"].n_unique()
        return (of_group - of_model) / (1 - of_model) - models / (part.height - models)

    effect = beyond_chance(last)
    left = np.array([beyond_chance(last.filter(pl.col("dataset") != name)) for name in sets]) if len(sets) > 2 else np.array([])
    bounds = {}
    if left.size and np.isfinite(left).all():
        half = 1.959964 * np.sqrt((len(sets) - 1) / len(sets) * np.sum((left - left.mean()) ** 2))
        bounds = {"low": 100 * (effect - half), "high": 100 * (effect + half)}
    size = {"n": len(sets), "unit": "training sets", "effect_unit": " %", "digits": 1}
    return [Statistic("between methods, beyond chance", POLICY, "base-free", 100 * effect, **bounds, **size)]


def map_effect(effects: pl.DataFrame, name: str, label: str) -> list[Statistic]:
    """A row of ``map_effects`` as a statistic."""
    statistics = []
    for row in effects.filter(pl.col("effect") == name, pl.col("value").is_finite()).iter_rows(named=True):
        numbers = {"low": _known(row["low"]), "high": _known(row["high"]), "least": 2.0 ** -row["n"], **_sides(row, row["value"])}
        unit = {"n": row["n"], "unit": row["unit"], "effect_unit": " bits per byte", "digits": 3}
        statistics.append(Statistic(label, POLICY, "base-free", row["value"], **numbers, **unit))
    return statistics


def _known(value: float | None) -> float:
    return np.nan if value is None else value


def on_the_map(tested: list[Claim], own: Own) -> list[Claim]:
    """The claims with the two that are about the map of likelihoods tested on it, where the study has one."""
    checkpoints = vectors(own)
    share, _ = analyse_map.base_share(checkpoints, own.study)
    spread = map_effect(
        analyse_map.effects(checkpoints, own.study), "spread", "on the map: distance to the common centre, last minus first epoch"
    )
    of_map: dict[str, list[Statistic]] = {"epochs-converge": spread}
    if np.isfinite(share.effect):
        bounds = {"low": 100 * (share.low - 0.5), "high": 100 * (share.high - 0.5)}
        size = {"n": share.n, "unit": "checkpoints", "effect_unit": " % of squared distance", "digits": 0}
        label = "on the map: share between base models minus one half"
        of_map["base-decides"] = [Statistic(label, POLICY, "base-free", 100 * (share.effect - 0.5), **bounds, **size)]
    return [_decided_by(claim, of_map.get(claim.key, [])) for claim in tested]


def _decided_by(claim: Claim, statistics: list[Statistic]) -> Claim:
    if not statistics:
        return claim
    return replace(claim, statistics=[*statistics, *(replace(each, decides=False) for each in claim.statistics)])
