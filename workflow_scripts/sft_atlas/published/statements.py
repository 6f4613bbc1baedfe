"""The paper's claims, each with its statistic: those that scores can test, those about the table itself, those that need more."""

import polars as pl

from sft_atlas.published import POLICIES, columns, evidence
from sft_atlas.published.evidence import Claim


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
            [reading for policy, found in every for reading in evidence.synergies(policy, found)],
        ),
        Claim(
            "breadth",
            "Some training sets help many benchmarks, others few or none",
            "benchmarks, variants counted singly, on which the set is above the other sets (base-free) or above the base model (gain) with q < 0.05: the set with most,"
            " and the set with fewest; the difference decides, its p is that of the spread when each model's sets are shuffled",
            [reading for policy, found in every for reading in evidence.breadth(policy, found)],
        ),
        Claim(
            "code-mathematics",
            "Code data helps mathematics",
            "mean over MATH and GSM8K: CodeAlpaca and Magicoder minus the sets that are neither code nor mathematics (base-free), and their"
            " gain over the base model",
            [reading for policy, found in every for reading in evidence.code_for_mathematics(policy, found["gains"])],
        ),
        Claim(
            "family",
            "Models of the same family react alike",
            "mean correlation of models' effects over training sets x benchmarks: pairs of one family minus pairs of different families",
            [
                reading
                for policy, found in every
                for reading in evidence.alike(policy, found["similarity_tests"], "same family - other family")
            ],
        ),
        Claim(
            "language",
            "The pre-training language matters little",
            "the same for pairs of one pre-training language minus pairs of different languages; little: inside ± 0.15",
            [
                reading
                for policy, found in every
                for reading in evidence.alike(policy, found["similarity_tests"], "same language - other language")
            ],
            direction=0,
            margin=0.15,
        ),
        Claim(
            "components",
            "About 5 principal components explain over 90 % of the changes",
            "components needed for 90 % of the variance, with benchmarks, training sets or models as variables (the paper does not say"
            " which); the interval is what unrelated variables need (each with its base models, training sets or benchmarks in an order of its"
            " own), n the variables",
            [reading for policy, found in every for reading in evidence.components(policy, found["components"])],
            fixed=evidence.components_verdict(tables["repaired"]["components"]),
            note="Supported would be 5 or fewer whichever the variables; beyond chance are fewer than that (`beyond` in components.parquet).",
        ),
        Claim(
            "lora-qa",
            "LoRA is slightly better on open question answering",
            "LoRA minus full tuning, mean over NaturalQuestions (0, 1, 5, 25 shots) and TruthfulQA",
            [evidence.lora_minus_full(policy, found["gains"], evidence.OPEN_QA) for policy, found in every],
            note="Differences between methods need no base model, so there is one reading.",
        ),
        Claim(
            "full-mathematics",
            "Full tuning is slightly better on mathematics and knowledge",
            "LoRA minus full tuning, mean over MATH, GSM8K (0, 4), MMLU (0, 5) and BoolQ 0",
            [evidence.lora_minus_full(policy, found["gains"], evidence.MATHEMATICS_AND_KNOWLEDGE) for policy, found in every],
            direction=-1,
        ),
        Claim(
            "size",
            "20,000 rows bring no consistent gain over 1,000",
            "20,000 minus 1,000 rows at the last epoch, constant schedule, mean over benchmarks; no gain: inside ± 2 points",
            [
                evidence.over_benchmarks(policy, found["size"].filter(pl.col("epochs") == "last"), "all benchmarks")
                for policy, found in every
            ],
            direction=0,
            margin=2.0,
            note="Where n counts training sets base models are too few to be units: what is special to them is in neither interval nor p.",
        ),
        Claim(
            "languages",
            "What helps on MMLU helps on its Chinese and Japanese versions",
            "correlation over training sets within base models (full tuning); p shuffles training sets as wholes, alike in all base models, and"
            " the interval resamples base models and training sets. The gain reading is the correlation of gains over all models and sets",
            [reading for policy, found in every for reading in evidence.transfer(policy, found["transfer"])],
        ),
        Claim(
            "base-decides",
            "The base model decides where a tuned model ends up",
            "share of the base model in the variance of scores minus that of the training set, mean over benchmarks, variants averaged"
            " (the paper's statement is about its map of likelihoods; this is the analogue in scores); the interval resamples base models and"
            " training sets",
            [evidence.model_share(policy, found["gains"]) for policy, found in every],
        ),
        Claim(
            "epochs-converge",
            "Over the epochs, runs on different training sets converge",
            "log ratio of the spread over training sets, last to first epoch (1,000 rows, constant schedule): mean over benchmarks per model; an"
            " analogue of the paper's map; three base models cannot reach p < 0.25",
            [evidence.spread(policy, found["trajectories"]) for policy, found in every],
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
