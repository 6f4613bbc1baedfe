"""The paper's claims, each with its statistic: those that scores can test, those about the table itself, those that need more."""

from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.published import POLICIES, columns, frames, overall
from sft_atlas.stats.estimates import Estimate, paired_difference

READINGS = ("base-free", "gain")
VALUE = {"base-free": "centred", "gain": "gain"}
MATHEMATICS, CODE = ("math-0", "gsm8k-0", "gsm8k-4"), ("code_alpaca", "magicoder")
MATHEMATICAL_SETS = ("openmath", "math")
OPEN_QA = ("nq-0", "nq-1", "nq-5", "nq-25", "truthfulqa-0")
MATHEMATICS_AND_KNOWLEDGE = (*MATHEMATICS, "mmlu-0", "mmlu-5", "boolq-0")
POINTS = " points"


@dataclass(frozen=True)
class Reading:
    """One number of a claim under a policy and a reading; ``decides``: whether the verdict looks at it."""

    what: str
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


def of_estimate(found: Estimate, what: str, policy: str, reading: str, **more: object) -> Reading:
    """A reading from an estimate."""
    return Reading(what, policy, reading, found.effect, found.low, found.high, found.p, found.n, **more)


def of_row(row: dict, what: str, policy: str, reading: str, **more: object) -> Reading:
    """A reading from a row of a table with effect, low, high, p and n."""
    return Reading(what, policy, reading, row["effect"], row["low"], row["high"], row.get("p", np.nan), row["n"], **more)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, its readings and the verdict; ``margin`` is set for claims of no difference."""

    key: str
    text: str
    statistic: str
    readings: list[Reading] = field(default_factory=list)
    direction: int = 1  # sign of the effect that the claim predicts; 0: no difference
    margin: float = np.nan
    note: str = ""
    fixed: str = ""  # a verdict that follows from what the table holds, not from a test


def synergies(policy: str, found: dict[str, pl.DataFrame]) -> list[Reading]:
    readings = []
    for reading, value in VALUE.items():
        part = found["consistency"].filter(pl.col("value") == value, pl.col("n") > 5)
        if part.height:
            share = float((part["q"] < 0.05).mean())
            readings.append(
                Reading(
                    "cells with q < 0.05",
                    policy,
                    reading,
                    100 * share,
                    n=part.height,
                    unit="cells",
                    effect_unit=" %",
                    digits=0,
                    signed=False,
                    decides=False,
                )
            )
    judged = overall.concordance(select.of_leading_method(found["gains"]), frames.SEED)
    return [*readings, of_estimate(judged, "rank correlation between models", policy, "base-free")]


def breadth(policy: str, found: dict[str, pl.DataFrame]) -> list[Reading]:
    readings = []
    for reading, value in VALUE.items():
        part = found["consistency"].filter(pl.col("value") == value)
        helped = part.group_by("dataset", maintain_order=True).agg(((pl.col("q") < 0.05) & (pl.col("effect") > 0)).sum().alias("helped"))
        helped = helped.sort("helped", descending=True, maintain_order=True)
        if helped.height < 2:
            continue
        most, fewest = helped.row(0), helped.row(-1)
        more = {"n": part["benchmark"].n_unique(), "unit": "columns", "digits": 0, "signed": False}
        readings += [
            Reading(f"most: {_set(most[0])}", policy, reading, float(most[1]), decides=False, **more),
            Reading(f"fewest: {_set(fewest[0])}", policy, reading, float(fewest[1]), decides=False, **more),
        ]
        if reading == "base-free":
            readings.append(_breadth_test(policy, found["gains"]))
    return readings


def _breadth_test(policy: str, cells: pl.DataFrame) -> Reading:
    """Standard deviation over training sets of the mean effect in units of each benchmark's spread; sets shuffled within models."""
    full = cells.filter(pl.col("method") == cells["method"].min())
    scaled = full.with_columns((pl.col("centred") / pl.col("centred").std().over("benchmark")).alias("z"))
    wide = scaled.group_by("model", "dataset").agg(pl.col("z").mean()).pivot("dataset", index="model", values="z").drop("model").to_numpy()
    wide = wide[np.isfinite(wide).all(axis=1)]
    rng = np.random.default_rng(frames.SEED)
    effect = float(wide.mean(axis=0).std(ddof=1))
    null = rng.permuted(np.broadcast_to(wide, (9999, *wide.shape)), axis=2).mean(axis=1).std(axis=1, ddof=1)
    drawn = wide[rng.integers(len(wide), size=(9999, len(wide)))].mean(axis=1).std(axis=1, ddof=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    p = float((1 + (null >= effect - 1e-12).sum()) / (1 + len(null)))
    return Reading("spread of the sets' mean effects, SD", policy, "base-free", effect, float(low), float(high), p, len(wide), signed=False)


def code_for_mathematics(policy: str, cells: pl.DataFrame) -> list[Reading]:
    full = cells.filter(
        pl.col("method") == cells["method"].min(), pl.col("benchmark").is_in(MATHEMATICS), ~pl.col("dataset").is_in(MATHEMATICAL_SETS)
    )
    code = pl.col("dataset").is_in(CODE)
    by_set = full.group_by("model", "dataset", maintain_order=True).agg(pl.col("score").mean(), pl.col("gain").mean())
    other = by_set.group_by("model", maintain_order=True).agg(
        (pl.col("score").filter(code).mean() - pl.col("score").filter(~code).mean()).alias("difference")
    )
    gain = by_set.filter(code).group_by("model", maintain_order=True).agg(pl.col("gain").mean().alias("difference"))
    found = {"base-free": (other, "code minus other sets"), "gain": (gain, "gain of code sets")}
    return [
        of_estimate(
            paired_difference(part["difference"].cast(pl.Float64).to_numpy(), part["model"].to_numpy(), frames.SEED),
            what,
            policy,
            reading,
            effect_unit=POINTS,
            digits=1,
        )
        for reading, (part, what) in found.items()
    ]


def alike(policy: str, tests: pl.DataFrame, question: str) -> list[Reading]:
    parts = {reading: tests.filter(pl.col("value") == value, pl.col("question") == question) for reading, value in VALUE.items()}
    return [
        of_row(part.row(0, named=True), "difference of mean r", policy, reading, unit="alike pairs")
        for reading, part in parts.items()
        if part.height
    ]


def components(policy: str, table: pl.DataFrame) -> list[Reading]:
    readings = []
    for reading, value in VALUE.items():
        for row in table.filter(pl.col("value") == value, pl.col("component") == 1).iter_rows(named=True):
            more = {"n": row["n"], "unit": "variables", "digits": 0, "signed": False}
            readings.append(
                Reading(
                    f"{row['variables']}s as variables (in brackets: by chance)",
                    policy,
                    reading,
                    float(row["needed"]),
                    row["needed_low"],
                    row["needed_high"],
                    **more,
                )
            )
    return readings


def components_verdict(table: pl.DataFrame) -> str:
    needed = table.filter(pl.col("component") == 1)["needed"]
    few = needed <= 5
    return "not testable here" if needed.is_empty() else "supported" if few.all() else "mixed" if few.any() else "contradicted"


def lora_minus_full(policy: str, cells: pl.DataFrame, benchmarks: tuple[str, ...]) -> Reading:
    part = cells.filter(pl.col("benchmark").is_in(benchmarks))
    sides = {
        method: part.filter(pl.col("method") == method).select("model", "dataset", "benchmark", "score") for method in ("full", "lora")
    }
    pairs = sides["lora"].join(sides["full"], on=["model", "dataset", "benchmark"], suffix="_full", maintain_order="left")
    pairs = pairs.with_columns((pl.col("score") - pl.col("score_full")).alias("difference")).drop_nulls("difference")
    means = pairs.group_by("model", "dataset", maintain_order=True).agg(pl.col("difference").mean())
    found = paired_difference(means["difference"].to_numpy(), means["model"].to_numpy(), frames.SEED)
    return of_estimate(found, "LoRA minus full", policy, "base-free", effect_unit=POINTS)


def over_benchmarks(policy: str, table: pl.DataFrame, what: str) -> Reading:
    part = table.filter(pl.col("benchmark") == "all")
    if part.is_empty():
        return Reading(what, policy, "base-free", np.nan)
    row = part.row(0, named=True)
    return of_row(row, what, policy, "base-free", unit=row["unit"], effect_unit=POINTS)


def transfer(policy: str, table: pl.DataFrame) -> list[Reading]:
    readings = []
    for row in table.filter(pl.col("method") == table["method"].min()).iter_rows(named=True):
        what = f"{columns.task(row['first']).label} and {columns.task(row['second']).label}"
        readings.append(of_row(row, what, policy, "base-free", unit="runs"))
        readings.append(Reading(what, policy, "gain", row["gain_r"], n=row["gain_n"], unit="runs", decides=False))
    return readings


def model_share(policy: str, cells: pl.DataFrame) -> Reading:
    found = overall.model_minus_set(cells, frames.SEED)
    found = replace(found, **{key: 100 * getattr(found, key) for key in ("effect", "low", "high")})
    return of_estimate(found, "model minus training set", policy, "base-free", effect_unit=" % of variance", digits=0)


def spread(policy: str, table: pl.DataFrame) -> Reading:
    part = table.filter(pl.col("kind") == "single", pl.col("spread") > 0)
    part = part.filter(pl.col("rows") == pl.col("rows").min())
    keys = ["model", "benchmark"]
    ends = (
        part.sort("epoch")
        .group_by(keys, maintain_order=True)
        .agg((pl.col("spread").last() / pl.col("spread").first()).log().alias("ratio"), pl.col("epoch").first().alias("first"), pl.len())
    )
    means = ends.filter(pl.col("first") == 1, pl.col("len") > 1).group_by("model", maintain_order=True).agg(pl.col("ratio").mean())
    return of_estimate(
        paired_difference(means["ratio"].to_numpy(), means["model"].to_numpy(), frames.SEED), "log ratio of spreads", policy, "base-free"
    )


def _set(name: str) -> str:
    return columns.DATASETS.get(name, (name,))[0]


def every(tables: dict[str, dict[str, pl.DataFrame]], scores: pl.DataFrame) -> list[Claim]:
    """All claims, in the order of the page; ``tables`` by policy and name."""
    return [*tested(tables), *described(scores), *untestable()]


def tested(tables: dict[str, dict[str, pl.DataFrame]]) -> list[Claim]:
    """Claims with a statistic; ``tables`` by policy and name."""
    every = [(policy, tables[policy]) for policy in POLICIES]
    return [
        Claim(
            "synergies",
            "Some synergies of training set and benchmark persist across all base models, others vary",
            "share of the training set x benchmark cells whose effect over base models has q < 0.05 (under no effect 5 % at most), and the"
            " mean Spearman correlation between two models' rankings of the training sets, over benchmarks (variants of a benchmark averaged);"
            " its p shuffles each model's sets as wholes, alike on all benchmarks",
            [reading for policy, found in every for reading in synergies(policy, found)],
        ),
        Claim(
            "breadth",
            "Some training sets help many benchmarks, others few or none",
            "benchmarks, variants counted singly, on which the set is above the other sets (base-free) or above the base model (gain) with q < 0.05: the set with most,"
            " and the set with fewest; the difference decides, its p is that of the spread when each model's sets are shuffled",
            [reading for policy, found in every for reading in breadth(policy, found)],
        ),
        Claim(
            "code-mathematics",
            "Code data helps mathematics",
            "mean over MATH and GSM8K: CodeAlpaca and Magicoder minus the sets that are neither code nor mathematics (base-free), and their"
            " gain over the base model",
            [reading for policy, found in every for reading in code_for_mathematics(policy, found["gains"])],
        ),
        Claim(
            "family",
            "Models of the same family react alike",
            "mean correlation of models' effects over training sets x benchmarks: pairs of one family minus pairs of different families",
            [reading for policy, found in every for reading in alike(policy, found["similarity_tests"], "same family - other family")],
        ),
        Claim(
            "language",
            "The pre-training language matters little",
            "the same for pairs of one pre-training language minus pairs of different languages; little: inside ± 0.15",
            [reading for policy, found in every for reading in alike(policy, found["similarity_tests"], "same language - other language")],
            direction=0,
            margin=0.15,
        ),
        Claim(
            "components",
            "About 5 principal components explain over 90 % of the changes",
            "components needed for 90 % of the variance, with benchmarks, training sets or models as variables (the paper does not say"
            " which); the interval is what unrelated variables need (each with its base models, training sets or benchmarks in an order of its"
            " own), n the variables",
            [reading for policy, found in every for reading in components(policy, found["components"])],
            fixed=components_verdict(tables["repaired"]["components"]),
            note="Supported would be 5 or fewer whichever the variables; beyond chance are fewer than that (`beyond` in components.parquet).",
        ),
        Claim(
            "lora-qa",
            "LoRA is slightly better on open question answering",
            "LoRA minus full tuning, mean over NaturalQuestions (0, 1, 5, 25 shots) and TruthfulQA",
            [lora_minus_full(policy, found["gains"], OPEN_QA) for policy, found in every],
            note="Differences between methods need no base model, so there is one reading.",
        ),
        Claim(
            "full-mathematics",
            "Full tuning is slightly better on mathematics and knowledge",
            "LoRA minus full tuning, mean over MATH, GSM8K (0, 4), MMLU (0, 5) and BoolQ 0",
            [lora_minus_full(policy, found["gains"], MATHEMATICS_AND_KNOWLEDGE) for policy, found in every],
            direction=-1,
        ),
        Claim(
            "size",
            "20,000 rows bring no consistent gain over 1,000",
            "20,000 minus 1,000 rows at the last epoch, constant schedule, mean over benchmarks; no gain: inside ± 2 points",
            [over_benchmarks(policy, found["size"].filter(pl.col("epochs") == "last"), "all benchmarks") for policy, found in every],
            direction=0,
            margin=2.0,
            note="Where n counts training sets base models are too few to be units: what is special to them is in neither interval nor p.",
        ),
        Claim(
            "languages",
            "What helps on MMLU helps on its Chinese and Japanese versions",
            "correlation over training sets within base models (full tuning); p shuffles training sets as wholes, alike in all base models, and"
            " the interval resamples base models and training sets. The gain reading is the correlation of gains over all models and sets",
            [reading for policy, found in every for reading in transfer(policy, found["transfer"])],
        ),
        Claim(
            "base-decides",
            "The base model decides where a tuned model ends up",
            "share of the base model in the variance of scores minus that of the training set, mean over benchmarks, variants averaged"
            " (the paper's statement is about its map of likelihoods; this is the analogue in scores); the interval resamples base models and"
            " training sets",
            [model_share(policy, found["gains"]) for policy, found in every],
        ),
        Claim(
            "epochs-converge",
            "Over the epochs, runs on different training sets converge",
            "log ratio of the spread over training sets, last to first epoch (1,000 rows, constant schedule): mean over benchmarks per model; an"
            " analogue of the paper's map; three base models cannot reach p < 0.25",
            [spread(policy, found["trajectories"]) for policy, found in every],
            direction=-1,
        ),
    ]


# ---------------------------------------------------------------- what the table says about itself


def described(scores: pl.DataFrame) -> list[Claim]:
    """Statements of the paper about what was measured, held against the table; only for tables of the paper's models."""
    known = {key for key, *_ in columns.MODELS.values()}
    have = set(scores["model"])
    if len(have & known) < 6:
        return []
    tuned = scores.filter(pl.col("epoch") > 0).select("row").n_unique()
    without = scores.filter(pl.col("dataset").str.starts_with(columns.WITHOUT))["model"].n_unique()
    categories = scores.filter(pl.col("benchmark").str.starts_with("mtbench-"), pl.col("score").is_not_null())["score"]
    tenths = float(((categories * 10 - (categories * 10).round()).abs() < 1e-6).mean())
    return [
        Claim(
            "checkpoints",
            "1,059 checkpoints of 12 base models",
            f"the table has {tuned:,} of {len(have)} models",
            fixed="supported" if tuned >= 1059 else "not testable here",
            note="The released scores are fewer; what was trained they cannot say.",
        ),
        Claim(
            "leave-one-out",
            "Leave-one-out was run on three base models",
            f"the table has it for {without}",
            fixed="supported" if without >= 3 else "not testable here",
        ),
        Claim(
            "mt-bench",
            "MT-Bench with 80 x 2 turns",
            f"{100 * tenths:.0f} % of category means are multiples of 0.1: 10 judgements, one turn",
            fixed="contradicted" if tenths > 0.8 else "supported",
        ),
    ]


def untestable() -> list[Claim]:
    """Claims that need more than scores; a study of this workflow measures what they need."""
    needs = {
        "Lower perplexity of the training set under the base model goes with larger gains": "needs the training sets' perplexities",
        "Length and semantic similarity of the training set matter little": "needs the training sets",
        "Weight changes in the middle layers go with the gains": "needs the weights",
        "The intrinsic dimension rises from mid-depth on": "needs hidden states",
        "LoRA and full tuning overlap on the map of likelihoods": "needs likelihoods",
    }
    return [Claim(f"untestable-{i}", text, what, fixed="not testable here") for i, (text, what) in enumerate(needs.items(), 1)]
