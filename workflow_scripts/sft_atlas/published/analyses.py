"""Every analysis of a table of published scores, under one policy. Effects are percentage points; each has n, interval and tests.

The main recipe of each method (that of most single-set runs, last kept epoch) stands for it; all other contrasts are between scores
that need no base model: LoRA minus full, 20,000 minus 1,000 rows, with minus without a training set, one epoch minus another.
"""

import numpy as np
import polars as pl

from sft_atlas.analyse import consistency, select, variance
from sft_atlas.published import contrasts, frames
from sft_atlas.stats import two_way
from sft_atlas.stats.estimates import correlation_matrix

LANGUAGES = (("mmlu-0", "jmmlu-0"), ("mmlu-0", "cmmlu-0"), ("jmmlu-0", "cmmlu-0"), ("mmlu-5", "jmmlu-0"), ("mmlu-5", "cmmlu-0"))


def leading(frame: pl.DataFrame) -> pl.DataFrame:
    """Full tuning where there is any, else the other method."""
    return select.of_leading_method(frame)


def tables(found: frames.Data, seed: int = frames.SEED) -> dict[str, pl.DataFrame]:
    """Every table, by the names in :data:`sft_atlas.published.TABLES`."""
    full = leading(found.cells)
    components, loadings = component_tables(full, seed)
    return {
        "gains": gains(found),
        "consistency": pl.concat([consistency.consistency(full, value, seed) for value in consistency.VALUES]),
        "concordance": consistency.concordance(full, seed),
        "similarity": pl.concat([consistency.likeness(full, value, seed) for value in consistency.VALUES]),
        "similarity_tests": similarity_tests(full, found.study, seed),
        "components": components,
        "loadings": loadings,
        "variance": pl.concat([variance.variance(found.cells, value, seed) for value in ("score", "gain")]),
        "lora_full": contrasts.lora_full(found.cells, seed),
        "size": contrasts.size(found, seed),
        "trajectories": contrasts.trajectories(found),
        "epoch_change": contrasts.epoch_change(found, seed),
        "left_out": contrasts.left_out(found),
        "transfer": transfer(found.cells, seed),
        "noise": frames.noise(found.gains),
    }


def gains(found: frames.Data) -> pl.DataFrame:
    """The cells with n (items), stderr (of the gain, points), p and q (Benjamini-Hochberg over all gains); see frames.gains_table."""
    keys = ["model", "dataset", "method", "benchmark"]
    tests = select.tested(select.single(found.gains, found.study))
    return found.cells.join(tests.select(*keys, "n", pl.col("stderr") * 100, "p", "q"), on=keys, how="left", maintain_order="left")


# ---------------------------------------------------------------- likeness of models


def similarity_tests(full: pl.DataFrame, study: dict, seed: int) -> pl.DataFrame:
    """Are models of one family, or of one pre-training language, more alike? Differences of mean r; q over the rows."""
    rows = []
    questions = {
        "same family - other family": (("family",), ()),
        "same language - other language": (("language",), ()),
        "family (other language) - language (other family)": (("family",), ("language",)),
    }
    for value in consistency.VALUES:
        names, array = consistency.vectors(full, "model", value)
        r = correlation_matrix(array)[0]
        labels = [study["models"][name] for name in names]
        for question, (same, other) in questions.items():
            found = consistency.grouped_pairs(r, labels, seed, question, same, other)
            rows.append((value, question, found.n, found.effect, found.low, found.high, found.p))
    schema = {"value": pl.String, "question": pl.String, "n": pl.Int64, **dict.fromkeys(("effect", "low", "high", "p"), pl.Float64)}
    return contrasts.corrected(pl.DataFrame(rows, schema=schema, orient="row"))


def component_tables(full: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Shares of variance per component with their null, for each choice of value and variables; and the loadings of benchmarks."""
    shares, loadings = [], []
    for value in consistency.VALUES:
        for variables in ("benchmark", "dataset", "model"):
            found = variance.components(full, value, variables, seed)
            if found is None:
                continue
            low, high = found.needed_by_chance
            null = np.percentile(found.null, 95, axis=0)
            for i, share in enumerate(found.share):
                shares.append(
                    (
                        value,
                        variables,
                        i + 1,
                        share,
                        null[i],
                        len(found.observations),
                        len(found.variables),
                        found.needed,
                        low,
                        high,
                        found.beyond_chance,
                    )
                )
            for name, row in zip(found.variables, found.loadings, strict=True):
                loadings += [(value, variables, name, i + 1, row[i]) for i in range(min(3, len(row)))]
    columns = {"value": pl.String, "variables": pl.String, "component": pl.Int64, "share": pl.Float64, "share_by_chance": pl.Float64}
    columns |= {
        "observations": pl.Int64,
        "n": pl.Int64,
        "needed": pl.Int64,
        "needed_low": pl.Float64,
        "needed_high": pl.Float64,
        "beyond": pl.Int64,
    }
    names = {"value": pl.String, "variables": pl.String, "name": pl.String, "component": pl.Int64, "loading": pl.Float64}
    return pl.DataFrame(shares, schema=columns, orient="row"), pl.DataFrame(loadings, schema=names, orient="row")


def transfer(found: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Correlation of the same examination in two languages: within base models (scores and gains agree there), by
    :func:`crossed.correlation`, and ``gain_r``, that of gains over all models and training sets, as usually reported."""
    rows = []
    for method in sorted(found["method"].unique()):
        part = found.filter(pl.col("method") == method)
        (models, sets, names), scores = consistency.cube(part, "score", ("model", "dataset", "benchmark"))
        gains = consistency.cube(part, "gain", ("model", "dataset", "benchmark"))[1]
        place, absent = {name: i for i, name in enumerate(names)}, np.full((len(models), len(sets)), np.nan)
        for pair in LANGUAGES:
            x, y = (scores[:, :, place[name]] if name in place else absent for name in pair)
            estimate = two_way.correlation(x, y, models, seed)
            sides = [gains[:, :, place[name]] if name in place else absent for name in pair]
            r, n = correlation_matrix(np.stack(sides).reshape(2, -1))
            counted = int((np.isfinite(x) & np.isfinite(y)).any(axis=1).sum())
            numbers = (estimate.n, estimate.effect, estimate.low, estimate.high, estimate.p, float(r[0, 1]), int(n[0, 1]))
            rows.append((method, *pair, counted, *numbers, estimate.interval_method))
    columns = {"method": pl.String, "first": pl.String, "second": pl.String, "models": pl.Int64, "n": pl.Int64}
    columns |= dict.fromkeys(("effect", "low", "high", "p", "gain_r"), pl.Float64) | {"gain_n": pl.Int64, "interval": pl.String}
    return contrasts.corrected(pl.DataFrame(rows, schema=columns, orient="row"))
