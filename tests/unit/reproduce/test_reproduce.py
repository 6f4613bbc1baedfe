"""Claims on a study's own results: verdicts where the truth is known, both sides beside each other, and the page."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers import paper_part
from helpers.plan_study import DEVICE
from sft_atlas.published import analyse_published, claims, test_claims
from sft_atlas.published.claims import PAPER, Statistic
from sft_atlas.reproduce import measured, reproduce
from sft_atlas.reproduce.figures import Pair
from sft_atlas.reproduce.missing import Missing
from sft_atlas.reproduce.own_results import names, read

PERPLEXITY = Statistic("r", "own", "base-free", -0.6, -0.8, -0.3, 0.999, 0.001, n=6)


@pytest.fixture(scope="module")
def page_of(planted):
    """Entries of the planted study, with its own claims on both sides, so that the differences are 0."""
    study, root, own, _, ours = planted[1.0]
    here = Missing(study, own.names, DEVICE, root)
    theirs = {key: replace(claim, statistics=[replace(s, policy="repaired") for s in claim.statistics]) for key, claim in ours.items()}
    return reproduce.entries(theirs, ours, here, here, own), here, own


def words(planted, effect: float) -> dict[str, str]:
    ours = planted[effect][4]
    tests = test_claims.correct(list(ours.values()))
    return {key: reproduce.verdict(claim, tests, 1, 0)[0] for key, claim in ours.items()}


def test_what_is_planted_agrees_and_what_is_not_does_not(planted):
    found, none = words(planted, 1.0), words(planted, 0.0)
    for key in ("synergies", "breadth", "perplexity", "weights-upwards", "dimension", "base-decides"):
        assert found[key] == "agrees", key
        assert none[key] != "agrees", key
    assert none["base-decides"] == "disagrees", "without a place of its own a base model has less than half of the distance"


def test_the_opposite_of_a_claim_disagrees(planted):
    """Perplexities turned around: sets with higher ones gain more."""
    own = planted[1.0][2]
    turned = own.tables["perplexity"].with_columns((1 / pl.col("perplexity")).alias("perplexity"))
    claim = next(each for each in measured.all_claims(replace(own, tables=own.tables | {"perplexity": turned})) if each.key == "perplexity")
    assert reproduce.verdict(claim, test_claims.correct([claim]), 1, 0)[0] == "disagrees"


def test_a_verdict_says_why_there_is_none():
    claim = claims.of_paper("perplexity", "r", [], direction=-1, needs="perplexities")
    assert reproduce.verdict(claim, {}, 12, 3) == ("missing", "3 of 12 results")
    assert reproduce.verdict(claim, {}, 0, 0) == ("not in this study", "needs perplexities")
    assert reproduce.verdict(claim, {}, 12, 0) == (
        "not in this study",
        "all 12 results of this study are there, and cannot show it: that takes perplexities",
    )
    open_one = replace(claim, statistics=[replace(PERPLEXITY, less=0.4)])
    assert reproduce.verdict(open_one, test_claims.correct([open_one]), 12, 0) == ("cannot be decided", "with n = 6 base models")
    few = replace(claim, statistics=[replace(PERPLEXITY, least=0.25, n=2)])
    assert reproduce.verdict(few, test_claims.correct([few]), 12, 0) == ("cannot be decided", "with n = 2 base models")


def test_the_difference_has_an_interval_from_both():
    published = replace(PERPLEXITY, effect=-0.2, low=-0.5, high=0.1)
    effect, low, high = reproduce.difference(PERPLEXITY, published)
    assert effect == pytest.approx(-0.4)
    assert (low, high) == pytest.approx((-0.4 - np.hypot(0.2, 0.3), -0.4 + np.hypot(0.3, 0.3)))
    assert reproduce.difference(replace(PERPLEXITY, low=np.nan), published) is None


def test_every_claim_of_the_one_list_is_there_in_its_order(page_of):
    entries, *_ = page_of
    assert [entry.key for entry in entries] == list(PAPER)
    assert {entry.key for entry in entries if entry.verdict == reproduce.OF_AUTHORS} == set(reproduce.STATED)
    assert all(entry.published == "scores cannot show it" for entry in entries if entry.key in claims.MEASURED)


def test_a_comparison_stands_beside_its_twin(page_of):
    entries, *_ = page_of
    for entry in entries:
        sources = [each.source for each in entry.comparisons]
        assert sources == ["published", "own"] * (len(sources) // 2)
        for each in entry.comparisons:
            assert each.difference is None or each.difference[0] == 0


def test_a_planted_study_lacks_nothing(page_of):
    entries, here, _ = page_of
    assert not any(entry.missing for entry in entries)
    assert "Nothing is missing." in reproduce.terminal(entries, here, "part", Path("page.html"))


def test_a_part_names_what_it_lacks(planted, tmp_path):
    """Nothing done: every claim that the study has runs for is missing, and the terminal has a line for each claim."""
    study = planted[1.0][0]
    own = read(study.resolved(), tmp_path)
    ours = reproduce.own_claims(own, analyse_published.tables(own.data, names=claims.READ))
    here = Missing(study, own.names, DEVICE, tmp_path)
    entries = reproduce.entries({}, ours, here, here, own)
    by_key = {entry.key: entry for entry in entries}
    assert by_key["synergies"].verdict == "missing" and by_key["synergies"].words == "84 of 84 results"
    assert by_key["size"].verdict == "not in this study"
    table = reproduce.missing_table(entries).filter(claim="synergies")
    assert table.height == 84 and "olmo-7b/lima/full epoch 3: scores of short" in table["result"].to_list()
    printed = reproduce.terminal(entries, here, "part", Path("page.html")).splitlines()
    assert sum(bool(re.match(r" +\d+ ", line)) for line in printed) == len(PAPER)
    assert printed[-1] == "Page: page.html"


def test_the_tables_hold_what_the_page_says(page_of):
    entries, *_ = page_of
    table, comparisons = reproduce.claims_table(entries), reproduce.comparisons_table(entries)
    assert table["claim"].to_list() == list(PAPER) and set(table["verdict"]) <= set(reproduce.VERDICTS)
    own = comparisons.filter(source="own", claim="synergies")
    assert own["scored_by"].unique().to_list() == ["hf, unknown type"]
    assert comparisons.filter(pl.col("effect").is_null()).is_empty()


def test_labels_are_text_on_the_page(page_of):
    entries, here, own = page_of
    hostile = "<img src=x onerror='window.pwned=1'>"
    labelled = {**own.study, "study": hostile}
    text = reproduce.page(
        [replace(entries[0], words=hostile), *entries[1:]],
        [Pair("gains", hostile, "own-gains.png")],
        replace(own, study=labelled),
        here,
        here,
    )
    assert hostile not in text and "&lt;img src=x" in text
    assert "The authors released scores only" in text


def test_a_study_of_other_models_says_so():
    own_names = names(
        {
            "models": {"llama-strings": {"label": "Llama (strings)"}},
            "datasets": {"prose": {"label": "Prose", "merged": False, "without": None}},
            "benchmarks": {"sums": {"label": "Sums", "task": "config/benchmarks/generate.yaml"}},
        }
    )
    assert own_names.foreign() == {"models": ["llama-strings"], "datasets": ["prose"], "benchmarks": ["sums"]}
    assert own_names.benchmarks == {"sums": "sums-0"}


def test_the_papers_grid_has_the_papers_names():
    found = names(paper_part.study().resolved())
    assert not any(found.foreign().values())
    assert found.benchmarks["mmlu-zh"] == "cmmlu-0" and found.benchmarks["nq-open"] == "nq-0"
