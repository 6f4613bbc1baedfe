"""Positions of the checkpoints of invented studies on the map, made of random effects: the truths behind tests of the map's statistics."""

import numpy as np
import polars as pl

from sft_atlas.analyse.analyse_map import Vectors

KEYS = ("model", "dataset", "recipe", "method", "rows", "schedule", "epoch")


def grid(models: int, sets: int, last: bool = True, paths: int = 0, merged: bool = False, epochs: int = 4) -> tuple[pl.DataFrame, dict]:
    """Checkpoints and study in the shape of the paper's grid.

    ``last``: every base model x training set x two methods at one epoch; the first ``paths`` base models keep every epoch at two sizes,
    the larger size without the last set; ``merged``: all base models x two methods keep every epoch on the merged set.
    """
    names, data = [f"m{i}" for i in range(models)], [f"d{j}" for j in range(sets)]
    runs = [(m, d, k, k, 1000, "cosine", [epochs]) for m in names for d in data for k in ("full", "lora")] if last else []
    for m in names[:paths]:
        kept = list(range(1, epochs + 1))
        runs += [(m, d, f"long-{rows}", "full", rows, "constant", kept) for rows, n in ((1000, sets), (20000, sets - 1)) for d in data[:n]]
    if merged:
        runs += [(m, "all", k, k, 10000, "cosine", list(range(1, epochs + 1))) for m in names for k in ("full", "lora")]
    keys = pl.DataFrame([(*run[:-1], e) for run in runs for e in run[-1]], schema=list(KEYS), orient="row")
    study = {
        "seed": 0,
        "models": {name: {} for name in names},
        "datasets": {name: {"merged": name == "all", "without": None} for name in [*data, "all"]},
        "runs": [dict(zip(KEYS, run[:-1], strict=False)) for run in runs],
    }
    return keys, study


def placed(keys: pl.DataFrame, rng: np.random.Generator, walk: float = 0.0, size: int = 8, **effects: float) -> Vectors:
    """Sum of normal random effects, and noise, in ``size`` dimensions.

    ``effects``: standard deviation of each combination of keys, such as ``model=2`` or ``model_dataset=1``; ``way`` and names that end
    in ``_way`` are directions, along which epoch e goes e steps. ``walk``: step of each run's random walk.
    """
    values, epoch = rng.normal(size=(keys.height, size)), keys["epoch"].to_numpy()
    for name, strength in effects.items():
        parts = [part for part in name.split("_") if part != "way"]
        steps = epoch[:, None] if name.endswith("way") else 1.0
        values += strength * steps * rng.normal(size=(keys.height, size))[_codes(keys, parts)]
    if walk:
        path = np.cumsum(rng.normal(size=(keys.height, epoch.max(), size)), axis=1)
        values += walk * path[_codes(keys, ["model", "dataset", "recipe"]), epoch - 1]
    return Vectors(keys, values, 1.0, 0)


def _codes(keys: pl.DataFrame, names: list[str]) -> np.ndarray:
    if not names:
        return np.zeros(keys.height, int)
    return np.unique(keys.select(pl.concat_str(names, separator="/")).to_series().to_numpy(), return_inverse=True)[1]
