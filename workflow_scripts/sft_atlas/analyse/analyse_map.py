"""Map checkpoints by their log-likelihoods of the same texts (Oyama et al. 2025, arXiv 2502.16173), and partition the distances.

Distances are divergences in bits per byte (:meth:`Vectors.squared_distances`), which add up like squared lengths.
"""

import argparse
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.core.files import write_table
from sft_atlas.stats import two_way
from sft_atlas.stats.estimates import Estimate, expanded_interval, explained_share, undefined, wilson
from sft_atlas.stats.permanova import CellPermutationTest, SignFlipTest, Term, partition
from sft_atlas.study.result_files import REAL, TEXT, WHOLE, columns
from sft_atlas.tables import stored

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
    """2-D positions of the rows of ``values`` and the method: PCA below 30 rows, else t-SNE."""
    return project(values, usual(values), seed)


def usual(values: np.ndarray) -> str:
    """The projection of the map of so many checkpoints (rows)."""
    return "tsne" if len(values) >= FEWEST_FOR_NEIGHBOURS else "pca"


def project(values: np.ndarray, how: str, seed: int) -> tuple[np.ndarray, str]:
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
        from openTSNE.affinity import PerplexityBasedNN
        from scipy.spatial.distance import pdist, squareform

        near = min(30, (len(values) - 1) / 3)
        # From distances: looking for neighbours itself, openTSNE 1.0.4 imports pynndescent, also where it does not use it, and that compiles for 20 s.
        affinities = PerplexityBasedNN(squareform(pdist(principal)), perplexity=near, metric="precomputed", n_jobs=1)
        tsne = TSNE(perplexity=near, initialization="pca", negative_gradient_method="bh", n_jobs=1, random_state=seed)
        return np.asarray(tsne.fit(principal, affinities=affinities)), f"t-SNE, perplexity {near:.0f}"
    from umap import UMAP

    near = min(15, len(values) // 3)
    return UMAP(n_neighbors=near, n_jobs=1, random_state=seed).fit_transform(principal), f"UMAP, {near} neighbours"


def distances(checkpoints: Vectors) -> pl.DataFrame:
    """Divergence of every checkpoint from its own base model, bits per byte: the keys and ``distance``; base models are at 0."""
    keys = checkpoints.keys.with_row_index("_row")
    base = keys.filter(pl.col("epoch") == 0).select("model", pl.col("_row").alias("_base"))
    keys = keys.join(base, on="model", maintain_order="left")
    moved = checkpoints.squared_distances()[keys["_row"].to_numpy(), keys["_base"].to_numpy()]
    return keys.drop("_row", "_base").with_columns(pl.Series("distance", moved, dtype=pl.Float64))


FINE = 256  # arrangements, of nine units: a p of few signs is coarse, and for model and dataset there is another test
SHARES = columns("design term", TEXT) | {"share": REAL, "df": WHOLE, "f": REAL, "p": REAL, "n": WHOLE, "chance": REAL, "test": TEXT}
EFFECTS = {"effect": TEXT, **columns("value low high p", REAL), "n": WHOLE, **columns("unit interval_method", TEXT), "reference": REAL}
SPREAD = columns("model kind recipe", TEXT) | {"epoch": WHOLE, "spread": REAL, "runs": WHOLE}


def shares(checkpoints: Vectors, study: dict) -> pl.DataFrame:
    """Shares of the squared distance (``SHARES``; ``chance`` and ``test`` as in :class:`sft_atlas.stats.permanova.Term`).

    design ``last``: last checkpoints of single-set runs with the main recipes; terms model, dataset, method, residual. What a training
    set does is free to differ between base models, and the reverse, so that the units of one are the other's; a method is tested over
    base models, or, where these are few, over training sets, which takes these base models as given.
    design ``epochs``: all kept epochs of the runs that keep two or more; terms run (model x dataset x recipe; not tested), epoch,
    residual. The order of a path's epochs cannot be shuffled and one order for all runs changes nothing, so the units are again base
    models, or training sets; all merged sets count as one, because they share data.
    """
    squared, rows = checkpoints.squared_distances(), []
    if not checkpoints.values.size:
        return pl.DataFrame(rows, schema=SHARES)
    keys = checkpoints.keys.with_row_index("_row")
    kept = keys.filter(pl.col("epoch") > 0).filter(pl.col("epoch").n_unique().over(select.RUN) > 1)
    model, dataset = kept["model"].to_numpy(), kept["dataset"].to_numpy()
    single = np.where(np.isin(dataset, select.kinds(study, "single")), dataset, "merged")
    factors = {"run": model + "/" + dataset + "/" + kept["recipe"].to_numpy(), "epoch": kept["epoch"].to_numpy()}
    tests = {"epoch": (SignFlipTest(model, "base models"), SignFlipTest(single, "training sets"))}
    at = kept["_row"].to_numpy()
    epochs = partition(squared[np.ix_(at, at)], factors, study["seed"], tests) if len(at) > 2 else []
    for design, terms in (("last", last_terms(checkpoints, study)), ("epochs", epochs)):
        rows += [{"design": design, "term": term.name, **vars(term)} for term in terms]
    return pl.DataFrame(rows, schema=SHARES, orient="row")


def last_terms(checkpoints: Vectors, study: dict) -> list[Term]:
    """The terms of the design ``last`` of :func:`shares`."""
    last = select.single(checkpoints.keys.with_row_index("_row"), study)
    if not checkpoints.values.size or last.height < 3:
        return []
    at = last["_row"].to_numpy()
    factors = {name: last[name].to_numpy() for name in ("model", "dataset", "method")}
    model, dataset, method = factors.values()
    by_model, by_set = SignFlipTest(model, "base models"), SignFlipTest(dataset, "training sets")
    tests = {
        "model": (replace(by_set, fewest=FINE), CellPermutationTest(model, dataset, method, "base models", "training set")),
        "dataset": (replace(by_model, fewest=FINE), CellPermutationTest(dataset, model, method, "training sets", "base model")),
        "method": (by_model, by_set),
    }
    return partition(checkpoints.squared_distances()[np.ix_(at, at)], factors, study["seed"], tests)


def base_share(checkpoints: Vectors, study: dict) -> tuple[Estimate, float]:
    """Share of the squared distance between the last checkpoints of single-set runs that lies between base models, and by chance.

    The p is that of the term in :func:`shares`; the interval is a jackknife over training sets.
    """
    what = "share of squared distance between base models"
    term = next((term for term in last_terms(checkpoints, study) if term.name == "model"), None)
    if term is None:
        return undefined(what, 0, "checkpoints"), np.nan
    last = select.single(checkpoints.keys.with_row_index("_row"), study)
    at = last["_row"].to_numpy()
    share = explained_share(checkpoints.squared_distances()[np.ix_(at, at)], last["model"].to_numpy(), last["dataset"].to_numpy(), what)
    return replace(share, p=term.p), term.chance


def spread(checkpoints: Vectors, study: dict) -> pl.DataFrame:
    """Mean divergence of a base model's checkpoints from their common centre, by kept epoch (``SPREAD``): recipes of single-set runs
    that keep two or more epochs of two or more training sets. Corrected for the centre being estimated, n / (n - 1)."""
    rows = []
    for (model, recipe, epoch), part in _from_centre(checkpoints, study).group_by("model", "recipe", "epoch", maintain_order=True):
        value = part["distance"].to_numpy().mean()
        rows.append({"model": model, "kind": "single sets", "recipe": recipe, "epoch": epoch, "spread": value, "runs": part.height})
    return pl.DataFrame(rows, schema=SPREAD)


def _from_centre(checkpoints: Vectors, study: dict) -> pl.DataFrame:
    """The keys of the checkpoints of :func:`spread` and their divergence from the centre (``distance``)."""
    keys = checkpoints.keys.with_row_index("_row").filter(pl.col("dataset").is_in(select.kinds(study, "single")))
    keys = keys.filter(pl.col("epoch").n_unique().over(select.RUN) > 1).filter(pl.col("dataset").n_unique().over("model", "recipe") > 1)
    parts, distances = [keys.clear().with_columns(distance=pl.lit(0.0))], checkpoints.squared_distances()
    for _, part in keys.sort("dataset").group_by("model", "recipe", "epoch", maintain_order=True):
        if part.height > 1:
            squared = distances[np.ix_(part["_row"].to_numpy(), part["_row"].to_numpy())]
            value = (squared.mean(axis=1) - squared.mean() / 2) * part.height / (part.height - 1)
            parts.append(part.with_columns(distance=pl.Series(value)))
    return pl.concat(parts)


def effects(checkpoints: Vectors, study: dict) -> pl.DataFrame:
    """Paired effects on divergences (``EFFECTS``), bits per byte; rows are undefined where the study has no such runs.

    Intervals and p take base models, or training sets where those are few (``unit``, :func:`sft_atlas.analyse.select.units`), as independent.

    ``spread``: last minus first kept epoch of the divergence from the base model's common centre; ``size``: divergence from the base
    model at the largest minus the smallest number of rows; ``method``: the same, LoRA minus full; ``same set``: share of LoRA
    checkpoints whose nearest fully tuned checkpoint of the same base model was trained on the same set (``reference``: by chance); its p
    renames the training sets of the LoRA runs, alike in all base models, its interval resamples base models (of five) and training sets.
    """
    single = select.kinds(study, "single")
    moved = distances(checkpoints).filter(pl.col("epoch") > 0, pl.col("dataset").is_in(single))
    methods = select.method_pairs(moved, study, "distance", ("model", "dataset"))
    rows = [
        _mean_difference("spread", select.epoch_change(_from_centre(checkpoints, study), "distance"), study, "runs"),
        _mean_difference("size", select.size_change(moved, "distance"), study),
        _mean_difference("method", methods.with_columns(difference=pl.col("lora") - pl.col("full")), study),
        _same_set(checkpoints, study),
    ]
    return pl.DataFrame(rows, schema=EFFECTS)


def _row(name: str, estimate: Estimate, reference: float | None = None) -> dict[str, object]:
    return {**vars(estimate), "effect": name, "value": estimate.effect, "reference": reference}


def _mean_difference(name: str, frame: pl.DataFrame, study: dict, unit: str = "training sets") -> dict[str, object]:
    """The effect ``name``: the mean of ``difference`` over the runs in ``frame``."""
    return _row(name, undefined("", 0, unit) if frame.is_empty() else select.mean_difference(frame, study["seed"]))


def _same_set(checkpoints: Vectors, study: dict, count: int = 1999) -> dict[str, object]:
    last = select.single(checkpoints.keys.with_row_index("_row"), study)
    squared, parts = checkpoints.squared_distances() if checkpoints.values.size else np.zeros((0, 0)), []
    for _, part in last.group_by("model", maintain_order=True):
        lora, full = part.filter(pl.col("method") == "lora"), part.filter(pl.col("method") == "full")
        if full.height > 1 and lora.height:
            best = squared[np.ix_(lora["_row"].to_numpy(), full["_row"].to_numpy())].argmin(axis=1)
            chance = lora["dataset"].is_in(full["dataset"].to_list()) / full.height
            parts.append(lora.select("model", "dataset", nearest=full["dataset"].gather(best), chance=chance))
    if not parts:
        return _row("same set", undefined("", 0, "LoRA checkpoints"))
    nearest = pl.concat(parts).with_columns((pl.col("dataset") == pl.col("nearest")).cast(pl.Float64).alias("same"))
    # Training sets are renamed in the same way under every base model, so that sets which are alike do not count several times.
    names = sorted({*nearest["dataset"], *nearest["nearest"]})
    pairs = np.zeros((len(names), len(names)))
    np.add.at(pairs, tuple(np.searchsorted(names, nearest[key].to_numpy()) for key in ("dataset", "nearest")), 1)
    orders, exact = two_way.shuffled_orders(len(names), study["seed"], count)
    p = two_way.shuffle_p(pairs[np.arange(len(names)), orders].sum(axis=1), pairs.trace(), exact)
    n, share, models = nearest.height, float(nearest["same"].mean()), nearest["model"].unique(maintain_order=True).to_list()
    same = select.array(nearest, "same", {"model": models, "dataset": names})
    groups, sets, kind, units = two_way.cell_weights(models, len(names), study["seed"], count)
    weight = ((groups @ np.isfinite(same)) * sets).sum(axis=1)
    drawn = np.divide(((groups @ np.nan_to_num(same)) * sets).sum(axis=1), weight, out=np.full(count, np.nan), where=weight > 0)
    low, high = expanded_interval(drawn, units)
    if low == high:  # all alike: a bootstrap shows no doubt
        few = min(len(models), len(names))
        bound = wilson(round(share * few), few, "", "")
        low, high, kind = bound.low, bound.high, f"Wilson interval for {few} independent checkpoints"
    estimate = Estimate("", share, max(0.0, low), min(1.0, high), p, n, "LoRA checkpoints", kind)
    return _row("same set", estimate, float(nearest["chance"].mean()))


def main(args: argparse.Namespace) -> None:
    study, tables = stored.load(args, ("likelihood",))
    checkpoints = vectors(tables["likelihood"])
    write_table(args.output_shares, shares(checkpoints, study))
    write_table(args.output_effects, effects(checkpoints, study))
    write_table(args.output_spread, spread(checkpoints, study))


def add_options(p: argparse.ArgumentParser) -> None:
    stored.add_options(
        p,
        output_shares="Parquet, one row per design and term",
        output_effects="Parquet, one row per effect",
        output_spread="Parquet, one row per base model, recipe and epoch",
    )
