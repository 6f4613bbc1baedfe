"""Simulated gains of base models x training sets, with a predictor."""

import numpy as np


def world(rng, models=6, sets=8, slope=0.0, shared=1.0):
    """A predictor that is half the training set's own, and gains that depend on it by ``slope``, on the set by ``shared``, and on luck."""
    x = 0.7 * rng.normal(size=sets) + 0.7 * rng.normal(size=(models, sets)) + 3 * rng.normal(size=(models, 1))
    y = slope * x + shared * rng.normal(size=sets) + rng.normal(size=(models, sets)) + 3 * rng.normal(size=(models, 1))
    return x, y


def names(x):
    return np.array([f"m{i}" for i in range(len(x))])
