"""Verdicts follow from all comparisons of a claim, keep their level, and the page shows them."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from helpers import published_csv
from helpers.rates import is_at_most
from sft_atlas.published import (
    POLICIES,
    analyse_published,
    audit_published,
    changes,
    claims,
    frames,
    further,
    summarise_published,
    test_claims,
    tidy_published,
)
from sft_atlas.published.claims import Claim, Statistic
from sft_atlas.stats.estimates import paired_difference

STATISTIC = Statistic("x", "repaired", "base-free", 1.0, 0.5, 1.5, 0.001, 0.999, n=10)
OTHER = replace(STATISTIC, label="y", effect=-1.0, low=-1.5, high=-0.5, greater=0.999, less=0.001)
NOTHING = replace(STATISTIC, label="z", effect=0.1, low=-0.3, high=0.4, greater=0.3, less=0.7)


def decided(*statistics: Statistic, **options) -> str:
    claim = Claim("k", "text", "statistic", list(statistics), **options)
    return test_claims.verdict(claim, test_claims.correct([claim]))


def test_the_verdict_follows_from_all_comparisons():
    assert decided(STATISTIC) == "supported" and decided(OTHER) == "contradicted" and decided(NOTHING) == "undecided"
    assert decided(STATISTIC, OTHER) == decided(STATISTIC, OTHER, NOTHING) == "mixed"
    assert decided(STATISTIC, NOTHING) == decided(OTHER, NOTHING) == "undecided"
    assert decided(STATISTIC, direction=-1) == "contradicted" and decided(OTHER, direction=-1) == "supported"


def test_gains_count_where_they_are_for_or_against():
    gain = replace(OTHER, reading="gain")
    assert decided(STATISTIC, gain) == "mixed"
    assert decided(STATISTIC, replace(NOTHING, reading="gain")) == "supported"
    assert decided(STATISTIC, replace(gain, decides=False)) == "supported"


def test_no_difference_needs_an_interval_inside_the_margin():
    assert decided(NOTHING, direction=0, margin=0.5) == "supported"
    assert decided(NOTHING, direction=0, margin=0.2) == "undecided"
    assert decided(replace(NOTHING, low=0.9, high=1.3, effect=1.1), direction=0, margin=0.5) == "contradicted"


def test_no_gain_is_a_one_sided_claim():
    """A large loss is no gain; what counts is that a gain beyond the margin is ruled out."""
    options = {"direction": 0, "margin": 0.5, "one_sided": True}
    assert decided(replace(OTHER, low=-9.0, negligible=0.001), **options) == "supported"
    assert decided(replace(STATISTIC, negligible=0.9), **options) == "contradicted"
    assert decided(replace(NOTHING, negligible=0.2), **options) == "undecided"


def test_a_statistic_without_a_test_is_judged_by_its_interval():
    assert decided(replace(STATISTIC, greater=np.nan, less=np.nan)) == "supported"
    assert decided(replace(OTHER, greater=np.nan, less=np.nan)) == "contradicted"


def test_too_few_units_are_said_to_be_too_few():
    values = np.array([0.5, 0.8, 1.1])
    few = claims.of_estimate(paired_difference(values, range(3), 0), "spread", "repaired", "base-free")
    claim = Claim("k", "text", "statistic", [few])
    q = test_claims.correct([claim])
    assert np.isnan(q[few].q) and test_claims.in_words(claim, q) == "undecided: cannot be decided with 3 base models"
    page = test_claims.page([claim], [])
    assert "none; range of 3 base models: +0.50 to +1.10" in page
    assert test_claims.correct([claim, Claim("l", "t", "s", [STATISTIC])])[STATISTIC].q == 0.001  # no part of the correction


def test_what_was_not_measured_is_not_testable():
    assert decided(replace(STATISTIC, effect=np.nan)) == "not testable here"
    assert decided(replace(STATISTIC, policy="raw")) == "not testable here"
    assert decided(fixed="not testable here") == "not testable here"


def simulated(rng: np.random.Generator, effects: tuple[float, ...], n: int = 10) -> list[Claim]:
    """Eight claims of two comparisons each, with the ``effects`` of the first two in standard deviations of a base model."""
    made = []
    for key in range(8):
        means = effects if key < 2 else (0.0, 0.0)
        estimates = [paired_difference(mean + rng.normal(size=n), np.arange(n), 0, resamples=99) for mean in means]
        named = [claims.of_estimate(one, f"{key}-{i}", "repaired", "base-free") for i, one in enumerate(estimates)]
        made.append(Claim(str(key), "text", "statistic", named))
    return made


def said(tested: list[Claim]) -> list[str]:
    q = test_claims.correct(tested)
    return [word for claim in tested for _, word in test_claims.answers(claim, q)]


def test_without_effects_no_comparison_is_decided_more_often_than_the_level():
    rng = np.random.default_rng(0)
    null = [said(simulated(rng, (0.0, 0.0))) for _ in range(150)]
    assert is_at_most(["for" in words for words in null])
    assert is_at_most(["against" in words for words in null])


def test_planted_effects_are_found_on_their_sides():
    rng = np.random.default_rng(1)
    for effects, expected in (((2.0, 2.0), "supported"), ((-2.0, -2.0), "contradicted"), ((2.0, -2.0), "mixed")):
        tested = [simulated(rng, effects) for _ in range(20)]
        verdicts = [test_claims.verdict(claim, test_claims.correct(run)) for run in tested for claim in run[:2]]
        assert np.mean([word == expected for word in verdicts]) > 0.8


def test_code_data_is_compared_with_each_group_of_sets():
    """Better than FLAN and worse than chat sets is no support, although the mean over both groups is above 0."""
    level = {"code_alpaca": 50.0, "lima": 55.0, "ultrachat": 55.0, "flan_knowledge": 30.0, "flan_reasoning": 30.0}
    rng = np.random.default_rng(2)
    rows = [(f"m{m}", name, "full", "gsm8k-0", score + 0.3 * rng.normal(), None) for m in range(8) for name, score in level.items()]
    rows += [(f"m{m}", "lima", "full", "math-0", 99.0, None) for m in range(8)]  # which the other sets lack
    schema = {**dict.fromkeys(("model", "dataset", "method", "benchmark"), pl.String), "score": pl.Float64, "gain": pl.Float64}
    statistics = claims.code_for_mathematics("repaired", {"gains": pl.DataFrame(rows, schema, orient="row")})
    assert {s.label: round(s.effect) for s in statistics} == {"CodeAlpaca minus chat sets": -5, "CodeAlpaca minus FLAN sets": 20}
    assert decided(*statistics) == "mixed"


def test_a_group_of_benchmarks_is_compared_on_all_of_them():
    rows = [("single sets", f"m{m}", "lima", task, m + 1.0) for m in range(6) for task in ("nq-0", "nq-1") if (m, task) != (5, "nq-1")]
    rows += [("merged set", f"m{m}", "all", "mtbench-0", -100 / 9) for m in range(6)]
    pairs = pl.DataFrame(rows, schema=["data", "model", "dataset", "benchmark", "difference"], orient="row")
    gains = pl.DataFrame({"benchmark": ["nq-0", "nq-1", "mtbench-0"], "score": [1.0, 1.0, 1.0]})
    one, two = claims.lora_minus_full("repaired", {"gains": gains, "method_pairs": pairs}, claims.OPEN_QUESTIONS)
    assert (one.label, one.effect, one.n) == ("NaturalQuestions, single sets", 3.0, 5)  # the model without nq-1 is left out
    assert (two.label, two.effect_unit) == ("MT-Bench, merged set", " on the scale of 1 to 10") and two.effect == pytest.approx(-1)


def test_descriptions_name_only_what_the_table_has():
    assert claims.labels(["math-0", "gsm8k-0", "gsm8k-4", "truthfulqa-0"]) == "MATH, GSM8K (0 and 4 shots) and TruthfulQA"
    assert claims.labels([]) == "none"


@pytest.mark.slow
def test_the_claims_page_is_written(own):
    scores, _, _, _, tables = own
    tested = claims.all_claims(tables, scores)
    assert "1,059" not in "".join(claim.text for claim in tested)  # a statement about the authors' table
    page = test_claims.page(tested, changes.describe(tables), test_claims.families(scores), further=further.describe(tables["repaired"]))
    assert "The 4 base models come from unknown families." in " ".join(page.split())
    for claim in tested:
        assert claim.text in page
    assert "nan" not in page
    assert "MT-Bench" not in page and "AlpacaEval" not in page  # columns that this table lacks
    table = test_claims.table(tested)
    assert set(table["verdict"]) <= set(test_claims.VERDICTS)
    assert table.filter(pl.col("verdict") == "not testable here", pl.col("policy").is_null()).height >= 5
    assert set(tables) == set(POLICIES)


def variants():
    """CSV files of users, with the words that their pages must not hold."""
    own = published_csv.frame()
    scores = [name for name in own.columns if name not in ("", *tidy_published.META)]
    one = own.filter(pl.col("model_name") == "Yi-1.5-9B")
    rng = np.random.default_rng(0)
    gaps = [pl.when(pl.Series(rng.random(own.height) < 0.05)).then(None).otherwise(pl.col(name)).alias(name) for name in scores]
    few = pl.col("model_name").is_in(["Yi-1.5-9B", "Sarashina2-7B"])
    absent = ["mmlu-0shot", "mmlu-5shot", "math-0shot", "gsm8k-0shot", "gsm8k-4shot", "nq-0shot"]
    yield pytest.param(one, ["MT-Bench", "AlpacaEval"], id="one model")
    yield pytest.param(own.filter(pl.col("data_name").is_in(["pretrain", "lima"])), ["CodeAlpaca"], id="one dataset")
    yield pytest.param(
        own.with_columns(gaps).filter(few).drop(absent), ["GSM8K", "MATH", "MMLU 0", "NQ 0"], id="blanks and missing columns"
    )
    tiny = one.filter(pl.col("data_name").is_in(["pretrain", "lima"])).select("", *tidy_published.META, "math-0shot")
    yield pytest.param(tiny, ["BoolQ", "MMLU 0"], id="one score column")


@pytest.mark.parametrize(("table", "absent"), variants())
def test_pages_of_a_users_csv_claim_nothing_that_it_does_not_hold(table, absent):
    scores = tidy_published.tidy(published_csv.encode(table), "mine.csv")
    found = audit_published.audit(scores)
    repairs = audit_published.repairs(found)
    tables = {policy: analyse_published.tables(frames.of_scores(frames.apply_policy(scores, repairs, policy))) for policy in POLICIES}
    tested = claims.all_claims(tables, scores)
    families, more = test_claims.families(scores), further.describe(tables["repaired"])
    lines = test_claims.page(tested, changes.describe(tables), families, "the scores in mine.csv", more).splitlines()
    needs = [line for line in lines if line.startswith("This needs")]  # what would be needed may be named
    page = "\n".join(line for line in lines if line not in needs)
    said = summarise_published.findings(scores, repairs, tables["repaired"]["consistency"], test_claims.table(tested))
    for text in (page, audit_published.page(found, scores, "mine.csv", repairs), *said):
        assert not re.search(r"\b(nan|None|inf)\b", text)
        assert " 1 base models" not in text
    for word in absent:
        assert word not in page.replace("MATH or GSM8K", "")


def test_families_of_the_published_models_are_counted():
    text = test_claims.families(pl.DataFrame({"model": ["llama3-8b", "llama3-swallow-8b", "olmo-7b", "olmo-7b"]}))
    assert text.startswith("The 3 base models come from 2 families. Base models of one family (llama3: 2) are counted as separate units")
    assert test_claims.families(pl.DataFrame({"model": ["olmo-7b"]})) == "The base model comes from 1 family."
