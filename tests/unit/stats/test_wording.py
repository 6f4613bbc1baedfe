"""Estimates in words: verdicts follow interval and corrected p, numbers stand with their n."""

import numpy as np
import pytest

from sft_atlas.stats.estimates import Estimate, paired_difference
from sft_atlas.stats.wording import count, describe, is_significant, verdict


def estimate(effect, low, high, p=0.001):
    return Estimate("x", effect, low, high, p, 10, "runs", "bootstrap over 10 runs")


@pytest.mark.parametrize(
    ("estimated", "q", "words"),
    [
        (estimate(1, 0.5, 1.5), 0.01, "up"),
        (estimate(-1, -1.5, -0.5), 0.01, "down"),
        (estimate(1, 0.5, 1.5), np.nan, "up"),
        (estimate(1, -0.5, 2.5), 0.01, "no significant relation"),
        (estimate(1, 0.5, 1.5), 0.2, "no significant relation after correction for multiple testing"),
        (estimate(1, 0.5, 1.5, p=0.2), 0.2, "no significant relation"),
        (estimate(1, np.nan, np.nan), np.nan, "no significant relation (too few data for an interval)"),
    ],
)
def test_wording_follows_interval_and_corrected_p(estimated, q, words):
    assert verdict(estimated, q, "up", "down", "no significant relation") == words


@pytest.mark.parametrize("units", [2, 3, 4, 5])
def test_units_too_few_for_any_small_p_decide_nothing_and_have_no_p(units):
    alike = paired_difference(np.full(units, 9.0) + np.arange(units), np.arange(units), 0, unit="base models")
    assert verdict(alike, np.nan, "up", "down", "neither") == f"cannot be decided with {units} base models"
    assert "p =" not in describe(alike, np.nan) and not is_significant(alike, np.nan)
    six = paired_difference(np.arange(6) + 9.0, np.arange(6), 0, unit="base models")
    assert verdict(six, 0.04, "up", "down", "neither") == "up" and "p = 0.031" in describe(six, 0.04)


def test_evidence_has_number_interval_p_q_and_n():
    assert describe(estimate(-0.42, -0.61, -0.1, 0.003), 0.01) == "-0.42 [-0.61 to -0.10], p = 0.003, q = 0.010, n = 10 runs"
    assert describe(estimate(-0.0001, -0.1, 0.1), 0.5, digits=1).startswith("0.0 [-0.1 to 0.1]")


@pytest.mark.parametrize(
    ("number", "things", "words"),
    [(1, "runs", "1 run"), (2, "runs", "2 runs"), (1, "pairs of runs", "1 pair of runs"), (1200, "runs", "1,200 runs")],
)
def test_counts_are_grammatical(number, things, words):
    assert count(number, things) == words
