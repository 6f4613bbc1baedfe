"""Map checkpoints by their log-likelihoods of the same texts (Oyama et al. 2025, arXiv 2502.16173), and partition the distances.

Distances are divergences in bits per byte (:meth:`Vectors.squared_distances`), which add up like squared lengths.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.core.files import write_table
from sft_atlas.stats import two_way
from sft_atlas.stats.estimates import Estimate, expanded_interval, explained_share, paired_difference, undefined, wilson
from sft_atlas.stats.permanova import CellPermutationTest, SignFlipTest, Term, partition

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
    return project(values, "tsne" if len(values) >= FEWEST_FOR_NEIGHBOURS else "pca", seed)


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

        near = min(30, (len(values) - 1) / 3)
        tsne = TSNE(perplexity=near, initialization="pca", neighbors="exact", negative_gradient_method="bh", n_jobs=1, random_state=seed)
        return np.asarray(tsne.fit(principal)), f"t-SNE, perplexity {near:.0f}"
    from umap import UMAP

    near = min(15, len(values) // 3)
    return UMAP(n_neighbors=near, n_jobs=1, random_state=seed).fit_transform(principal), f"UMAP, {near} neighbours"


def distances(checkpoints: Vectors) -> pl.DataFrame:
    """Divergence of every checkpoint from its own base model, bits per byte: the keys and ``distance``; base models are at 0."""
    keys = checkpoints.keys.with_row_index("_row")
    base = keys.filter(pl.col("epoch") == 0).select("model", pl.col("_row").alias("_base"))
    keys = keys.join(base, on="model", maintain_order="left")
    squared = checkpoints.squared_distances()
    return keys.with_columns(pl.Series("distance", squared[keys["_row"].to_numpy(), keys["_base"].to_numpy()], dtype=pl.Float64)).drop(
        "_row", "_base"
    )


RUN = select.RUN
FINE = 256  # arrangements, of nine units: a p of few signs is coarse, and for model and dataset there is another test
SHARES = {
    "design": pl.String, "term": pl.String, "share": pl.Float64, "df": pl.Int64, "f": pl.Float64, "p": pl.Float64, "n": pl.Int64,
    "chance": pl.Float64, "test": pl.String,
}  # fmt: skip
EFFECTS = {
    "effect": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "p": pl.Float64, "n": pl.Int64, "unit": pl.String,
    "interval_method": pl.String, "reference": pl.Float64,
}  # fmt: skip
SPREAD = {
    "model": pl.String, "kind": pl.String, "recipe": pl.String, "epoch": pl.Int64, "spread": pl.Float64, "runs": pl.Int64,
}  # fmt: skip


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
    kept = keys.filter(pl.col("epoch") > 0).filter(pl.col("epoch").n_unique().over(RUN) > 1)
    model, dataset = kept["model"].to_numpy(), kept["dataset"].to_numpy()
    single = np.where(np.isin(dataset, select.kinds(study, "single")), dataset, "merged")
    factors = {"run": model + "/" + dataset + "/" + kept["recipe"].to_numpy(), "epoch": kept["epoch"].to_numpy()}
    tests = {"epoch": (SignFlipTest(model, "base models"), SignFlipTest(single, "training sets"))}
    at = kept["_row"].to_numpy()
    epochs = partition(squared[np.ix_(at, at)], factors, study["seed"], tests) if len(at) > 2 else []
    for design, terms in (("last", last_terms(checkpoints, study)), ("epochs", epochs)):
        rows += [
            {"design": design, "term": term.name, **{key: getattr(term, key) for key in SHARES if key in vars(term)}} for term in terms
        ]
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
    for (model, recipe, epoch), at in _epoch_groups(checkpoints, study):
        distances = _to_centre(checkpoints, at) * len(at) / (len(at) - 1)
        rows.append({"model": model, "kind": "single sets", "recipe": recipe, "epoch": epoch, "spread": distances.mean(), "runs": len(at)})
    return pl.DataFrame(rows, schema=SPREAD)


def _epoch_groups(checkpoints: Vectors, study: dict):
    keys = checkpoints.keys.with_row_index("_row").filter(pl.col("dataset").is_in(select.kinds(study, "single")))
    keys = keys.filter(pl.col("epoch").n_unique().over(RUN) > 1).filter(pl.col("dataset").n_unique().over("model", "recipe") > 1)
    for group, part in keys.sort("dataset").group_by("model", "recipe", "epoch", maintain_order=True):
        if part.height > 1:
            yield group, part["_row"].to_numpy()


def _to_centre(checkpoints: Vectors, at: np.ndarray) -> np.ndarray:
    squared = checkpoints.squared_distances()[np.ix_(at, at)]
    return squared.mean(axis=1) - squared.mean() / 2


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
    rows = [_spread_change(checkpoints, study), _size(moved, study), _method(moved, study), _same_set(checkpoints, study)]
    return pl.DataFrame(rows, schema=EFFECTS)


def _row(name: str, estimate: Estimate, reference: float | None = None) -> dict[str, object]:
    shown = {key: getattr(estimate, key) for key in ("low", "high", "p", "n", "unit", "interval_method")}
    return {"effect": name, "value": estimate.effect, **shown, "reference": reference}


def _spread_change(checkpoints: Vectors, study: dict) -> dict[str, object]:
    keys, rows = checkpoints.keys.with_row_index("_row"), []
    for (model, recipe, epoch), at in _epoch_groups(checkpoints, study):
        datasets = keys.filter(pl.col("_row").is_in(at.tolist())).sort("dataset")["dataset"]
        for dataset, value in zip(datasets, _to_centre(checkpoints, at) * len(at) / (len(at) - 1), strict=True):
            rows.append((model, dataset, recipe, epoch, value))
    frame = pl.DataFrame(rows, schema=["model", "dataset", "recipe", "epoch", "value"], orient="row")
    if frame.is_empty():
        return _row("spread", undefined("", 0, "runs"))
    ends = frame.sort("epoch").group_by(RUN, maintain_order=True).agg((pl.col("value").last() - pl.col("value").first()).alias("change"))
    return _row("spread", _paired(ends, "change", study))


def _paired(frame: pl.DataFrame, value: str, study: dict) -> Estimate:
    """Mean of ``value`` over the runs in ``frame``, by the units of :func:`sft_atlas.analyse.select.units`."""
    labels, of = select.units(frame)
    return paired_difference(frame[value], labels, study["seed"], unit=of)


def _size(moved: pl.DataFrame, study: dict) -> dict[str, object]:
    keys = ["model", "dataset", "method", "schedule"]
    frame = moved.filter(pl.col("rows").n_unique().over(keys) > 1)
    wide = frame.group_by([*keys, "epoch"]).agg(pl.col("distance").sort_by("rows"), pl.col("rows").sort())
    wide = wide.filter(pl.col("rows").list.n_unique() > 1).filter(pl.col("epoch") == pl.col("epoch").max().over(keys)).sort(keys)
    if wide.is_empty():
        return _row("size", undefined("", 0, "training sets"))
    change = wide.with_columns((pl.col("distance").list.last() - pl.col("distance").list.first()).alias("change"))
    return _row("size", _paired(change, "change", study))


def _method(moved: pl.DataFrame, study: dict) -> dict[str, object]:
    last = select.single(moved, study)
    sides = [last.filter(pl.col("method") == name).select("model", "dataset", pl.col("distance").alias(name)) for name in ("lora", "full")]
    both = sides[0].join(sides[1], on=["model", "dataset"], maintain_order="left")
    if both.is_empty():
        return _row("method", undefined("", 0, "training sets"))
    return _row("method", _paired(both.with_columns((pl.col("lora") - pl.col("full")).alias("change")), "change", study))


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
    same = select.matrix(nearest, [(model,) for model in models], names, ["model"], "same")
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


# ---------------------------------------------------------------- job


def main(args: argparse.Namespace) -> None:
    """Write shares of the squared distance, paired effects, and the spread of checkpoints by epoch."""
    study = json.loads(args.study.read_text(encoding="utf-8"))
    checkpoints = vectors(pl.read_parquet(args.likelihood))
    write_table(args.output_shares, shares(checkpoints, study))
    write_table(args.output_effects, effects(checkpoints, study))
    write_table(args.output_spread, spread(checkpoints, study))


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--study", type=Path, required=True, help="resolved study, study.json")
    p.add_argument("--likelihood", type=Path, required=True, help="table of log-likelihoods")
    p.add_argument("--output-shares", type=Path, required=True, help="Parquet, one row per design and term")
    p.add_argument("--output-effects", type=Path, required=True, help="Parquet, one row per effect")
    p.add_argument("--output-spread", type=Path, required=True, help="Parquet, one row per base model, recipe and epoch")
