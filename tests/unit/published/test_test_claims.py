"""Verdicts follow from the statistics, and the page shows them."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sft_atlas.published import changes, claims, test_claims
from sft_atlas.published.claims import Claim, Statistic

STATISTIC = Statistic("x", "repaired", "base-free", 1.0, 0.5, 1.5, 0.001, 10)


def decided(*statistics: Statistic, **options) -> str:
    claim = Claim("k", "text", "statistic", list(statistics), **options)
    return test_claims.verdict(claim, test_claims.correct([claim]))


def test_a_significant_effect_decides_by_its_direction():
    assert decided(STATISTIC) == "supported"
    assert decided(STATISTIC, direction=-1) == "contradicted"
    assert decided(replace(STATISTIC, low=-0.2)) == "mixed"
    assert decided(replace(STATISTIC, p=0.2)) == "mixed"


def test_gains_that_point_the_other_way_make_it_mixed():
    gain = replace(STATISTIC, reading="gain", effect=-1.0, low=-1.5, high=-0.5)
    assert decided(STATISTIC, gain) == "mixed"
    assert decided(STATISTIC, replace(gain, high=0.5)) == "supported"
    assert decided(STATISTIC, replace(gain, decides=False)) == "supported"


def test_no_difference_needs_an_interval_inside_the_margin():
    small = replace(STATISTIC, effect=0.1, low=-0.3, high=0.4, p=0.6)
    assert decided(small, direction=0, margin=0.5) == "supported"
    assert decided(small, direction=0, margin=0.2) == "mixed"
    assert decided(replace(small, low=0.9, high=1.3, effect=1.1, p=0.001), direction=0, margin=0.5) == "contradicted"


def test_what_was_not_measured_is_not_testable():
    assert decided(replace(STATISTIC, effect=np.nan)) == "not testable here"
    assert decided(replace(STATISTIC, policy="raw")) == "not testable here"
    assert decided(fixed="not testable here") == "not testable here"


@pytest.mark.slow
def test_the_claims_page_is_written(own):
    scores, _, _, _, tables = own
    tested = claims.all_claims(tables, scores)
    assert "1,059" not in "".join(claim.text for claim in tested)  # a statement about the authors' table
    page = test_claims.page(tested, changes.describe(tables), test_claims.families(scores))
    assert "The 4 base models come from unknown families." in " ".join(page.split())
    for claim in tested:
        assert claim.text in page
    assert "nan" not in page
    table = test_claims.table(tested)
    assert set(table["verdict"]) <= {"supported", "mixed", "contradicted", "not testable here"}
    assert table.filter(pl.col("verdict") == "not testable here", pl.col("policy").is_null()).height >= 5


def test_families_of_the_published_models_are_counted():
    text = test_claims.families(pl.DataFrame({"model": ["llama3-8b", "llama3-swallow-8b", "olmo-7b", "olmo-7b"]}))
    assert text.startswith("The 3 base models come from 2 families. Base models of one family (llama3: 2) are counted as separate units")
