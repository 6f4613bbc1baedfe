"""Tests on published scores hold their level where base models, training sets and variants of a benchmark are related; planted effects are significant."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import rankdata

from helpers import published_csv
from helpers.rates import is_at_most
from sft_atlas.published import TABLES, analyse_published, audit_published, frames, overall


def sized(scores: np.ndarray) -> frames.Data:
    """Scores [models, sets, sizes] of one benchmark as a table of full tuning at one epoch."""
    rows = [(f"m{m}", f"d{d}", (1000, 20000)[k], score) for (m, d, k), score in np.ndenumerate(scores)]
    table = pl.DataFrame(rows, schema=["model", "dataset", "rows", "score"], orient="row").with_columns(
        method=pl.lit("full"), schedule=pl.lit("constant"), epoch=pl.lit(10), benchmark=pl.lit("b")
    )
    kinds = {f"d{d}": {"without": None, "merged": False} for d in range(scores.shape[1])}
    return frames.Data({"datasets": kinds}, table, table, table)


def of_size(rng: np.random.Generator, models: int, sets: int, effect: float = 0.0) -> dict:
    """The test of size where more rows of a set, and for a base model, do the same everywhere; ``effect`` in their spread."""
    change = effect + rng.normal(size=(models, sets)) + (rng.normal(size=(models, 1)) if models > 4 else rng.normal(size=sets))
    table = analyse_published.size(sized(np.stack([np.zeros_like(change), change], axis=2) / 100), seed=0)
    return table.row(by_predicate=(pl.col("benchmark") == "all") & (pl.col("epochs") == "last"), named=True)


@pytest.mark.slow
def test_size_counts_training_sets_or_base_models_not_runs():
    rng = np.random.default_rng(0)
    for shape, n, unit in (((3, 9), 9, "training sets"), ((8, 4), 8, "base models")):
        null = [of_size(rng, *shape) for _ in range(120)]
        assert {(row["n"], row["unit"]) for row in null} == {(n, unit)}
        assert is_at_most([row["p"] <= 0.05 for row in null])
        assert is_at_most([row["low"] > 0 or row["high"] < 0 for row in null], 0.1)  # with so few units intervals cover about 90 %
        assert np.mean([of_size(rng, *shape, effect=2.5)["p"] <= 0.05 for _ in range(20)]) > 0.9


def cells(scores: dict[str, np.ndarray]) -> pl.DataFrame:
    """Cells of full tuning from scores [models, sets] by benchmark; gains are the scores."""
    rows = [(f"m{m}", f"d{d}", "full", name, value, value) for name, part in scores.items() for (m, d), value in np.ndenumerate(part)]
    return pl.DataFrame(rows, schema=["model", "dataset", "method", "benchmark", "score", "gain"], orient="row")


def helped(rng: np.random.Generator, models: int, sets: int) -> np.ndarray:
    """Scores [models, sets] where some sets help every base model, and some base models are better with every set."""
    return rng.normal(size=(models, sets)) + rng.normal(size=sets) + 3 * rng.normal(size=(models, 1))


def test_transfer_shuffles_training_sets_as_wholes(monkeypatch):
    """Two examinations that have nothing in common, each with sets that help everyone; then one and the same examination with noise."""
    monkeypatch.setattr(analyse_published, "LANGUAGES", analyse_published.LANGUAGES[:1])
    rng = np.random.default_rng(1)

    def row(shared: float) -> dict:
        x, y = helped(rng, 11, 10), helped(rng, 11, 10)
        return analyse_published.transfer(cells({"mmlu-0": x, "jmmlu-0": (1 - shared) * y + shared * x}), 0).row(0, named=True)

    null = [row(0.0) for _ in range(60)]
    assert is_at_most([one["p"] <= 0.05 for one in null]) and is_at_most([one["low"] > 0 or one["high"] < 0 for one in null])
    assert all(one["p"] <= 0.05 and one["low"] > 0 for one in (row(0.7) for _ in range(5)))
    assert row(0.0)["interval"] == "bootstrap over 11 base models and 10 training sets"


def courses(scores: np.ndarray) -> pl.DataFrame:
    """Trajectories of full tuning on the merged set from scores [models, benchmarks, epochs]; NaN where there is no row."""
    rows = [(f"m{m}", VARIANTS[b], e + 1, value) for (m, b, e), value in np.ndenumerate(scores) if np.isfinite(value)]
    table = pl.DataFrame(rows, schema=["model", "benchmark", "epoch", "score"], orient="row")
    return table.with_columns(kind=pl.lit("merged"), method=pl.lit("full"), rows=pl.lit(1000, pl.Int64), schedule=pl.lit("cosine"))


def test_composite_holds_its_level_and_leaves_out_what_has_gaps():
    rng = np.random.default_rng(5)
    null = [analyse_published.composite(courses(rng.normal(size=(8, 3, 4))), 0) for _ in range(60)]
    assert is_at_most([one["p"][0] <= 0.05 for one in null])
    scores = np.zeros((6, 4, 3))
    scores[:, 0] = [0, 3, 6]  # MATH; HumanEval and the two variants of GSM8K do not change
    found = analyse_published.composite(courses(scores), 0)
    assert found["effect"].to_list() == [1.0, 2.0] and found["q"][0] <= 0.05 and found["columns"].to_list() == [4, 4]
    scores[0, 1, 0] = np.nan  # HumanEval starts late in one base model, which keeps MATH and GSM8K
    scores[1, 3, 2] = np.nan  # one variant of GSM8K ends early in another
    found = analyse_published.composite(courses(scores[:3]), 0)
    assert found["columns"][0] == 3 and found["n"][0] == 3 and found["effect"][0] == pytest.approx((1.5 + 1 + 1) / 3)
    late = courses(scores).filter((pl.col("model") != "m3") | (pl.col("epoch") < 3))  # no epoch 3: left out, so that epochs compare
    assert analyse_published.composite(late, 0).select("epoch", "n").rows() == [(2, 5), (3, 5)]
    assert found["low"].is_nan().all() and found["q"].is_nan().all()
    assert analyse_published.composite(courses(scores[..., :1]), 0).is_empty()


VARIANTS = ("math-0", "humaneval-0", "gsm8k-0", "gsm8k-4", "nq-0", "nq-1", "nq-5", "nq-25")


def varied(rng: np.random.Generator, shape: tuple[int, ...], benchmark: float, own: float) -> dict[str, np.ndarray]:
    """A normal effect of ``shape`` by column: common to all benchmarks with weight 1, of the benchmark, of the variant."""
    names = {name: name.split("-")[0] for name in VARIANTS}
    common, by_benchmark = rng.normal(size=shape), {name: rng.normal(size=shape) for name in dict.fromkeys(names.values())}
    return {column: common + benchmark * by_benchmark[name] + own * rng.normal(size=shape) for column, name in names.items()}


def test_variants_share_the_weight_of_their_benchmark():
    assert overall.weights(list(VARIANTS)).tolist() == [1 / 4, 1 / 4, *[1 / 8] * 2, *[1 / 16] * 4]


def test_concordance_holds_its_level_where_each_model_has_sets_of_its_own_liking(monkeypatch):
    monkeypatch.setattr(overall, "RESAMPLES", 499)
    monkeypatch.setattr(overall, "PERMUTATIONS", 199)
    rng = np.random.default_rng(2)
    null = [overall.concordance(cells(varied(rng, (10, 8), 1.0, 0.5)), 0) for _ in range(60)]
    assert is_at_most([one.p <= 0.05 for one in null]) and is_at_most([one.excludes_zero for one in null])
    for _ in range(5):
        liked = 1.2 * rng.normal(size=8)
        estimate = overall.concordance(cells({name: part + liked for name, part in varied(rng, (10, 8), 1.0, 0.5).items()}), 0)
        assert estimate.p <= 0.05 and estimate.low > 0 and estimate.n == 10


def test_concordance_is_the_mean_correlation_of_ranks():
    values = varied(np.random.default_rng(3), (5, 6), 1.0, 0.5)
    values["math-0"][0, 2] = np.nan  # this model is no judge of this benchmark
    r = [
        np.corrcoef(rankdata(part[np.isfinite(part).all(axis=1)], axis=1))[np.triu_indices(np.isfinite(part).all(axis=1).sum(), 1)].mean()
        for part in values.values()
    ]
    estimate = overall.concordance(cells(values).with_columns(pl.col("score").fill_nan(None)), 0)
    assert estimate.effect == pytest.approx(overall.weights(list(VARIANTS)) @ r)


def shares_of(rng: np.random.Generator, model: float) -> dict:
    """The model's share minus the set's, where what one does on a benchmark it does on many; ``model`` in the spread of set effects."""
    models, sets, rest = (varied(rng, shape, 1.0, 0.2) for shape in ((9, 1), (1, 9), (9, 9)))
    scores = {name: model * models[name] + sets[name] + rest[name] for name in VARIANTS}
    both = [cells(scores), cells(scores).with_columns(pl.lit("lora").alias("method"))]
    return overall.model_minus_set(pl.concat(both), 0)


@pytest.mark.slow
def test_the_share_of_the_base_model_is_judged_over_models_and_sets(monkeypatch):
    monkeypatch.setattr(overall, "DRAWS", 99)
    rng = np.random.default_rng(4)
    assert is_at_most([shares_of(rng, 1.0).excludes_zero for _ in range(40)])
    assert np.mean([shares_of(rng, 4.0).low > 0 for _ in range(5)]) == 1


@pytest.mark.slow
def test_a_users_own_table_is_analysed(own):
    scores, findings, repairs, _, tables = own
    assert set(tables["raw"]) == set(TABLES)
    assert set(tables["raw"]["size"].select("n", "unit").rows()) == {(6, "training sets")}  # of two base models
    # merged rows are counted per source set, so runs without a set are compared with the run on all
    assert set(tables["raw"]["left_out"]["removed"]) == {"lima", "math"}
    for name in ("lima", "math"):
        part = tables["raw"]["left_out"].filter(pl.col("benchmark") == "math-0", pl.col("removed") == name)
        assert part.height == 2 + len(published_csv.MODELS)
    page = audit_published.page(findings, scores, "mine", repairs)
    assert page.startswith("# Audit") and "Shares verified" in page
