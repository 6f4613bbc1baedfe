"""Correlations of gains in base models x training sets: exact values, planted effects, and false positives where sets help everyone."""

import time
from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import minimize

from helpers.rates import is_at_most, is_nominal
from helpers.two_way import names, world
from sft_atlas.stats import two_way


def test_effect_and_exact_p_by_hand():
    x = np.array([[1.0, 2, 3, 5], [11, 13, 12, 14]])
    y = np.array([[0.0, 1, 2, 2], [5, 7, 8, 9]])
    a, b = (values - values.mean(axis=1, keepdims=True) for values in (x, y))
    r = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
    orders = [abs((a * b[:, list(order)]).sum()) for order in permutations(range(4))]
    result = two_way.correlation(x, y, names(x), seed=0)
    assert result.effect == pytest.approx(r)
    assert result.p == pytest.approx(np.mean([value >= orders[0] - 1e-9 for value in orders]))  # 24 orders: no random numbers
    assert result.n == 8 and result.interval_method == "bootstrap over 4 training sets"


def test_the_moments_of_a_draw_are_those_of_the_drawn_data():
    rng = np.random.default_rng(0)
    x, y = world(rng, 5, 6)
    x[1, 2] = np.nan
    groups, sets = np.array([[2.0, 0, 1, 1, 1]]), np.array([[0.0, 3, 1, 0, 1, 1]])
    drawn = np.repeat(np.arange(5), groups[0].astype(int)), np.repeat(np.arange(6), sets[0].astype(int))
    a, b = two_way.within_groups(x[np.ix_(*drawn)], y[np.ix_(*drawn)])
    expected = [(a * b).sum(), (a * a).sum(), (b * b).sum()]
    assert two_way.weighted_moments(x, y, groups, sets)[0] == pytest.approx(expected)


@pytest.mark.parametrize(("models", "sets"), [(3, 6), (6, 8), (12, 10)])
def test_false_positives_are_five_percent_where_some_sets_help_everyone(models, sets):
    rng = np.random.default_rng(1)
    result = [two_way.correlation(*world(rng, models, sets), np.arange(models), seed=i, count=399) for i in range(400)]
    assert is_nominal([one.p <= 0.05 for one in result])
    assert is_nominal([one.p_greater <= 0.05 for one in result]) and is_nominal([one.p_less <= 0.05 for one in result])
    assert is_at_most([one.excludes_zero for one in result])


def test_shuffling_within_base_models_finds_what_is_not_there():
    rng = np.random.default_rng(2)
    p = [two_way.within_shuffle_p(*world(rng, 12, 10), seed=i, count=199) for i in range(100)]
    assert np.mean(np.array(p) <= 0.05) > 0.15  # why it is shown for comparison only
    p = [two_way.within_shuffle_p(*world(rng, 12, 10, shared=0.0), seed=i, count=199) for i in range(200)]
    assert is_nominal(np.array(p) <= 0.05)  # right where sets have no effect of their own


def test_a_planted_relation_is_found():
    rng = np.random.default_rng(3)
    result = [two_way.correlation(*world(rng, 12, 10, slope=1.2), np.arange(12), seed=i, count=399) for i in range(60)]
    assert np.mean([one.p <= 0.05 and one.low > 0 for one in result]) > 0.9


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(4)
    large = [two_way.correlation(*world(rng, 200, 60, slope=0.7), np.arange(200), seed=0, count=9).effect for _ in range(10)]
    result = [two_way.correlation(*world(rng, 8, 10, slope=0.7), np.arange(8), seed=i, count=399) for i in range(200)]
    assert np.mean([one.low <= np.mean(large) <= one.high for one in result]) > 0.9


def test_groups_of_one_base_model_stay_together():
    rng = np.random.default_rng(5)
    x, y = world(rng, 12, 7)
    clusters = np.repeat(["a", "b", "c", "d", "e", "f"], 2)
    result = two_way.correlation(x, y, clusters, seed=0, count=99)
    assert result.interval_method == "bootstrap over 6 base models and 7 training sets"
    groups, _, _, _ = two_way.cell_weights(clusters, 7, 0, 50)
    assert (groups[:, ::2] == groups[:, 1::2]).all() and (groups.sum(axis=1) == 12).all()


def test_missing_cells_are_left_out():
    rng = np.random.default_rng(6)
    x, y = world(rng, 5, 8, slope=1.0)
    x[0, 0], y[1, 1] = np.nan, np.nan
    known = np.isfinite(x) & np.isfinite(y)
    a, b = (np.concatenate([row[use] - row[use].mean() for row, use in zip(values, known, strict=True)]) for values in (x, y))
    result = two_way.correlation(x, y, names(x), seed=0, count=199)
    assert result.effect == pytest.approx(np.corrcoef(a, b)[0, 1]) and result.n == 38
    extra = np.full((1, 8), np.nan)
    same = two_way.correlation(np.vstack([x, extra]), np.vstack([y, extra]), [*names(x), "gone"], seed=0, count=199)
    assert repr(same) == repr(result)  # not ==: from CPython 3.13 on a nan makes data classes differ


@pytest.mark.parametrize(("models", "sets"), [(3, 3), (0, 5), (4, 1)])
def test_too_little_is_undefined(models, sets):
    x = np.random.default_rng(0).normal(size=(models, sets))
    assert np.isnan(two_way.correlation(x, x, names(x), seed=0).effect)
    assert np.isnan(two_way.correlation(np.ones((4, 6)), np.ones((4, 6)), names(np.ones(4)), seed=0).p)


@pytest.mark.slow
def test_the_mixed_model_has_its_level_and_finds_a_slope():
    rng = np.random.default_rng(7)
    null = [two_way.mixed_slope(*world(rng), np.arange(6)) for _ in range(150)]
    assert is_at_most([one.p <= 0.05 for one in null]) and not any(np.isnan(one.p) for one in null)
    result = [two_way.mixed_slope(*world(rng, slope=1.2), np.arange(6)) for _ in range(30)]
    assert np.mean([one.low > 0 for one in result]) > 0.8
    # y is in its own units, x in its standard deviation within base models (about 1): the slope is the one that was planted
    assert np.mean([one.effect for one in result]) == pytest.approx(1.2, rel=0.2)


@pytest.mark.slow
def test_what_a_set_does_to_a_benchmark_is_seen_once_and_not_in_every_base_model():
    """A predictor that knows the benchmark, as a similarity does, is the same in all base models; so is a set's effect on a benchmark."""
    rng = np.random.default_rng(10)

    def p(slope=0.0, models=10, benchmarks=3, sets=8):
        x, cell = rng.normal(size=(2, benchmarks, sets))
        y = slope * x + 1.5 * cell + rng.normal(size=sets) + rng.normal(size=(models, benchmarks, sets))
        every = np.broadcast_to(x, y.shape).reshape(-1, sets), y.reshape(-1, sets), np.repeat(np.arange(models), benchmarks)
        return two_way.mixed_slope(*every).p, two_way.correlation(*every, seed=0, count=399).p

    assert all(is_at_most(column) for column in (np.array([p() for _ in range(30)]) <= 0.05).T)
    assert (np.array([p(slope=2.0) for _ in range(6)]) <= 0.05).mean(axis=0).min() > 0.8


def test_the_mixed_model_equals_least_squares_where_there_are_no_random_effects():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(10, 12))
    y = 0.5 * x + rng.normal(size=x.shape)
    result = two_way.mixed_slope(x, y, np.arange(10))
    a, b = two_way.within_groups(x, y)
    assert result.effect == pytest.approx(float((a * b).sum() / (a * a).sum()) * a.std(), rel=0.1)


def benchmarks_world(rng, sets, models=3, benchmarks=4, slope=0.5):
    """A predictor that knows the benchmark and gains with an effect of set, benchmark x set and base model; one cell is missing."""
    x, cell = rng.normal(size=(2, benchmarks, sets))
    y = slope * x + 1.5 * cell + rng.normal(size=sets) + rng.normal(size=(models, benchmarks, sets)) + rng.normal(size=(models, 1, 1))
    every = np.broadcast_to(x, y.shape).reshape(-1, sets).copy(), y.reshape(-1, sets), np.repeat(np.arange(models), benchmarks)
    every[0][1, 2] = np.nan
    return every


def test_the_mixed_model_is_generalised_least_squares_at_the_best_variances():
    """Against the definition, with the covariance of all observations written out."""
    rng = np.random.default_rng(11)
    sets = 8
    x, y, clusters = benchmarks_world(rng, sets)
    known = np.isfinite(x)
    row, column = np.nonzero(known)
    labels = [(row % 4) * sets + column, column, clusters[row], row]
    fixed, target = np.stack([np.ones(known.sum()), x[known]], axis=1), y[known]

    def criterion(logarithms):
        v = np.eye(len(target)) + sum(np.exp(2 * one) * (label[:, None] == label) for one, label in zip(logarithms, labels, strict=True))
        inside = fixed.T @ np.linalg.solve(v, fixed)
        coefficients = np.linalg.solve(inside, fixed.T @ np.linalg.solve(v, target))
        residual = target - fixed @ coefficients
        square = residual @ np.linalg.solve(v, residual) / (len(target) - 2)
        value = np.linalg.slogdet(v)[1] + np.linalg.slogdet(inside)[1] + (len(target) - 2) * np.log(square)
        return value, coefficients[1], np.sqrt(np.linalg.inv(inside)[1, 1] * square)

    best = min(
        (
            minimize(lambda at: criterion(at)[0], start, method="Nelder-Mead", options={"maxiter": 900})
            for start in (np.zeros(4), -np.ones(4))
        ),
        key=lambda result: result.fun,
    )
    _, slope, error = criterion(best.x)
    assert two_way._reml(target, fixed, labels[:2], labels[2:]) == pytest.approx((slope, error), rel=1e-2)


def test_the_cost_of_the_mixed_model_grows_with_the_training_sets_and_not_with_their_cube():
    rng, seconds = np.random.default_rng(12), {}
    for sets in (20, 200):
        every = benchmarks_world(rng, sets)
        started = time.process_time()
        result = two_way.mixed_slope(*every)
        seconds[sets] = time.process_time() - started
        assert np.isfinite(result.effect) and result.n == 12 * sets - 1
    assert seconds[200] < 30 * max(seconds[20], 0.1)


def test_the_same_seed_gives_the_same():
    x, y = world(np.random.default_rng(9))
    assert repr(two_way.correlation(x, y, names(x), seed=3)) == repr(two_way.correlation(x, y, names(x), seed=3))
