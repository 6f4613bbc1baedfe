"""The power that formulas and cached draws state is the rate at which simulated studies are rejected."""

import itertools

import numpy as np
import pytest
from scipy import stats

from sft_atlas.stats import power
from sft_atlas.stats.estimates import paired_difference

STUDIES = 1500


def holds(rejections, stated, draws=0):
    """Whether the stated power is within Monte-Carlo error (99.9 %) of the rate, and of its own draws where it has some."""
    n = len(rejections)
    error = np.sqrt(stated * (1 - stated) * (1 / n + (1 / draws if draws else 0)))
    return abs(np.mean(rejections) - stated) < 3.3 * error + 1e-9


@pytest.mark.parametrize(
    ("units", "level", "ratio"), [(6, 0.05, 1.5), (8, 0.05, 1.0), (9, 0.05 / 10, 1.8), (11, 0.05, 0.0), (16, 0.05, 0.8)]
)
def test_the_power_of_sign_flips_is_that_of_the_test_that_findings_use(units, level, ratio):
    rng = np.random.default_rng(7)
    studies = 400 if units > 12 else STUDIES  # there the test draws its arrangements
    drawn = ratio + rng.normal(size=(studies, units))
    rejected = [
        paired_difference(values, range(units), seed=i, resamples=1999 if units > 12 else 1).p <= level for i, values in enumerate(drawn)
    ]
    assert holds(rejected, power.sign_flip_power(units, ratio, level), 0 if units > 12 else power.DRAWS)


@pytest.mark.parametrize(("df", "level", "shift"), [(3, 0.05, 3.0), (11, 0.01, 3.5), (40.5, 0.05, 2.0), (1e9, 0.05, 2.8), (5, 0.05, 0.0)])
def test_the_power_of_t_is_its_rate_of_rejections(df, level, shift):
    rng = np.random.default_rng(8)
    t = (shift + rng.normal(size=20_000)) / np.sqrt(rng.chisquare(df, 20_000) / df)
    assert holds(2 * stats.t.sf(np.abs(t), df) <= level, power.t_power(shift, df, level))


def test_the_power_of_t_is_scipys_where_that_is_a_number():
    for df, level, shift in ((2, 0.05, 1.0), (9, 0.001, 6.0), (30, 0.05, 2.0)):
        cut = stats.t.isf(level / 2, df)
        expected = stats.nct.sf(cut, df, shift) + stats.nct.cdf(-cut, df, shift)
        assert power.t_power(shift, df, level) == pytest.approx(expected, abs=1e-3)
    assert power.t_power(60.0, 40.0, 0.05 / 45) == 1.0 and power.t_power(0.0, 4.0, 0.05) == pytest.approx(0.05, abs=1e-3)


def test_too_few_units_have_no_power_and_no_smallest_effect():
    assert power.sign_flip_power(5, 100.0, 0.05) == 0.0 and np.isnan(power.sign_flip_ratio(5, 0.05))
    assert power.sign_flip_power(8, 100.0, 0.05 / 10) == 0.0 and power.sign_flip_power(9, 100.0, 0.05 / 10) == 1.0
    assert power.sign_flip_power(1, 100.0, 0.5) == 0.0


def test_the_smallest_effect_is_seen_with_the_power_asked_for_and_falls_with_more_units():
    for units in (6, 9, 12, 20):
        assert power.sign_flip_power(units, power.sign_flip_ratio(units, 0.05), 0.05) == pytest.approx(0.8, abs=0.003)
    ratios = [power.sign_flip_ratio(units, 0.05) for units in range(6, 25)]
    assert all(more < fewer for fewer, more in itertools.pairwise(ratios))
    assert power.t_power(power.t_shift(7.5, 0.01), 7.5, 0.01) == pytest.approx(0.8, abs=0.003)
    assert power.t_shift(1e9, 0.05) == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8), abs=0.01)


def test_the_test_of_a_standard_deviation_has_the_power_that_is_stated():
    rng = np.random.default_rng(9)
    df, ratio = 8, 1.9
    drawn = ratio**2 * rng.chisquare(df, 20_000)
    assert holds(stats.chi2.sf(drawn, df) <= 0.05, power.deviation_power(ratio, df, 0.05))
    assert power.deviation_power(power.deviation_ratio(df, 0.05), df, 0.05) == pytest.approx(0.8)
