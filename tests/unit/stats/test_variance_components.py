"""Planted variances are found at their size, and intervals cover them."""

import numpy as np
import pytest

from sft_atlas.stats import variance_components as components
from sft_atlas.stats.variance_components import Replicates

SIZES = {"model": 8, "dataset": 6, "method": 3}
NAMES = tuple(SIZES)


def planted(rng, sds: dict[str, float], counts: np.ndarray) -> tuple[np.ndarray, Replicates]:
    """Cell means of a design with these standard deviations by term (``seed``: of a replicate), and the variance of the replicates."""
    shape, values = counts.shape, np.zeros(counts.shape)
    for term, sd in sds.items():
        if term != "seed":
            axes = [NAMES.index(name) for name in term.split(" x ")]
            values = values + rng.normal(0, sd, [size if axis in axes else 1 for axis, size in enumerate(shape)])
    cells = [rng.normal(0, sds.get("seed", 0.0), count) for count in counts.ravel()]
    means = values + np.reshape([cell.mean() for cell in cells], shape)
    return means, Replicates(*components.pooled([cell.var(ddof=1) if len(cell) > 1 else np.nan for cell in cells], counts.ravel()))


def unbalanced(rng) -> np.ndarray:
    return rng.integers(1, 4, tuple(SIZES.values()))


PLANTED = {"model": 2.0, "dataset": 1.0, "method": 0.5, "model x dataset": 1.0, "model x dataset x method": 0.5, "seed": 0.8}


def test_planted_variances_are_found_whatever_the_numbers_of_seeds():
    rng = np.random.default_rng(0)
    sums, draws = {}, 200
    for _ in range(draws):
        counts = unbalanced(rng)
        means, replicates = planted(rng, PLANTED, counts)
        squares = components.mean_squares(means)
        top = max(squares, key=len)
        for term in squares:  # the estimates before they are cut at 0, which are unbiased
            name = " x ".join(NAMES[axis] for axis in term)
            scale = np.prod([size for axis, size in enumerate(means.shape) if axis not in term])
            above = sum((-1) ** (len(other) - len(term)) * squares[other][0] for other in squares if set(other) >= set(term)) / scale
            sums[name] = sums.get(name, 0) + above - (np.mean(1 / counts) * replicates.variance if term == top else 0)
        sums["seed"] = sums.get("seed", 0) + replicates.variance
    for name, total in sums.items():
        assert total / draws == pytest.approx(PLANTED.get(name, 0.0) ** 2, abs=0.15 * max(0.3, PLANTED.get(name, 0.0) ** 2)), name


@pytest.mark.parametrize("sds", [PLANTED, {"seed": 1.0}, {"model": 1.0, "model x dataset": 0.5, "seed": 0.5}])
def test_intervals_of_every_component_cover_it(sds, monkeypatch):
    """Also where it is 0: an interval that begins at 0 covers it."""
    monkeypatch.setattr(components, "DRAWS", 999)
    rng, inside, draws = np.random.default_rng(1), {}, 200
    for i in range(draws):
        counts = unbalanced(rng)
        means, replicates = planted(rng, sds, counts)
        for part in components.crossed_components(means, NAMES, replicates, counts, i):
            truth = sds.get(part.term, 0.0) ** 2
            inside[part.term] = inside.get(part.term, 0) + (part.low <= truth <= part.high)
    for term, hits in inside.items():
        if term != "items":
            assert hits / draws >= 0.91, (term, hits / draws)
            assert hits / draws <= 0.99 or sds.get(term, 0.0) == 0 or term in ("method", "model x dataset x method"), (term, hits / draws)


def test_what_items_do_to_a_gain_is_not_counted_as_seeds():
    (run, seed, items) = components.replicate_components(Replicates(variance=2.0, df=400, known=1.5), seed=0)
    assert (run.variance, seed.variance, items.variance) == (2.0, 0.5, 1.5)
    assert 1.7 < run.low < 2.0 < run.high < 2.4 and seed.low == pytest.approx(run.low - 1.5)
    (_, none, _) = components.replicate_components(Replicates(variance=1.0, df=10, known=1.5), seed=0)
    assert none.variance == 0 and none.low == 0


def test_without_replicates_the_highest_interaction_is_the_rest():
    means, _ = planted(np.random.default_rng(2), PLANTED, np.ones(tuple(SIZES.values()), int))
    found = components.crossed_components(means[:, :, :2], NAMES, None, np.ones((8, 6, 2)), 0)
    assert [part.term for part in found] == [
        "model", "dataset", "method", "model x dataset", "model x method", "dataset x method", "rest"
    ]  # fmt: skip
    assert np.isnan(found[2].low) and found[0].low > 0, "two methods are too few for an interval"
    one_method = components.crossed_components(means[:, :, :1], NAMES, None, np.ones((8, 6, 1)), 0)
    assert [part.term for part in one_method] == ["model", "dataset", "rest"]
    assert components.crossed_components(means[:1, :1, :1], NAMES, None, np.ones((1, 1, 1)), 0) == []


def test_cells_without_replicates_have_no_weight():
    assert components.pooled([1.0, np.nan, 4.0], [3, 1, 2]) == (2.0, 3.0)
    variance, df = components.pooled([np.nan], [1])
    assert np.isnan(variance) and df == 0
