"""Partition of squared distances: sums of squares by hand, and what each test permutes."""

import numpy as np
import pytest

from sft_atlas.stats.estimates import explained_share
from sft_atlas.stats.permanova import CellPermutationTest, SignFlipTest, gower, partition


def squared(points):
    return ((points[:, None] - points[None]) ** 2).sum(axis=-1)


def grid(*sizes):
    return [axis.ravel() for axis in np.meshgrid(*map(range, sizes), indexing="ij")]


def test_shares_are_sums_of_squares_and_add_up_in_a_balanced_design():
    rng = np.random.default_rng(0)
    model, dataset, method = grid(3, 4, 2)
    points = rng.normal(size=(24, 5)) + 2 * rng.normal(size=(3, 5))[model] + rng.normal(size=(4, 5))[dataset]
    tests = {"model": (CellPermutationTest(model, dataset, method, "models", "set"),), "method": (SignFlipTest(model, "models"),)}
    terms = partition(squared(points), {"model": model, "dataset": dataset, "method": method}, 0, tests)
    centred = points - points.mean(axis=0)
    for term, labels in zip(terms, (model, dataset, method), strict=False):
        means = np.array([centred[labels == label].mean(axis=0) for label in labels])
        assert term.share == pytest.approx((means**2).sum() / (centred**2).sum())
    assert sum(term.share for term in terms) == pytest.approx(1)
    assert [term.df for term in terms] == [2, 3, 1, 24 - 1 - 6]
    assert terms[0].p < 0.02 and terms[0].share > 2 * terms[0].chance
    assert [(np.isnan(term.p), term.test) for term in terms[1:3]] == [(True, ""), (True, "3 models are too few for a sign-flip test")]


def test_one_factor_is_permanova_as_it_was():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], 8)
    distances = squared(rng.normal(size=(24, 3)) + rng.normal(size=(3, 3))[labels])
    (term, _) = partition(distances, {"model": labels}, 0, {})
    assert term.share == pytest.approx(explained_share(distances, labels, labels).effect)


def test_gower_gives_inner_products():
    points = np.random.default_rng(2).normal(size=(7, 3))
    centred = points - points.mean(axis=0)
    assert gower(squared(points)) == pytest.approx(centred @ centred.T)


def test_signs_are_all_tried_and_equal_the_sums_of_flipped_residuals():
    rng = np.random.default_rng(3)
    unit, method = grid(6, 2)
    points = rng.normal(size=(12, 3))
    (term, _) = partition(squared(points), {"method": method}, 0, {"method": (SignFlipTest(unit, "models"),)})
    centred = points - points.mean(axis=0)
    between = []
    for bits in range(64):
        flipped = centred * np.array([1 if bits >> u & 1 else -1 for u in unit])[:, None]
        added = 6 * sum(((flipped[method == m].mean(axis=0) - flipped.mean(axis=0)) ** 2).sum() for m in (0, 1))
        between.append(added / (((flipped - flipped.mean(axis=0)) ** 2).sum() - added))
    assert term.p == pytest.approx(np.mean(np.array(between) >= between[-1] - 1e-9))


def test_only_cells_of_the_same_roles_change_places():
    cells = CellPermutationTest(np.array(list("aabbc")), np.array(list("mmmmm")), np.array(list("lflff")), "sets", "model")
    assert sorted(map(np.ndarray.tolist, cells.blocks())) == [[[1, 0], [3, 2]], [[4]]]
    assert cells.obstacle()


# One base model's answers to sets, methods and epochs are its own: no null has independent checkpoints.


def test_poor_designs_are_empty_or_undefined():
    points = squared(np.random.default_rng(5).normal(size=(6, 2)))
    assert partition(points, {"model": ["a"] * 6}, 0, {}) == []
    assert partition(points, {"model": list("abcdef")}, 0, {}) == []
    confounded = partition(points, {"model": list("aabbcc"), "again": list("xxyyzz")}, 0, {})
    assert [term.df for term in confounded] == [0, 0, 3] and np.isnan(confounded[0].share)
