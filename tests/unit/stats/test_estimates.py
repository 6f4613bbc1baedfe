"""Statistics on data whose truth is planted: effects are found, and absent ones are not found more often than they should be."""

import numpy as np
import pytest
from scipy import stats

from helpers.rates import is_at_most
from sft_atlas.stats import estimates


def test_benjamini_hochberg_equals_scipy():
    p = np.random.default_rng(0).uniform(size=50) ** 2
    assert estimates.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


def test_benjamini_hochberg_leaves_nan_out():
    adjusted = estimates.benjamini_hochberg([0.01, np.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(adjusted[1])
    assert estimates.benjamini_hochberg([]).size == 0


def test_two_sided_p_is_the_paired_t_test():
    difference = np.random.default_rng(0).normal(0.2, 1, 60)
    z = difference.mean() / (difference.std(ddof=1) / 60**0.5)
    assert estimates.two_sided_p([z], [60])[0] == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
    assert estimates.two_sided_p([np.inf], [60])[0] == 0
    assert np.isnan(estimates.two_sided_p([1.0], [1])[0])


def test_wilson_interval_equals_scipy():
    result = estimates.wilson(7, 20, "share", "runs")
    interval = stats.binomtest(7, 20).proportion_ci(method="wilson")
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), abs=1e-6)


def test_correlation_matrix_is_pairwise_complete():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(4, 30)) + rng.normal(size=30)
    values[0, :5] = values[2, 3:9] = np.nan
    r, n = estimates.correlation_matrix(values)
    for i in range(4):
        for j in range(4):
            both = np.isfinite(values[i]) & np.isfinite(values[j])
            assert n[i, j] == both.sum()
            assert r[i, j] == pytest.approx(np.corrcoef(values[i, both], values[j, both])[0, 1])


def test_correlation_matrix_without_variation_or_pairs_is_nan():
    r, n = estimates.correlation_matrix([[1, 1, 1, 1], [1, 2, 3, 4], [np.nan, np.nan, 1, 2]])
    assert np.isnan(r[0, 1])
    assert np.isnan(r[1, 2])
    assert n[1, 2] == 2


MODEL, BENCHMARK = (axis.ravel() for axis in np.meshgrid(range(6), range(8), indexing="ij"))


def test_most_similar_finds_the_planted_pair():
    values = np.random.default_rng(4).normal(size=(5, 48))
    values[3] = values[1] + 0.3 * values[3]
    result = estimates.most_similar(values, list("abcde"), seed=0, axes=(MODEL, BENCHMARK), permutations=199)
    assert result.what == "b and d"
    assert result.p < 0.01
    assert result.low > 0.7
    assert result.interval_method == "bootstrap over 6 base models and 8 benchmarks"
    values[:, 5:9] = np.nan
    assert estimates.most_similar(values, list("abcde"), seed=0, axes=(MODEL, BENCHMARK), permutations=199).p < 0.01


def test_most_similar_pays_for_its_search_and_takes_base_models_and_benchmarks_as_wholes():
    """What a set does in one base model, on every benchmark, and on one benchmark, in every base model: nothing is shared by sets."""
    rng, p = np.random.default_rng(5), []
    for i in range(60):
        values = rng.normal(size=(6, 48)) + rng.normal(size=(6, 6))[:, MODEL] + rng.normal(size=(6, 8))[:, BENCHMARK]
        p.append(estimates.most_similar(values, list("abcdef"), i, (MODEL, BENCHMARK), permutations=99).p)
    assert is_at_most(np.array(p) <= 0.05)


def test_paired_difference_finds_the_planted_effect():
    rng = np.random.default_rng(6)
    clusters = np.repeat(np.arange(20), 4)
    result = estimates.paired_difference(rng.normal(1, 1, 80) + rng.normal(0, 0.5, 20)[clusters], clusters, seed=0)
    assert 0.5 < result.low < result.effect < result.high < 1.6
    assert result.p < 0.001
    assert (result.n, result.interval_method) == (20, "t over 20 runs")


def test_paired_difference_is_exact_for_few_clusters():
    result = estimates.paired_difference([1.0, 2.0, 3.0], [0, 1, 2], seed=0)
    assert result.p == pytest.approx(2 / 8)


def test_paired_difference_counts_clusters_not_rows():
    rng = np.random.default_rng(7)
    result = [
        estimates.paired_difference(np.repeat(rng.normal(size=15), 10), np.repeat(np.arange(15), 10), seed=i, resamples=999)
        for i in range(300)
    ]
    assert 0.02 < np.mean([one.p < 0.05 for one in result]) < 0.09
    assert np.mean([one.excludes_zero for one in result]) < 0.09


def test_interval_of_few_clusters_covers():
    rng = np.random.default_rng(10)
    result = [estimates.paired_difference(rng.normal(size=5), np.arange(5), seed=i, resamples=999) for i in range(300)]
    assert np.mean([one.excludes_zero for one in result]) < 0.08  # of a bootstrap, plain percentiles: 0.2, expanded ones: 0.1
    assert min(one.p for one in result) >= 2 / 2**5


@pytest.mark.parametrize("units", [5, 6, 8, 12])
def test_intervals_over_base_models_cover_with_the_noise_of_training_in_them(units):
    """Base models are the units of ten training sets with three seeds each; more seeds change what is covered by nothing."""
    rng = np.random.default_rng(12)
    covered = []
    for i in range(1000):
        seeds = rng.normal(0, 1, (units, 10, 3)).mean(axis=2)
        gains = rng.normal(0, 1, (units, 1)) + rng.normal(0, 1, (units, 10)) + seeds
        one = estimates.paired_difference(gains.ravel(), np.repeat(np.arange(units), 10), seed=i, resamples=19)
        covered.append(one.low <= 0 <= one.high)
    assert 0.935 <= np.mean(covered) <= 0.965  # two standard errors of 1,000 draws


def test_paired_difference_of_one_cluster_has_no_interval():
    result = estimates.paired_difference([1.0, 2.0], [0, 0], seed=0)
    assert result.effect == 1.5
    assert np.isnan([result.low, result.p]).all()


def test_combined_is_the_mean_with_bonferroni():
    result = estimates.combined([1.0, 3.0, np.nan], [0.6, 0.8, 1.0], "x", "base models", tests=3)
    assert result.effect == 2.0
    assert result.high - result.effect == pytest.approx(1.959964 * 0.5)
    assert result.p == pytest.approx(3 * 2 * stats.norm.sf(4.0))


def squared(points):
    return ((points[:, None] - points[None]) ** 2).sum(axis=-1)


def test_explained_share_equals_the_sums_of_squares():
    rng = np.random.default_rng(8)
    labels, units = np.repeat([0, 1, 2], 10), np.tile(np.arange(10), 3)
    points = rng.normal(size=(30, 5)) + 2 * rng.normal(size=(3, 5))[labels]
    within = sum(((points[labels == k] - points[labels == k].mean(axis=0)) ** 2).sum() for k in range(3))
    result = estimates.explained_share(squared(points), labels, units)
    assert result.effect == pytest.approx(1 - within / ((points - points.mean(axis=0)) ** 2).sum())
    assert result.low < result.effect < result.high


def test_explained_share_needs_two_labels():
    assert np.isnan(estimates.explained_share(squared(np.random.default_rng(0).normal(size=(5, 2))), ["a"] * 5, range(5)).effect)


def test_everything_is_the_same_for_the_same_seed():
    y, group = np.random.default_rng(1).normal(size=48), np.repeat(np.arange(6), 8)
    assert estimates.paired_difference(y, group, seed=5) == estimates.paired_difference(y, group, seed=5)


# ---------------------------------------------------------------- one side, few units


def one_sided(rng: np.random.Generator, n: int, effect: float) -> estimates.Estimate:
    return estimates.paired_difference(effect + rng.normal(size=n), np.arange(n), 0, resamples=99)


@pytest.mark.parametrize("n", [6, 9, 15])
def test_one_sided_tests_have_their_level_and_find_an_effect_on_their_side(n):
    rng = np.random.default_rng(n)
    null = [one_sided(rng, n, 0.0) for _ in range(300)]
    assert is_at_most([one.p_greater <= 0.05 for one in null]) and is_at_most([one.p_less <= 0.05 for one in null])
    planted = [one_sided(rng, n, 1.5) for _ in range(40)]
    assert np.mean([one.p_greater <= 0.05 for one in planted]) > 0.8 and min(one.p_less for one in planted) > 0.5


def test_one_sided_p_is_that_of_scipy():
    values = np.random.default_rng(1).normal(0.4, 1, 8)
    one = estimates.paired_difference(values, np.arange(8), 0)
    for side, p in (("greater", one.p_greater), ("less", one.p_less)):
        exact = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative=side)
        assert p == pytest.approx(
            np.mean(
                exact.null_distribution >= values.mean() - 1e-12 if side == "greater" else exact.null_distribution <= values.mean() + 1e-12
            )
        )


def test_fewer_than_five_units_have_a_range_and_no_interval():
    one = estimates.paired_difference([0.1, 0.3, 0.8, 0.6], ["a", "a", "b", "c"], 0, unit="base models")
    assert np.isnan(one.low) and (one.smallest, one.largest) == pytest.approx((0.2, 0.8)) and one.interval_method == "none"
    assert not np.isnan(estimates.paired_difference(np.arange(5.0), np.arange(5), 0).low)


def test_the_smallest_p_is_that_of_units_that_all_agree():
    for n in (2, 5, 6, 9, 12):
        assert estimates.smallest_p(n) == pytest.approx(estimates.paired_difference(np.ones(n), np.arange(n), 0).p)
    assert estimates.smallest_p([1, 9]) == pytest.approx([1.0, 0.00390625])


def cells(rng: np.random.Generator, effect: float) -> tuple[list[float], list[int]]:
    """p and n of 40 cells, of which half have only four units and cannot be decided; ``effect`` in half of the others."""
    n = [4] * 20 + [9] * 20
    found = [one_sided(rng, size, effect if i % 2 else 0.0) for i, size in enumerate(n)]
    return [one.p for one in found], n


def test_cells_that_cannot_be_decided_are_not_in_the_correction():
    rng = np.random.default_rng(3)
    p, n = cells(rng, 2.0)
    q = estimates.decidable_q(p, n)
    assert np.isnan(q[:20]).all() and (q[20:] < 0.05).sum() >= 8
    assert (q[20:] <= estimates.benjamini_hochberg(p)[20:]).all()
    # Without any effect, a false positive anywhere is as rare as the level.
    assert is_at_most([np.nanmin(estimates.decidable_q(*cells(rng, 0.0))) < 0.05 for _ in range(60)])


def test_the_noise_of_training_widens_an_interval_over_items_and_takes_its_degrees_of_freedom():
    alone = estimates.combined([1.0, 3.0], [0.6, 0.8], "x", "base models")
    seeds = ([0.3, 0.3], [0.4, 0.4], [4.0, 4.0])
    both = estimates.combined([1.0, 3.0], [0.6, 0.8], "x", "base models", training=seeds)
    variance = (0.36 + 0.64 + 2 * 0.09) / 4
    free = variance**2 / ((2 * 0.16 / 4) ** 2 / 4)
    assert both.high - both.effect == pytest.approx(stats.t.ppf(0.975, free) * variance**0.5) and both.p > alone.p
    assert both.interval_method == estimates.BOTH_NOISES
    one_run = estimates.combined([1.0, 3.0], [0.6, 0.8], "x", "scores", training=seeds, runs=["a", "a"])
    assert one_run.high > both.high, "what a seed does to all scores of a run does not average out"
    unknown = estimates.combined([1.0, 3.0], [0.6, 0.8], "x", "base models", training=([0.3, np.nan], *seeds[1:]))
    assert repr(unknown) == repr(alone)  # not ==: from CPython 3.13 on a nan makes data classes differ


def test_the_interval_of_a_paired_difference_is_that_of_the_t_test():
    differences = np.random.default_rng(13).normal(size=7)
    interval = stats.ttest_1samp(differences, 0).confidence_interval()
    one = estimates.paired_difference(np.repeat(differences, 3), np.repeat(np.arange(7), 3), seed=0)
    assert (one.low, one.high) == pytest.approx(tuple(interval))
