"""The page *Map*: checkpoints placed by their log-likelihoods of the same texts, and divergences to scale beside them."""

import numpy as np
import polars as pl

from sft_atlas.analyse import analyse_map
from sft_atlas.atlas.contents import Contents, address, by_column
from sft_atlas.atlas.site import Site

TITLE = "Map"
FEWEST = 3


def add(site: Site, contents: Contents) -> None:
    """Write the page and ``data/model_map.js``."""
    site.data("model_map", drawn(contents))
    site.page("model_map", ("datatables", "plotly"), heading="Map of checkpoints", reading=contents.reading)


def drawn(contents: Contents) -> dict:
    """Every checkpoint on the map by column, or None under ``checkpoints`` where there are too few.

    ``views``: positions under the projection of the figure ``model_map`` and, where that is no PCA, under PCA, whose distances are to
    scale. ``distance`` is the divergence from the base model and ``nearest_distance`` that from the nearest checkpoint, in bits per byte.
    ``number``: the place in ``data/checkpoints.js``. Every seed is a point of its own; the figure has their means.
    """
    vectors = contents.vectors
    if vectors is None or len(vectors.values) < FEWEST or not vectors.values.shape[1]:
        return {"checkpoints": None, "views": []}
    keys = vectors.keys
    addresses = [address(*row) for row in keys.select(analyse_map.CHECKPOINT).iter_rows()]
    places = {name: place for place, name in enumerate(contents.checkpoints["address"])}
    squared = vectors.squared_distances()
    np.fill_diagonal(squared, np.inf)
    near = squared.argmin(axis=1)
    moved = analyse_map.distances(vectors).select(*analyse_map.CHECKPOINT, "distance")  # without those whose base model is not on the map
    points = keys.join(moved, on=analyse_map.CHECKPOINT, how="left", maintain_order="left")
    points = points.with_columns(nearest_distance=pl.Series(squared[np.arange(len(near)), near]))
    return {
        "checkpoints": {
            "address": addresses,
            "number": [places.get(name) for name in addresses],
            **by_column(points.select("model", "dataset", "recipe", "epoch", "method", "distance", "nearest_distance")),
            "nearest": [addresses[place] for place in near],
        },
        "views": views(vectors, contents.study["seed"]),
        "texts": vectors.values.shape[1],
        "dropped": vectors.dropped,
    }


def views(vectors: analyse_map.Vectors, seed: int) -> list[dict]:
    """Projections by key: in words, whether distances are to scale, and positions."""
    result = []
    for how in dict.fromkeys((analyse_map.usual(vectors.values), "pca")):
        plane, words = analyse_map.project(vectors.values, how, seed)
        x, y = (np.round(axis, 4).tolist() for axis in np.asarray(plane, dtype=float).T)
        result.append({"key": how, "label": words, "to_scale": how == "pca", "x": x, "y": y})
    return result
