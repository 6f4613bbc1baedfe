"""The paper's claims and their statistics: claims that scores can test, claims about the table itself, claims that need more than scores."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.published import POLICIES, analyse_published, columns, frames, overall
from sft_atlas.stats.estimates import paired_difference
from sft_atlas.stats.wording import SIGNIFICANT
from sft_atlas.study.runs import WITHOUT

READINGS = ("base-free", "gain")
VALUE = {"base-free": "centred", "gain": "gain"}
MATHEMATICS, CODE = ("math-0", "gsm8k-0", "gsm8k-4"), ("code_alpaca", "magicoder")
MATHEMATICAL_SETS = ("openmath", "math")
OPEN_QA = ("nq-0", "nq-1", "nq-5", "nq-25", "truthfulqa-0")
MATHEMATICS_AND_KNOWLEDGE = (*MATHEMATICS, "mmlu-0", "mmlu-5", "boolq-0")
VARIABLES = {"benchmark": "benchmarks", "dataset": "training sets", "model": "base models"}
POINTS = " points"


@dataclass(frozen=True)
class Statistic:
    """One number of a claim under a policy and a reading (base-free or gain); ``decides``: whether the verdict depends on it."""

    label: str
    policy: str
    reading: str
    effect: float
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    n: int = 0
    unit: str = "base models"
    effect_unit: str = ""
    digits: int = 2
    signed: bool = True
    decides: bool = True

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def of_row(row: dict, label: str, policy: str, reading: str, **options: object) -> Statistic:
    """A statistic from a mapping with effect, low, high, p and n: a row of a table, or ``vars`` of an estimate."""
    return Statistic(label, policy, reading, row["effect"], row["low"], row["high"], row["p"], row["n"], **options)


def of_count(number: float, label: str, policy: str, reading: str, **options: object) -> Statistic:
    """A count or share, which has no sign, no decimals and no test."""
    return Statistic(label, policy, reading, number, **{"digits": 0, "signed": False, **options})


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, how it is tested, and the statistics that decide its verdict."""

    key: str
    text: str
    method: str  # for claims without statistics: the evidence, or what is needed
    statistics: list[Statistic] = field(default_factory=list)
    direction: int = 1  # predicted sign of the effect; 0: no difference
    margin: float = np.nan  # for a claim of no difference: the largest negligible effect
    note: str = ""
    fixed: str = ""  # a verdict that needs no test


def synergies(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    statistics = []
    for reading, value in VALUE.items():
        part = tables["consistency"].filter(pl.col("value") == value, pl.col("n") > 5)
        if part.height:
            share = 100 * float((part["q"] < SIGNIFICANT).mean())
            options = {"n": part.height, "unit": "cells", "effect_unit": " %", "decides": False}
            statistics.append(of_count(share, "cells with q < 0.05", policy, reading, **options))
    concordance = overall.concordance(select.of_leading_method(tables["gains"]), frames.SEED)
    return [*statistics, of_row(vars(concordance), "rank correlation between models", policy, "base-free")]


def breadth(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    statistics = []
    for reading, value in VALUE.items():
        part = tables["consistency"].filter(pl.col("value") == value)
        helped = part.group_by("dataset", maintain_order=True).agg(
            ((pl.col("q") < SIGNIFICANT) & (pl.col("effect") > 0)).sum().alias("helped")
        )
        helped = helped.sort("helped", descending=True, maintain_order=True)
        if helped.height < 2:
            continue
        for label, (name, number) in (("most", helped.row(0)), ("fewest", helped.row(-1))):
            label = f"{label}: {columns.DATASETS.get(name, (name,))[0]}"
            options = {"n": part["benchmark"].n_unique(), "unit": "columns", "decides": False}
            statistics.append(of_count(float(number), label, policy, reading, **options))
        if reading == "base-free":
            statistics.append(_spread_of_sets(policy, tables["gains"]))
    return statistics


def _spread_of_sets(policy: str, cells: pl.DataFrame) -> Statistic:
    """SD over training sets of their mean effect, each benchmark at unit spread; p shuffles the sets within models."""
    full = select.of_leading_method(cells)
    scaled = full.with_columns((pl.col("centred") / pl.col("centred").std().over("benchmark")).alias("z"))
    wide = scaled.group_by("model", "dataset").agg(pl.col("z").mean()).pivot("dataset", index="model", values="z").drop("model").to_numpy()
    wide = wide[np.isfinite(wide).all(axis=1)]
    rng = np.random.default_rng(frames.SEED)
    effect = float(wide.mean(axis=0).std(ddof=1))
    null = rng.permuted(np.broadcast_to(wide, (9999, *wide.shape)), axis=2).mean(axis=1).std(axis=1, ddof=1)
    drawn = wide[rng.integers(len(wide), size=(9999, len(wide)))].mean(axis=1).std(axis=1, ddof=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    p = float((1 + (null >= effect - 1e-12).sum()) / (1 + len(null)))
    return Statistic("SD of the sets' mean effects", policy, "base-free", effect, float(low), float(high), p, len(wide), signed=False)


def code_for_mathematics(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    full = select.of_leading_method(tables["gains"])
    full = full.filter(pl.col("benchmark").is_in(MATHEMATICS), ~pl.col("dataset").is_in(MATHEMATICAL_SETS))
    code = pl.col("dataset").is_in(CODE)
    by_set = full.group_by("model", "dataset", maintain_order=True).agg(pl.col("score").mean(), pl.col("gain").mean())
    difference = (pl.col("score").filter(code).mean() - pl.col("score").filter(~code).mean()).alias("difference")
    gain = by_set.filter(code).group_by("model", maintain_order=True).agg(pl.col("gain").mean().alias("difference"))
    return [
        _mean_of(by_set.group_by("model", maintain_order=True).agg(difference), "code minus other sets", policy, "base-free", digits=1),
        _mean_of(gain, "gain of code sets", policy, "gain", digits=1),
    ]


def _mean_of(frame: pl.DataFrame, label: str, policy: str, reading: str, effect_unit: str = POINTS, **options: object) -> Statistic:
    """Mean over base models of the column ``difference``."""
    estimate = paired_difference(frame["difference"].cast(pl.Float64).to_numpy(), frame["model"].to_numpy(), frames.SEED)
    return of_row(vars(estimate), label, policy, reading, effect_unit=effect_unit, **options)


def similarity(policy: str, tables: dict[str, pl.DataFrame], of: str) -> list[Statistic]:
    statistics = []
    for reading, value in VALUE.items():
        part = tables["similarity_tests"].filter(pl.col("value") == value, pl.col("question") == f"same {of} - other {of}")
        statistics += [
            of_row(row, "difference of mean r", policy, reading, unit=f"pairs of one {of}") for row in part.iter_rows(named=True)
        ]
    return statistics


def components(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    statistics = []
    for reading, value in VALUE.items():
        for row in tables["components"].filter(pl.col("value") == value, pl.col("component") == 1).iter_rows(named=True):
            label = f"components, {VARIABLES[row['variables']]} as variables"
            options = {"low": row["needed_low"], "high": row["needed_high"], "n": row["n"], "unit": "variables"}
            statistics.append(of_count(float(row["needed"]), label, policy, reading, **options))
    return statistics


def components_verdict(table: pl.DataFrame) -> str:
    needed = table.filter(pl.col("component") == 1)["needed"]
    few = needed <= 5
    return "not testable here" if needed.is_empty() else "supported" if few.all() else "mixed" if few.any() else "contradicted"


def lora_minus_full(policy: str, tables: dict[str, pl.DataFrame], benchmarks: tuple[str, ...]) -> list[Statistic]:
    pairs = analyse_published.method_differences(tables["gains"].filter(pl.col("benchmark").is_in(benchmarks))).drop_nulls("difference")
    means = pairs.group_by("model", "dataset", maintain_order=True).agg(pl.col("difference").mean())
    return [_mean_of(means, "LoRA minus full", policy, "base-free")]


def size(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    part = tables["size"].filter(pl.col("epochs") == "last", pl.col("benchmark") == "all")
    rows = part.to_dicts() or [{"effect": np.nan, "low": np.nan, "high": np.nan, "p": np.nan, "n": 0, "unit": "base models"}]
    return [of_row(row, "20,000 minus 1,000 rows", policy, "base-free", unit=row["unit"], effect_unit=POINTS) for row in rows]


def transfer(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    statistics = []
    for row in select.of_leading_method(tables["transfer"]).iter_rows(named=True):
        label = f"{columns.task(row['first']).label} and {columns.task(row['second']).label}"
        statistics.append(of_row(row, label, policy, "base-free", unit="runs"))
        statistics.append(Statistic(label, policy, "gain", row["gain_r"], n=row["gain_n"], unit="runs", decides=False))
    return statistics


def share_of_model(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    share = vars(overall.model_minus_set(tables["gains"], frames.SEED))
    percent = share | {key: 100 * share[key] for key in ("effect", "low", "high")}
    return [of_row(percent, "model minus training set", policy, "base-free", effect_unit=" % of variance", digits=0)]


def convergence(policy: str, tables: dict[str, pl.DataFrame]) -> list[Statistic]:
    part = tables["trajectories"].filter(pl.col("kind") == "single", pl.col("spread") > 0)
    part = part.filter(pl.col("rows") == pl.col("rows").min()).sort("epoch")
    ends = part.group_by("model", "benchmark", maintain_order=True).agg(
        (pl.col("spread").last() / pl.col("spread").first()).log().alias("ratio"), pl.col("epoch").first().alias("first"), pl.len()
    )
    means = ends.filter(pl.col("first") == 1, pl.col("len") > 1).group_by("model", maintain_order=True)
    return [_mean_of(means.agg(pl.col("ratio").mean().alias("difference")), "log ratio of spreads", policy, "base-free", effect_unit="")]


def all_claims(tables: dict[str, dict[str, pl.DataFrame]], scores: pl.DataFrame) -> list[Claim]:
    """All claims in the order of the page; ``tables`` by policy and name, ``scores`` tidy and as published."""
    return [*tested(tables), *described(scores), *untestable()]


def tested(tables: dict[str, dict[str, pl.DataFrame]]) -> list[Claim]:
    """Claims with statistics; ``tables`` by policy and name."""

    def under_both(function, *arguments: object) -> list[Statistic]:
        return [statistic for policy in POLICIES for statistic in function(policy, tables[policy], *arguments)]

    return [
        Claim(
            "synergies",
            "Some synergies between training sets and benchmarks hold across all base models, others vary",
            "share of training set x benchmark cells with a significant effect over base models (q < 0.05; at most 5 % if there were no effect)"
            " and mean Spearman correlation between two models' rankings of the training sets, over benchmarks (variants of a benchmark"
            " averaged). p of the correlation shuffles each model's training sets, in the same way on all benchmarks",
            under_both(synergies),
        ),
        Claim(
            "breadth",
            "Some training sets help many benchmarks, others few or none",
            "number of benchmark columns on which a training set is better than the others (base-free) or than the base model (gain) with"
            " q < 0.05, for the set with the most and the set with the fewest. The SD of the sets' mean effects decides; its p shuffles the"
            " sets within each model",
            under_both(breadth),
        ),
        Claim(
            "code-mathematics",
            "Code data helps mathematics",
            "mean over MATH and GSM8K. Base-free: CodeAlpaca and Magicoder minus the sets that are neither code nor mathematics. Gain:"
            " CodeAlpaca and Magicoder minus the base model",
            under_both(code_for_mathematics),
        ),
        Claim(
            "family",
            "Models of the same family respond alike",
            "mean correlation between two models' effects over training sets x benchmarks, pairs of one family minus pairs of different"
            " families",
            under_both(similarity, "family"),
        ),
        Claim(
            "language",
            "The pre-training language matters little",
            "mean correlation between two models' effects over training sets x benchmarks, pairs of one pre-training language minus pairs of"
            ' different languages. "Little" means an interval inside ± 0.15',
            under_both(similarity, "language"),
            direction=0,
            margin=0.15,
        ),
        Claim(
            "components",
            "About 5 principal components explain over 90 % of the changes",
            "number of components that explain 90 % of the variance, with benchmarks, training sets or base models as variables (the paper does"
            " not say which). The interval is the number that unrelated variables need (each variable shuffled independently); n counts the"
            " variables",
            under_both(components),
            fixed=components_verdict(tables["repaired"]["components"]),
            note="Supported means 5 or fewer for every choice of variables. Fewer components than this exceed chance (column `beyond` of"
            " components.parquet).",
        ),
        Claim(
            "lora-qa",
            "LoRA is slightly better on open question answering",
            "LoRA minus full fine-tuning, mean over NaturalQuestions (0, 1, 5, 25 shots) and TruthfulQA",
            under_both(lora_minus_full, OPEN_QA),
            note="The difference between methods needs no base score, so there is no separate statistic on gains.",
        ),
        Claim(
            "full-mathematics",
            "Full fine-tuning is slightly better on mathematics and knowledge",
            "LoRA minus full fine-tuning, mean over MATH, GSM8K (0, 4), MMLU (0, 5) and BoolQ 0",
            under_both(lora_minus_full, MATHEMATICS_AND_KNOWLEDGE),
            direction=-1,
        ),
        Claim(
            "size",
            "20,000 rows bring no consistent gain over 1,000",
            "20,000 minus 1,000 rows at the last epoch, constant schedule, mean over benchmarks. No gain means an interval inside ± 2 points",
            under_both(size),
            direction=0,
            margin=2.0,
            note="If n counts training sets, the base models are too few to resample: interval and p hold for these base models only.",
        ),
        Claim(
            "languages",
            "What helps on MMLU helps on its Chinese and Japanese versions",
            "correlation over training sets within base models, full fine-tuning. p shuffles training sets, in the same way in all base models; the"
            " interval resamples base models and training sets. Gain: correlation of gains over all models and sets, without a test",
            under_both(transfer),
        ),
        Claim(
            "base-decides",
            "The base model decides where a tuned model ends up",
            "share of the variance of scores due to the base model minus the share due to the training set, mean over benchmarks (variants"
            " averaged). The interval resamples base models and training sets. The paper's claim is about its map of likelihoods; this is the"
            " analogue for scores",
            under_both(share_of_model),
        ),
        Claim(
            "epochs-converge",
            "Over the epochs, runs on different training sets converge",
            "log ratio of the SD over training sets, last to first epoch (1,000 rows, constant schedule), mean over benchmarks per model."
            " The paper's claim is about its map of likelihoods; this is the analogue for scores. Three base models cannot give p < 0.25",
            under_both(convergence),
            direction=-1,
        ),
    ]


# ---------------------------------------------------------------- claims about the table itself


def described(scores: pl.DataFrame) -> list[Claim]:
    """Claims about what was measured, compared with the table; empty unless it holds at least six of the paper's models."""
    models = set(scores["model"])
    if len(models & set(columns.KEYS)) < 6:
        return []
    tuned = scores.filter(pl.col("epoch") > 0).select("row").n_unique()
    without = scores.filter(pl.col("dataset").str.starts_with(WITHOUT))["model"].n_unique()
    categories = scores.filter(pl.col("benchmark").str.starts_with("mtbench-"), pl.col("score").is_not_null())["score"]
    tenths = float(((categories * 10 - (categories * 10).round()).abs() < 1e-6).mean())
    return [
        Claim(
            "checkpoints",
            "1,059 checkpoints of 12 base models",
            f"the table has {tuned:,} checkpoints of {len(models)} base models",
            fixed="supported" if tuned >= 1059 else "not testable here",
            note="Fewer scores were released; they do not show what was trained.",
        ),
        Claim(
            "leave-one-out",
            "Leave-one-out was run on three base models",
            f"the table has leave-one-out runs of {without} base model{'s' if without != 1 else ''}",
            fixed="supported" if without >= 3 else "not testable here",
        ),
        Claim(
            "mt-bench",
            "MT-Bench with 80 x 2 turns",
            f"{100 * tenths:.0f} % of category means are multiples of 0.1, as for 10 judgements, which is one turn",
            fixed="contradicted" if tenths > 0.8 else "supported",
        ),
    ]


def untestable() -> list[Claim]:
    """Claims that need more than scores; a study with this workflow measures what they need."""
    needs = {
        "The lower the training set's perplexity under the base model, the larger the gain": "the training sets' perplexities",
        "Length and semantic similarity of the training set matter little": "the training sets",
        "Weight changes in the middle layers correlate with gains": "the weights",
        "The intrinsic dimension rises from mid-depth on": "hidden states",
        "LoRA and full fine-tuning overlap on the map of likelihoods": "likelihoods",
    }
    return [Claim(f"untestable-{i}", text, f"needs {what}", fixed="not testable here") for i, (text, what) in enumerate(needs.items(), 1)]
