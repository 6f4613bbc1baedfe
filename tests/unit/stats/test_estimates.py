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
    assert (result.n, result.interval_method) == (20, "bootstrap over 20 runs")


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
    assert np.mean([one.excludes_zero for one in result]) < 0.13  # plain percentiles: 0.2
    assert min(one.p for one in result) >= 2 / 2**5


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
