"""Intrinsic dimension of hidden states: pooled states per layer, nearest-neighbour estimators, standard errors."""

import math

import numpy as np

from sft_atlas.models.tokenization import batches

POOLINGS = ("last", "mean")
NEIGHBOURS = 20  # of the MLE, scikit-dimension's default
GRIDE = (2, 4)  # the neighbours compared: a scale beyond the nearest one's noise
TOLERANCE = 1e-5  # distance, relative to the points' root mean square norm, below which two points are the same: float32 noise
MIN_POINTS = 10
REPLICATES = 30


def pooled_states(model, sequences: list[list[int]], batch_size: int, pad: int) -> dict[str, np.ndarray]:
    """Hidden states of each sequence under each pooling: float32 arrays [layers + 1, sequences, hidden].

    Layer 0 is the embedding output, the last one is taken after the final norm, as transformers returns it. "last" is the
    state of the last token; "mean" averages all tokens but the first, whose state is the same for every prompt that starts
    alike and in many models hundreds of times larger than the rest (massive activations, arXiv 2402.17762).
    """
    import torch

    pooled: dict[str, np.ndarray] = {}
    for chosen, ids, mask in batches(sequences, batch_size, pad, model.device):
        with torch.inference_mode():
            states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True).hidden_states
            lengths = mask.sum(1)
            inner = mask.clone()
            inner[:, 0] = (lengths == 1).long()
            weights = (inner / inner.sum(1, keepdim=True)).to(torch.float32)[:, :, None]
            rows = torch.arange(len(chosen), device=ids.device)
            for layer, state in enumerate(states):
                values = {"last": state[rows, lengths - 1].float(), "mean": (state.float() * weights).sum(1)}
                for pooling, value in values.items():
                    if pooling not in pooled:
                        pooled[pooling] = np.empty((len(states), len(sequences), value.shape[1]), np.float32)
                    pooled[pooling][layer, chosen] = value.cpu().numpy()
    return pooled


def distances(points: np.ndarray) -> tuple[np.ndarray, int]:
    """Euclidean distances [n, n] (float64) between the distinct points of [points, features], and the number of duplicates that were left out.

    Duplicates would give nearest-neighbour distances of zero. Centring and float64 keep the cancellation of squared norms harmless.
    """
    wide = points.astype(np.float64)
    scale = math.sqrt(np.square(wide).sum(1).mean())
    wide -= wide.mean(0)
    norms = np.square(wide).sum(1)
    between = np.sqrt(np.maximum(norms[:, None] + norms[None, :] - 2 * wide @ wide.T, 0))
    np.fill_diagonal(between, 0)
    distinct = np.flatnonzero((between <= TOLERANCE * scale).argmax(1) == np.arange(len(points)))
    return between[np.ix_(distinct, distinct)], len(points) - len(distinct)


def estimate(between: np.ndarray, estimator: str) -> float | None:
    """Intrinsic dimension from a distance matrix [n, n] without duplicates; None where it cannot be computed.

    twonn: Facco et al. 2017, linear fit without the top tenth of the ratios. mle: Levina and Bickel 2004 with 20 neighbours,
    pointwise estimates combined by their harmonic mean. gride: Denti et al. 2022, the second against the fourth neighbour.
    """
    import warnings

    if len(between) < MIN_POINTS:
        return None
    count = min(NEIGHBOURS, len(between) - 1)
    nearest = np.sort(np.partition(between, count, axis=1)[:, : count + 1], axis=1)[:, 1:]  # the nearest of all is the point itself
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")
        value = float(ESTIMATORS[estimator](nearest))
    return value if math.isfinite(value) and value > 0 else None


def _twonn(nearest: np.ndarray) -> float:
    import skdim

    return skdim.id.TwoNN(dist=True).fit(nearest[:, :2]).dimension_


def _mle(nearest: np.ndarray) -> float:
    import skdim

    return skdim.id.MLE().fit(nearest, precomputed_knn_arrays=(nearest, None), n_neighbors=nearest.shape[1] - 1).dimension_


def _gride(nearest: np.ndarray) -> float:
    # The public class takes points only, and would search for their neighbours again in every subsample.
    from skdim.id._GRIDE import _gride as fit

    return fit(nearest, *GRIDE)[0]


ESTIMATORS = {"twonn": _twonn, "mle": _mle, "gride": _gride}


def standard_error(between: np.ndarray, estimator: str, seed: int) -> float | None:
    """Standard error of :func:`estimate` by subsampling without replacement (delete-half jackknife); None where it cannot be computed.

    ``sqrt(m / (n - m)) * s``, with s the standard deviation over 30 random subsets of m = n // 2 of the n points (Shao and
    Wu 1989). A bootstrap draws with replacement and so makes duplicates, which these estimators cannot handle.
    """
    size, half = len(between), len(between) // 2
    if half < MIN_POINTS:
        return None
    generator = np.random.default_rng(seed)
    subsets = [generator.choice(size, half, replace=False) for _ in range(REPLICATES)]
    values = [estimate(between[np.ix_(subset, subset)], estimator) for subset in subsets]
    if None in values:
        return None
    return math.sqrt(half / (size - half)) * float(np.std(values, ddof=1))


def dimension_rows(pooled: dict[str, np.ndarray], estimators: list[str], seed: int) -> list[dict]:
    """One row per layer, pooling and estimator: layer, depth (layer / layers), pooling, estimator, dimension, stderr, n, duplicates.

    ``n`` counts the distinct points. A layer whose states are all equal, or nearly so, has nulls: at layer 0 that is always
    so for the last token of a template that ends alike.
    """
    rows = []
    for pooling, states in pooled.items():
        for layer, points in enumerate(states):
            between, duplicates = distances(points)
            for estimator in estimators:
                value = estimate(between, estimator)
                error = None if value is None else standard_error(between, estimator, seed)
                rows.append({
                    "layer": layer, "depth": layer / max(len(states) - 1, 1), "pooling": pooling, "estimator": estimator,
                    "dimension": value, "stderr": error, "n": len(between), "duplicates": duplicates,
                })  # fmt: skip
    return sorted(rows, key=lambda row: (row["layer"], POOLINGS.index(row["pooling"])))
