"""Place checkpoints by the log-likelihoods that they give to the same texts (Oyama et al. 2025, arXiv 2502.16173)."""

from dataclasses import dataclass

import numpy as np
import polars as pl

CHECKPOINT = ["model", "dataset", "recipe", "epoch"]
CLIPPED = 0.02
FEWEST_FOR_NEIGHBOURS = 30


@dataclass(frozen=True)
class Vectors:
    """``keys``: one row per checkpoint; ``values``: checkpoints x texts, nats, clipped and double-centred; ``bytes``: per text, mean."""

    keys: pl.DataFrame
    values: np.ndarray
    bytes: float
    dropped: int

    def squared_distances(self) -> np.ndarray:
        """Checkpoints x checkpoints: estimated Kullback-Leibler divergence in bits per byte.

        Half the mean squared difference of centred log-likelihoods estimates it in nats per text (Oyama et al., eq. 5), to second order:
        for models far apart it is a squared distance in these units, not their divergence.
        """
        square = (self.values**2).sum(axis=1)
        distances = np.maximum(square[:, None] + square[None, :] - 2 * self.values @ self.values.T, 0)
        np.fill_diagonal(distances, 0)
        return distances / (2 * self.values.shape[1]) / (np.log(2) * self.bytes)


def vectors(likelihood: pl.DataFrame, clipped: float = CLIPPED) -> Vectors:
    """Vectors of all checkpoints over the texts that every one of them has; ``dropped`` counts the other texts.

    The lowest 2 % (``clipped``) of all log-likelihoods are raised to that quantile, so that a few absurd values do not make the map.
    """
    columns = list(dict.fromkeys([*CHECKPOINT, "method", "rows", "schedule"]))
    keys = likelihood.select(columns).unique(maintain_order=True).with_row_index("_row")
    texts = likelihood.select("benchmark", "item").unique(maintain_order=True).with_row_index("_column")
    indexed = likelihood.join(keys.select("_row", *CHECKPOINT), on=CHECKPOINT).join(texts, on=["benchmark", "item"])
    matrix = np.full((keys.height, texts.height), np.nan)
    matrix[indexed["_row"].to_numpy(), indexed["_column"].to_numpy()] = indexed["log_likelihood"].to_numpy()
    known = ~np.isnan(matrix).any(axis=0)
    matrix = matrix[:, known]
    if matrix.size:
        matrix = np.maximum(matrix, np.quantile(matrix[np.isfinite(matrix)], clipped))
        matrix = matrix - matrix.mean(axis=1, keepdims=True)
        matrix = matrix - matrix.mean(axis=0, keepdims=True)
    size = indexed.filter(pl.Series(known)[indexed["_column"]])["bytes"].mean()  # of the texts that are compared
    return Vectors(keys.drop("_row"), matrix, float(size) if size else np.nan, int((~known).sum()))


def embed(values: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """2-D positions of the rows of ``values`` and how they were found: PCA below 30 rows, else t-SNE."""
    return drawn(values, "tsne" if len(values) >= FEWEST_FOR_NEIGHBOURS else "pca", seed)


def drawn(values: np.ndarray, how: str, seed: int) -> tuple[np.ndarray, str]:
    """2-D positions of the rows of ``values`` by ``pca``, ``tsne`` or ``umap`` (both from principal components, seeded), and in words.

    The last two draw neighbourhoods; below 30 rows (``FEWEST_FOR_NEIGHBOURS``) those are too few to be drawn.
    """
    centred = values - values.mean(axis=0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    principal = (left * scale)[:, :50]
    if how == "pca":
        plane = np.zeros((len(values), 2))
        plane[:, : min(2, principal.shape[1])] = principal[:, :2]
        share = scale[:2] ** 2 / max((scale**2).sum(), 1e-300)
        return plane, f"PCA, {share.sum():.0%} of the variance"
    if how == "tsne":
        from openTSNE import TSNE

        near = min(30, (len(values) - 1) / 3)
        tsne = TSNE(perplexity=near, initialization="pca", neighbors="exact", negative_gradient_method="bh", n_jobs=1, random_state=seed)
        return np.asarray(tsne.fit(principal)), f"t-SNE, perplexity {near:.0f}"
    from umap import UMAP

    near = min(15, len(values) // 3)
    return UMAP(n_neighbors=near, n_jobs=1, random_state=seed).fit_transform(principal), f"UMAP, {near} neighbours"


def distances(found: Vectors) -> pl.DataFrame:
    """Divergence of every checkpoint from its own base model, bits per byte: the keys and ``distance``; base models are at 0."""
    keys = found.keys.with_row_index("_row")
    base = keys.filter(pl.col("epoch") == 0).select("model", pl.col("_row").alias("_base"))
    keys = keys.join(base, on="model", maintain_order="left")
    squared = found.squared_distances()
    return keys.with_columns(pl.Series("distance", squared[keys["_row"].to_numpy(), keys["_base"].to_numpy()], dtype=pl.Float64)).drop(
        "_row", "_base"
    )
