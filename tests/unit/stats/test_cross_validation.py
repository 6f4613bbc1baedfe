"""Predictions where gains were not seen: values by hand, planted predictors, and none that beats its baseline by chance."""

import numpy as np
import pytest

from helpers.rates import is_at_most
from helpers.two_way import names, world
from sft_atlas.stats.cross_validation import compare, errors, new_base_model, new_dataset


def removed(x, y, seed=0):
    return {name: (estimate, rmse, base) for name, estimate, rmse, _, base in errors(x, y, names(x), seed)}


def test_dataset_mean_and_model_mean_by_hand():
    y = np.array([[1.0, 2, 6], [2.0, 4, 0], [0.0, 0, 3]])
    _, _, mean = new_base_model(np.zeros_like(y), y, names(y))
    relative = y - y.mean(axis=1, keepdims=True)
    assert mean[0] == pytest.approx(relative[1:].mean(axis=0))
    _, level = new_dataset(np.zeros_like(y), y)
    assert level[:, 1] == pytest.approx([3.5, 1.0, 1.5])


def test_a_perfect_predictor_removes_all_error():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 7))
    found = removed(x, 2 * x + rng.normal(size=(5, 1)))
    assert [estimate.effect for estimate, _, _ in found.values()] == pytest.approx([1, 1, 1])
    assert all(rmse < 1e-9 < base for _, rmse, base in found.values())


def test_the_held_out_side_is_not_used():
    rng = np.random.default_rng(1)
    x, y = world(rng, 4, 6, slope=1.0)
    changed = y.copy()
    changed[2] += rng.normal(size=6)
    for one, other in zip(new_base_model(x, y, names(x)), new_base_model(x, changed, names(x)), strict=True):
        assert one[2] == pytest.approx(other[2])
    changed = y.copy()
    changed[:, 3] += rng.normal(size=4)
    for one, other in zip(new_dataset(x, y), new_dataset(x, changed), strict=True):
        assert one[:, 3] == pytest.approx(other[:, 3])


def test_planted_predictors_beat_the_baseline_and_useless_ones_do_not():
    rng = np.random.default_rng(2)
    planted = [removed(*world(rng, 10, 12, slope=2.5), seed=i) for i in range(25)]
    for name in planted[0]:
        assert np.mean([found[name][0].low > 0 and found[name][0].p < 0.05 for found in planted]) > 0.8
    null = [removed(*world(rng, 10, 10), seed=i) for i in range(120)]
    for name in null[0]:
        assert is_at_most([found[name][0].effect > 0 and found[name][0].p < 0.05 for found in null])


def test_a_property_of_the_set_alone_adds_nothing_to_the_dataset_mean():
    rng = np.random.default_rng(3)
    x, y = np.tile(rng.normal(size=8), (5, 1)), rng.normal(size=(5, 8))
    assert np.isnan(removed(x, y)["new base model, dataset known"][0].effect)
    assert np.isfinite(removed(x, y)["new dataset"][0].effect)


def test_fewer_than_three_units_are_undefined():
    x, y = world(np.random.default_rng(4), 2, 6)
    found = removed(x, y)
    assert np.isnan(found["new base model"][0].effect) and np.isfinite(found["new dataset"][0].effect)
    estimate, _, _, _ = compare(y, y, y, np.zeros(y.shape), "base models", 0, "dataset mean")
    assert np.isnan(estimate.effect)
