"""Intrinsic dimension on manifolds of known dimension, its standard error, and pooled states that do not depend on the batch."""

import numpy as np
import pytest

from sft_atlas.measure.intrinsic_dimension import ESTIMATORS, dimension_rows, distances, estimate, pooled_states, standard_error
from sft_atlas.models.base_model import ModelFolder, load_model


def manifold(dimension, points=600, features=40, seed=0):
    """A curved ``dimension``-dimensional sheet in a space of ``features`` dimensions."""
    generator = np.random.default_rng(seed)
    inner = generator.uniform(size=(points, dimension))
    wide = np.concatenate([inner, np.sin(2 * inner)], 1) @ generator.normal(size=(2 * dimension, features))
    return wide.astype(np.float32)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("dimension", "tolerance"), [(2, 0.3), (5, 0.9)])
def test_known_dimensions(estimator, dimension, tolerance):
    between, duplicates = distances(manifold(dimension) + 100)  # the place of the cloud does not matter
    value, error = estimate(between, estimator), standard_error(between, estimator, 0)
    assert duplicates == 0 and value == pytest.approx(dimension, abs=tolerance)
    assert 0.01 < error < 0.5 and error == standard_error(between, estimator, 0)


def test_estimators_are_those_of_scikit_dimension():
    import skdim

    points = manifold(4, points=200).astype(np.float64)
    between, _ = distances(points)
    assert estimate(between, "twonn") == pytest.approx(skdim.id.TwoNN().fit(points).dimension_, rel=1e-6)
    assert estimate(between, "mle") == pytest.approx(skdim.id.MLE().fit(points).dimension_, rel=1e-6)
    assert estimate(between, "gride") == pytest.approx(skdim.id.GRIDE(n1=2, n2=4).fit(points).dimension_, rel=1e-6)


def test_standard_error_is_about_the_spread_over_samples():
    values = [estimate(distances(manifold(3, 300, seed=seed))[0], "twonn") for seed in range(12)]
    errors = [standard_error(distances(manifold(3, 300, seed=seed))[0], "twonn", 0) for seed in range(3)]
    assert 0.4 < np.mean(errors) / np.std(values, ddof=1) < 2.5


def test_duplicates_are_left_out_and_counted():
    points = manifold(3, 200)
    between, duplicates = distances(np.concatenate([points, points[:50] * np.float32(1 + 1e-7), points[:10]]))
    assert between.shape == (200, 200) and duplicates == 60
    assert estimate(between, "twonn") == pytest.approx(estimate(distances(points)[0], "twonn"), rel=1e-3)


def test_what_cannot_be_estimated_is_null():
    same = np.ones((30, 8), np.float32)
    few = manifold(2, 15)
    rows = dimension_rows({"last": np.stack([same, same]), "mean": np.stack([few, few])[:, :, :8]}, ["twonn", "mle"], 0)
    assert [(row["layer"], row["pooling"]) for row in rows[::2]] == [(0, "last"), (0, "mean"), (1, "last"), (1, "mean")]
    assert [row["depth"] for row in rows[::2]] == [0, 0, 1, 1]
    for row in rows:
        if row["pooling"] == "last":
            assert (row["dimension"], row["stderr"], row["n"], row["duplicates"]) == (None, None, 1, 29)
        else:
            assert row["dimension"] > 0 and row["stderr"] is None and row["n"] == 15


def test_states_do_not_depend_on_the_batch(tiny_base):
    import torch

    model = load_model(ModelFolder.read(tiny_base))
    generator = np.random.default_rng(0)
    sequences = [generator.integers(3, 320, size=length).tolist() for length in (5, 1, 12, 7)]
    pooled = pooled_states(model, sequences, 3, 0)
    for index, ids in enumerate(sequences):
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer, state in enumerate(states):
            assert pooled["last"][layer, index] == pytest.approx(state[0, -1].numpy(), abs=1e-4)
            assert pooled["mean"][layer, index] == pytest.approx(state[0, min(1, len(ids) - 1) :].mean(0).numpy(), abs=1e-4)
