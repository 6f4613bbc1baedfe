"""The paper's claims and their statistics: claims that scores can test, claims about the table itself, claims that need more than scores.

``PAPER`` is the one list of claims; :mod:`sft_atlas.reproduce` tests the same ones on the results of a study. Every comparison on which a claim rests is a statistic of its own. Those whose benchmarks or training sets the table lacks are left out, and
so are their names in the description of the test.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.published import POLICIES, analyse_published, columns, frames, overall
from sft_atlas.stats.estimates import FEWEST_CLUSTERS, Estimate, interval_over_clusters, paired_difference
from sft_atlas.stats.wording import SIGNIFICANT, count, count_span
from sft_atlas.study import paper
from sft_atlas.study.runs import WITHOUT

NOTES = "second-hand notes on sections 3 and 4"
PAPER: dict[str, tuple[str, str]] = {  # key -> the claim, where it is stated (the abstract is quoted)
    "synergies": (
        "Some synergies between training sets and benchmarks hold across all base models, others vary",
        'abstract: "some training-task synergies persist across all models while others vary substantially"',
    ),
    "breadth": ("Some training sets help many benchmarks, others few or none", f"the paper; {NOTES}"),
    "code-mathematics": ("Code data helps mathematics", f"the paper; {NOTES}"),
    "family": ("Models of the same family respond alike", NOTES),
    "language": ("The pre-training language matters little", NOTES),
    "components": ("About 5 principal components explain over 90 % of the changes", NOTES),
    "lora-qa": ("LoRA is slightly better on open questions", f"the paper; {NOTES}"),
    "full-mathematics": ("Full fine-tuning is slightly better on mathematics and knowledge", f"the paper; {NOTES}"),
    "size": ("20,000 rows bring no consistent gain over 1,000", f"the paper; {NOTES}"),
    "languages": ("What helps on MMLU helps on its Chinese and Japanese versions", f"the paper; {NOTES}"),
    "base-decides": ("The base model decides where a tuned model ends up", f"the paper, of its map of likelihoods; {NOTES}"),
    "epochs-converge": ("Over the epochs, runs on different training sets converge", f"the paper, of its map of likelihoods; {NOTES}"),
    "checkpoints": ("1,059 checkpoints of 12 base models", "appendix D"),
    "leave-one-out": ("Leave-one-out was run on three base models", "appendix D"),
    "mt-bench": ("MT-Bench with 80 x 2 turns", "table 3"),
    "perplexity": (
        "The lower the training set's perplexity under the base model, the larger the gain",
        'abstract: "perplexity consistently predicts SFT effectiveness--often surpassing superficial similarity between trained data and benchmark"',
    ),
    "weak-predictors": ("Length and semantic similarity of the training set matter little", NOTES),
    "layers": (
        "Weight changes in the middle layers correlate with gains",
        f'abstract: "mid-layer weight changes correlate most strongly with performance gains"; at depth about 0.6 ({NOTES})',
    ),
    "weights-upwards": ("Weights change more in the upper layers than in the lower ones", NOTES),
    "layer-agreement": ("Base models agree most in the middle layers on which training sets change the weights more", NOTES),
    "dimension": ("The intrinsic dimension rises from mid-depth on", f"{NOTES}; from depth about 0.6"),
    "map-methods": ("LoRA and full fine-tuning overlap on the map of likelihoods", f"the paper; {NOTES}"),
    "map-size": ("20,000 rows lie slightly further out on the map of likelihoods than 1,000", f"the paper; {NOTES}"),
}
MEASURED = {  # claims that need more than scores: what of
    "perplexity": "the training sets' perplexities",
    "weak-predictors": "the training sets",
    "layers": "the weights",
    "weights-upwards": "the weights",
    "layer-agreement": "the weights",
    "dimension": "hidden states",
    "map-methods": "likelihoods",
    "map-size": "likelihoods",
}
READINGS = ("base-free", "gain")
VALUE = {"base-free": "centred", "gain": "gain"}
MATHEMATICS, KNOWLEDGE = ("math-0", "gsm8k-0", "gsm8k-4"), ("mmlu-0", "mmlu-5", "boolq-0")
CODE_SETS, MATHEMATICAL_SETS = ("code_alpaca", "magicoder"), ("openmath", "math")
OTHER_SETS = {  # what code data is compared with
    "chat sets": ("alpaca_cleaned", "lima", "ultrachat"),
    "FLAN sets": ("flan_knowledge", "flan_reasoning", "flan_comprehension"),
}
OPEN_QUESTIONS = {
    "NaturalQuestions": ("nq-0", "nq-1", "nq-5", "nq-25"),
    "TruthfulQA": ("truthfulqa-0",),
    "MT-Bench": ("mtbench-0",),
    "AlpacaEval": ("alpacaeval-0",),
}
READ = ("gains", "consistency", "similarity_tests", "components", "method_pairs", "size", "trajectories", "transfer")  # tables of the tests
VARIABLES = {"benchmark": "benchmarks", "dataset": "training sets", "model": "base models"}
POINTS = " points"
PERMUTATIONS = 9999


@dataclass(frozen=True)
class Statistic:
    """One number of a claim under a policy and a reading (base-free or gain); ``decides``: whether the verdict depends on it.

    ``greater`` and ``less`` are the one-sided p-values for an effect above and below 0, NaN where the test has no such side.
    ``negligible``: of the test that the effect is below the claim's margin. ``least`` is the smallest p that n units can give. ``smallest``
    and ``largest``: ends of the units' own values, which units too few for an interval have instead.
    """

    label: str
    policy: str
    reading: str
    effect: float
    low: float = np.nan
    high: float = np.nan
    greater: float = np.nan
    less: float = np.nan
    negligible: float = np.nan
    least: float = 0.0
    n: int = 0
    unit: str = "base models"
    effect_unit: str = ""
    digits: int = 2
    signed: bool = True
    decides: bool = True
    smallest: float = np.nan
    largest: float = np.nan
    note: str = ""  # instead of an interval


def of_row(row: dict, label: str, policy: str, reading: str, scale: float = 1.0, **options: object) -> Statistic:
    """A statistic from a mapping with effect, low, high, p_greater, p_less and n: a row of a table, or ``vars`` of an estimate."""
    numbers = {key: scale * row[key] for key in ("effect", "low", "high", "smallest", "largest") if key in row}
    sides = {"greater": row["p_greater"], "less": row["p_less"]}
    return Statistic(label, policy, reading, n=row["n"], **numbers, **sides, **options)


def of_estimate(estimate: Estimate, label: str, policy: str, reading: str, **options: object) -> Statistic:
    """A statistic of a sign-flip test over base models."""
    return of_row(vars(estimate), label, policy, reading, least=2.0 ** -max(estimate.n, 0), **options)


def of_count(number: float, label: str, policy: str, reading: str, **options: object) -> Statistic:
    """A count or share, which has no sign, no decimals and no test."""
    return Statistic(label, policy, reading, number, **{"digits": 0, "signed": False, "decides": False, **options})


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, how it is tested, and the statistics that decide its verdict."""

    key: str
    text: str
    method: str  # for claims without statistics: the evidence, or what is needed
    statistics: list[Statistic] = field(default_factory=list)
    direction: int = 1  # predicted sign of the effect; 0: no difference, or none above the margin
    margin: float = np.nan  # for a claim of no difference: the largest negligible effect
    one_sided: bool = False  # with a margin: only effects above it speak against the claim
    note: str = ""
    fixed: str = ""  # a verdict that needs no test
    scope: str = ""  # what the verdict holds for, where that is less than base models at large
    needs: str = ""  # what the table must have for the claim to be tested


def of_paper(key: str, method: str, statistics: Iterable[Statistic] = (), **options: object) -> Claim:
    """The claim ``key`` of PAPER with the statistics that test it."""
    return Claim(key, PAPER[key][0], method, list(statistics), **options)


def labels(tasks) -> str:
    """Benchmarks with their numbers of shots, such as ``MATH and GSM8K (0 and 4 shots)``."""
    shots: dict[str, list[int]] = {}
    for key in tasks:
        entry = columns.task(key)
        shots.setdefault(entry.label.removesuffix(f" {entry.shots}-shot"), []).append(entry.shots)
    return _and(f"{name} ({_and(map(str, numbers))} shots)" if len(numbers) > 1 else name for name, numbers in shots.items())


def _and(names) -> str:
    *most, last = list(names) or ["none"]
    return f"{', '.join(most)} and {last}" if most else last


def present(tables: dict[str, pl.DataFrame], key: str, names) -> tuple[str, ...]:
    """Those of some benchmarks or training sets that the table has."""
    have = set(tables["gains"].drop_nulls("score")[key])
    return tuple(name for name in names if name in have)


def synergies(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    statistics = []
    for reading, value in VALUE.items():
        part = tables["consistency"].filter(pl.col("value") == value)
        decidable = part.filter(pl.col("q").is_not_nan())
        if decidable.height:
            share = 100 * float((decidable["q"] < SIGNIFICANT).mean())
            note = f"n = {count_span(decidable['n'], 'base models')} a cell"
            options = {"n": decidable.height, "unit": f"of {part.height} cells", "effect_unit": " %", "note": note}
            statistics.append(of_count(share, "cells with q < 0.05", policy, reading, **options))
    concordance = overall.concordance(select.of_leading_method(tables["gains"]), frames.SEED)
    return [*statistics, _one_sided(concordance, "rank correlation between models", policy)]


def _one_sided(estimate: Estimate, label: str, policy: str) -> Statistic:
    """A statistic whose only test is of an effect above 0."""
    return of_row(vars(estimate) | {"p_greater": estimate.p}, label, policy, "base-free")


def breadth(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    statistics = []
    for reading, value in VALUE.items():
        part = tables["consistency"].filter(pl.col("value") == value, pl.col("q").is_not_nan())
        helped = part.group_by("dataset", maintain_order=True).agg(
            ((pl.col("q") < SIGNIFICANT) & (pl.col("effect") > 0)).sum().alias("helped"), pl.len().alias("columns")
        )
        helped = helped.sort("helped", descending=True, maintain_order=True)
        if helped.height > 1:
            better = "better than the mean set" if reading == "base-free" else "better than the base model"
            for label, (name, number, cells) in (("most", helped.row(0)), ("fewest", helped.row(-1))):
                label = f"{label} columns {better}: {paper.DATASETS.get(name, (name,))[0]}"
                statistics.append(of_count(float(number), label, policy, reading, n=cells, unit="columns"))
        if reading == "base-free":
            statistics += _spread_of_sets(policy, tables["gains"])
    return statistics


def _spread_of_sets(policy: str, cells: pl.DataFrame) -> list[Statistic]:
    """SD over training sets of their mean effect, each benchmark at unit spread; p shuffles the sets within models."""
    full = select.of_leading_method(cells)
    spread = pl.col("centred").std().over("benchmark")
    scaled = full.with_columns(pl.when(spread > 0).then(pl.col("centred") / spread).alias("z"))
    wide = scaled.group_by("model", "dataset", maintain_order=True).agg(pl.col("z").mean()).pivot("dataset", index="model", values="z")
    values = wide.drop("model").cast(pl.Float64).to_numpy()
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < 2 or values.shape[1] < 3:
        return []
    rng = np.random.default_rng(frames.SEED)
    effect = float(values.mean(axis=0).std(ddof=1))
    null = rng.permuted(np.broadcast_to(values, (PERMUTATIONS, *values.shape)), axis=2).mean(axis=1).std(axis=1, ddof=1)
    drawn = values[rng.integers(len(values), size=(PERMUTATIONS, len(values)))].mean(axis=1).std(axis=1, ddof=1)
    low, high = interval_over_clusters(drawn, len(values))
    p = float((1 + (null >= effect - 1e-12).sum()) / (1 + len(null)))
    return [Statistic("SD of the sets' mean effects", policy, "base-free", effect, low, high, p, n=len(values), signed=False)]


def code_for_mathematics(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    """Each code set against each group of other sets, and against the base model."""
    full = select.of_leading_method(tables["gains"]).filter(pl.col("benchmark").is_in(MATHEMATICS)).drop_nulls("score")
    # Sets of a base model are compared on the benchmarks that all of them have.
    sets = pl.col("dataset").n_unique()
    full = full.filter(sets.over("model", "benchmark") == sets.over("model"))
    means = full.group_by("model", "dataset", maintain_order=True).agg(pl.col("score").mean(), pl.col("gain").mean())
    statistics = []
    for name in present(tables, "dataset", CODE_SETS):
        own, label = means.filter(pl.col("dataset") == name), paper.DATASETS[name][0]
        for group, names in OTHER_SETS.items():
            others = means.filter(pl.col("dataset").is_in(names)).group_by("model", maintain_order=True).agg(pl.col("score").mean())
            pairs = own.join(others, on="model", suffix="_others", maintain_order="left")
            pairs = pairs.select("model", (pl.col("score") - pl.col("score_others")).alias("difference"))
            if pairs["difference"].count():
                statistics.append(_mean_of(pairs, f"{label} minus {group}", policy, "base-free", digits=1))
        gain = own.select("model", pl.col("gain").alias("difference"))
        if gain["difference"].count():
            statistics.append(_mean_of(gain, f"{label} minus the base model", policy, "gain", digits=1))
    return statistics


def _mean_of(frame: pl.DataFrame, label: str, policy: str, reading: str, effect_unit: str = POINTS, **options: object) -> Statistic:
    """Mean over base models of the column ``difference``."""
    estimate = paired_difference(frame["difference"].cast(pl.Float64).to_numpy(), frame["model"].to_numpy(), frames.SEED)
    return of_estimate(estimate, label, policy, reading, effect_unit=effect_unit, **options)


def similarity(policy: str, tables: dict[str, pl.DataFrame], of: str) -> list[Statistic]:
    statistics = []
    for reading, value in VALUE.items():
        part = tables["similarity_tests"].filter(pl.col("value") == value, pl.col("question") == f"same {of} - other {of}")
        for row in part.iter_rows(named=True):
            unit = f"pairs of one {of} among {count(row['models'], 'base models')}"
            statistics.append(of_row(row, "difference of mean r", policy, reading, unit=unit))
    return statistics


def components(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    statistics = []
    for reading, value in VALUE.items():
        for row in tables["components"].filter(pl.col("value") == value, pl.col("component") == 1).iter_rows(named=True):
            label = f"components, {VARIABLES[row['variables']]} as variables"
            note = f"{row['needed_low']:.0f} to {row['needed_high']:.0f} by chance"
            statistics.append(of_count(float(row["needed"]), label, policy, reading, n=row["n"], unit="variables", note=note))
    return statistics


def components_verdict(table: pl.DataFrame) -> str:
    """Judged where unrelated variables would need more than five components: with fewer variables or observations any data need few."""
    needed = table.filter(pl.col("component") == 1, pl.col("needed_low") > 5)["needed"]
    few = needed <= 5
    return "not testable here" if needed.is_empty() else "supported" if few.all() else "mixed" if few.any() else "contradicted"


def lora_minus_full(policy: str, tables: dict[str, pl.DataFrame], groups: dict[str, tuple[str, ...]]) -> list[Statistic]:
    """Per group of benchmarks, after single sets and after the merged set: mean over base models that have all of the group's benchmarks."""
    statistics = []
    for group, names in groups.items():
        names = present(tables, "benchmark", names)
        for data in analyse_published.DATA:
            pairs = tables["method_pairs"].filter(pl.col("data") == data, pl.col("benchmark").is_in(names)).drop_nulls("difference")
            means = pairs.group_by("model", "dataset", maintain_order=True).agg(pl.col("difference").mean(), pl.len().alias("size"))
            means = means.filter(pl.col("size") == len(names))
            if not means.height:
                continue
            judged = all(columns.task(name).scale == columns.JUDGE for name in names)
            estimate = paired_difference(means["difference"].to_numpy(), means["model"].to_numpy(), frames.SEED)
            options = {"effect_unit": " on the scale of 1 to 10" if judged else POINTS, "scale": 9 / 100 if judged else 1.0}
            statistics.append(of_estimate(estimate, f"{group}, {data}", policy, "base-free", **options))
    return statistics


def reversals(tables: dict[str, pl.DataFrame], policy: str) -> str:
    """The groups of open questions on which the merged set turns LoRA against full fine-tuning around, in a sentence."""
    statistics = {s.label: s for s in lora_minus_full(policy, tables, OPEN_QUESTIONS)}
    pairs = {group: [statistics.get(f"{group}, {data}") for data in analyse_published.DATA] for group in OPEN_QUESTIONS}
    turned = [group for group, (one, all_) in pairs.items() if one and all_ and (one.low > 0 > all_.high or one.high < 0 < all_.low)]
    note = "The difference between methods needs no base score, so there is no separate statistic on gains."
    return f"The merged set reverses the difference on {_and(turned)}. {note}" if turned else note


def size(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    part = tables["size"].filter(pl.col("epochs") == "last", pl.col("benchmark") == "all", pl.col("n") > 0)
    label = "largest minus smallest number of rows"
    return [
        of_row(
            row, label, policy, "base-free", unit=row["unit"], effect_unit=POINTS, negligible=row["p_negligible"], least=2.0 ** -row["n"]
        )
        for row in part.iter_rows(named=True)
    ]


def scope(models: int) -> str:
    """What a test holds for that has too few base models to be over them."""
    these = "this base model" if models == 1 else f"these {models} base models"
    return f"for {these} only" if models < FEWEST_CLUSTERS else ""


def scope_of_size(table: pl.DataFrame) -> str:
    part = table.filter(pl.col("epochs") == "last", pl.col("benchmark") == "all", pl.col("unit") == "training sets")
    return scope(part["models"][0]) if part.height and part["n"][0] else ""


def transfer(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    statistics = []
    if not present(tables, "benchmark", ("mmlu-0", "mmlu-5")):
        return []
    for row in tables["transfer"].filter(pl.col("n") > 0).iter_rows(named=True):
        method = {"full": "full", "lora": "LoRA"}.get(row["method"], row["method"])
        label = f"{method}: {columns.task(row['first']).label} and {columns.task(row['second']).label}"
        unit = f"base model{'' if row['models'] == 1 else 's'} ({row['n']} runs)"
        statistics.append(of_row(row | {"n": row["models"]}, label, policy, "base-free", unit=unit))
        if row["gain_n"] and np.isfinite(row["gain_r"]):
            statistics.append(Statistic(label, policy, "gain", row["gain_r"], n=row["gain_n"], unit="runs", decides=False))
    return statistics


def share_of_model(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    share = vars(overall.model_minus_set(tables["gains"], frames.SEED))
    options = {"effect_unit": " % of variance", "digits": 0, "scale": 100}
    return [of_row(share, "model minus training set", policy, "base-free", **options)]


def convergence(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    part = tables["trajectories"].filter(pl.col("kind") == "single", pl.col("spread") > 0)
    part = part.filter(pl.col("rows") == pl.col("rows").min()).sort("epoch")
    ends = part.group_by("model", "benchmark", maintain_order=True).agg(
        (pl.col("spread").last() / pl.col("spread").first()).log().alias("ratio"), pl.col("epoch").first().alias("first"), pl.len()
    )
    means = ends.filter(pl.col("first") == 1, pl.col("len") > 1).group_by("model", maintain_order=True)
    means = means.agg(pl.col("ratio").mean().alias("difference"))
    return [_mean_of(means, "log ratio of spreads", policy, "base-free", effect_unit="")] if means.height else []


def all_claims(tables: dict[str, dict[str, pl.DataFrame]], scores: pl.DataFrame) -> list[Claim]:
    """All claims in the order of the page; ``tables`` by policy and name, ``scores`` tidy and as published."""
    return [*tested(tables), *described(scores), *untestable()]


def tested(tables: dict[str, dict[str, pl.DataFrame]], policies: Sequence[str] = POLICIES) -> list[Claim]:
    """Claims with statistics; ``tables`` by policy and name (READ). The last of the policies decides."""
    repaired = tables[policies[-1]]
    here = scope(repaired["gains"].drop_nulls("score")["model"].n_unique())

    def under_both(function, *arguments: object) -> list[Statistic]:
        return [statistic for policy in policies for statistic in function(policy, tables[policy], *arguments)]

    def listed(tasks) -> str:
        return labels(present(tables[policies[0]], "benchmark", tasks))

    code = _and(paper.DATASETS[name][0] for name in present(tables[policies[0]], "dataset", CODE_SETS))
    others = {
        group: ", ".join(paper.DATASETS[name][0] for name in present(tables[policies[0]], "dataset", sets))
        for group, sets in OTHER_SETS.items()
    }
    against = " and the ".join(f"{group} ({names})" for group, names in others.items() if names)
    questions = listed(task for tasks in OPEN_QUESTIONS.values() for task in tasks)
    pairs = "LoRA minus full fine-tuning, after single training sets and after the merged set; base models that lack a benchmark of a group are left out"
    return [
        of_paper(
            "synergies",
            "share of training set x benchmark cells with a significant effect over base models (q < 0.05; about 5 % if there were no effect)"
            " and mean Spearman correlation between two models' rankings of the training sets, over benchmarks (variants of a benchmark"
            " averaged). p of the correlation shuffles each model's training sets, in the same way on all benchmarks. Cells of fewer than six"
            " base models cannot reach p < 0.05; they are left out, also of the correction. The correlation decides",
            under_both(synergies),
            needs="two base models on the same three training sets",
            scope=here,
        ),
        of_paper(
            "breadth",
            "number of benchmark columns on which a training set is better than the mean of all sets (base-free) or than the base model (gain)"
            " with q < 0.05, for the set with the most and the set with the fewest, of the columns with six or more base models. The SD of the"
            " sets' mean effects decides; its p shuffles the sets within each model",
            under_both(breadth),
            needs="two base models on the same three training sets",
            scope=here,
            note="The SD shows that sets differ; whether one helps, against the base model, is in the counts of gains.",
        ),
        of_paper(
            "code-mathematics",
            f"mean over {listed(MATHEMATICS)}. Base-free: {code}, each against the {against}. Gain: the same sets against the base model",
            under_both(code_for_mathematics),
            needs="runs on CodeAlpaca or Magicoder and on chat or FLAN sets, scored on MATH or GSM8K",
            scope=here,
        ),
        of_paper(
            "family",
            "mean correlation between two models' effects over training sets x benchmarks, pairs of one family minus pairs of different"
            " families. p shuffles the base models' families",
            under_both(similarity, "family"),
            needs="base models of known families, two of them of one family",
            scope=here,
        ),
        of_paper(
            "language",
            "mean correlation between two models' effects over training sets x benchmarks, pairs of one pre-training language minus pairs of"
            ' different languages. "Little" means an interval inside ± 0.15',
            under_both(similarity, "language"),
            needs="base models of known pre-training languages, two of them of one language",
            scope=here,
            direction=0,
            margin=0.15,
        ),
        of_paper(
            "components",
            "number of components that explain 90 % of the variance, with benchmarks, training sets or base models as variables (the paper does"
            " not say which), beside the number that unrelated variables need (each variable shuffled independently); n counts the variables",
            under_both(components),
            needs="enough runs, training sets and benchmarks that unrelated ones would need more than five components",
            scope=here,
            fixed=components_verdict(repaired["components"]),
            note="Supported means 5 or fewer for every choice of variables, contradicted for none. The column `beyond` of components.parquet"
            " counts the components that exceed chance.",
        ),
        of_paper(
            "lora-qa",
            f"{pairs}. Open questions: {questions}",
            under_both(lora_minus_full, OPEN_QUESTIONS),
            needs="full and LoRA runs on the same training sets, scored on NaturalQuestions, TruthfulQA, MT-Bench or AlpacaEval",
            scope=here,
            note=reversals(repaired, policies[-1]),
        ),
        of_paper(
            "full-mathematics",
            f"{pairs}. Mathematics: {listed(MATHEMATICS)}; knowledge: {listed(KNOWLEDGE)}",
            under_both(lora_minus_full, {"mathematics": MATHEMATICS, "knowledge": KNOWLEDGE}),
            needs="full and LoRA runs on the same training sets, scored on MATH, GSM8K, MMLU or BoolQ",
            scope=here,
            direction=-1,
        ),
        of_paper(
            "size",
            "largest minus smallest number of rows at the last epoch that both keep, mean over benchmarks. One-sided: the claim is supported if"
            f" a gain of {analyse_published.NEGLIGIBLE:g} points or more is ruled out, contradicted if there is a gain",
            under_both(size),
            needs="runs on the same training sets at two sizes",
            direction=0,
            margin=analyse_published.NEGLIGIBLE,
            one_sided=True,
            scope=scope_of_size(repaired["size"]),
            note="Where n counts training sets, the base models are too few to be units.",
        ),
        of_paper(
            "languages",
            "correlation over training sets within base models, for full fine-tuning and for LoRA. p shuffles training sets, in the same way in"
            " all base models; the interval resamples base models and training sets. Gain: correlation of gains over all models and sets,"
            " without a test",
            under_both(transfer),
            needs="MMLU and its Chinese or Japanese version, on four training sets",
            scope=here,
        ),
        of_paper(
            "base-decides",
            "share of the variance of scores due to the base model minus the share due to the training set, mean over benchmarks (variants"
            " averaged). The interval, which resamples base models and training sets, decides. The paper's claim is about its map of"
            " likelihoods; this is the analogue for scores",
            under_both(share_of_model),
            needs="two base models with full and LoRA runs on the same training sets",
            scope=here,
        ),
        of_paper(
            "epochs-converge",
            "log ratio of the SD over training sets, last to first epoch (fewest rows), mean over benchmarks per model. The paper's claim is"
            " about its map of likelihoods; this is the analogue for scores",
            under_both(convergence),
            needs="runs on two training sets that keep the first epoch and another",
            scope=here,
            direction=-1,
        ),
    ]


# ---------------------------------------------------------------- claims about the table itself


def described(scores: pl.DataFrame) -> list[Claim]:
    """Claims about what was measured, compared with the table; empty unless it holds at least six of the paper's models."""
    models = set(scores["model"])
    if len(models & set(paper.KEYS)) < 6:
        return []
    tuned = scores.filter(pl.col("epoch") > 0).select("row").n_unique()
    without = scores.filter(pl.col("dataset").str.starts_with(WITHOUT))["model"].n_unique()
    categories = scores.filter(pl.col("benchmark").str.starts_with("mtbench-"), pl.col("score").is_not_null())["score"]
    tenths = float(((categories * 10 - (categories * 10).round()).abs() < 1e-6).mean()) if len(categories) else np.nan
    claims = [
        of_paper(
            "checkpoints",
            f"the table has {tuned:,} checkpoints of {len(models)} base models",
            fixed="supported" if tuned >= 1059 else "not testable here",
            note="Fewer scores were released; they do not show what was trained.",
        ),
        of_paper(
            "leave-one-out",
            f"the table has leave-one-out runs of {count(without, 'base models')}",
            fixed="supported" if without >= 3 else "not testable here",
        ),
        of_paper(
            "mt-bench",
            f"{100 * tenths:.0f} % of category means are multiples of 0.1, so there is one judgement for each of 10 questions, not one for each"
            " of 20 turns",
            fixed="undecided" if tenths > 0.8 else "supported",
            note="The judge may have rated one turn, or both turns together." if tenths > 0.8 else "",
        ),
    ]
    return claims if len(categories) else claims[:2]


def untestable() -> list[Claim]:
    """Claims that need more than scores; a study with this workflow measures what they need."""
    return [of_paper(key, f"needs {what}", fixed="not testable here") for key, what in MEASURED.items()]
