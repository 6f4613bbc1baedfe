"""Effects over base models on invented cells: planted structure is found, and its absence too."""

import numpy as np
import polars as pl
import pytest
import scipy.stats

from helpers.rates import is_at_most
from sft_atlas.analyse import consistency, variance
from sft_atlas.stats import estimates

MODELS, SETS, BENCHMARKS = 8, 6, 9


def cells(array: np.ndarray, base: float | None = 10.0) -> pl.DataFrame:
    """Cells from scores of models x sets x benchmarks x methods."""
    rows = []
    for (m, d, b, k), score in np.ndenumerate(array):
        rows.append((f"m{m}", f"d{d}", ("full", "lora")[k], f"b{b}", float(score), None if base is None else float(score - base)))
    frame = pl.DataFrame(rows, schema=["model", "dataset", "method", "benchmark", "score", "gain"], orient="row")
    return consistency.centred(frame.with_columns(pl.col("gain").cast(pl.Float64)))


def noise(seed: int = 0, methods: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (MODELS, SETS, BENCHMARKS, methods))


def test_centred_scores_sum_to_zero_within_model_and_benchmark():
    result = cells(noise() + 50)
    sums = result.group_by("model", "benchmark").agg(pl.col("centred").sum())["centred"]
    assert np.abs(sums.to_numpy()).max() < 1e-9


def test_a_consistent_set_is_found_and_others_are_not():
    array = noise()
    array[:, 2, 4] += 5
    table = consistency.consistency(cells(array), "centred", 0)
    planted = table.filter(pl.col("dataset") == "d2", pl.col("benchmark") == "b4").row(0, named=True)
    assert (planted["up"], planted["down"], planted["ties"]) == (MODELS, 0, 0) and planted["p"] == 2 / 2**MODELS and planted["low"] > 0
    none = consistency.consistency(cells(noise(1)), "centred", 0)
    assert (none["q"] < 0.05).sum() == 0 and (none["p"] < 0.05).mean() < 0.12


def test_a_gain_of_exactly_zero_counts_as_a_tie():
    array = np.zeros((MODELS, SETS, BENCHMARKS, 1))
    array[0, 0, 0] = 3
    array[1:3, 0, 0] = -2
    table = consistency.consistency(cells(array, base=0), "gain", 0).select("up", "down", "ties", "n")
    assert table.row(0) == (1, 2, MODELS - 3, MODELS)
    assert set(table.rows()[1:]) == {(0, 0, MODELS, MODELS)}
    centred = consistency.consistency(cells(0.1 + array * 0 + np.pi), "centred", 0)  # rounding of the mean is no effect
    assert set(centred.select("up", "down").rows()) == {(0, 0)}


def test_cells_without_a_gain_are_counted_as_missing():
    table = consistency.consistency(cells(noise(), base=None), "gain", 0)
    assert table["n"].to_list() == [0] * (SETS * BENCHMARKS) and table["q"].is_nan().all()


def test_kendall_w():
    assert consistency.kendall_w(np.array([[1, 2, 3], [1, 2, 3], [10, 20, 30]])) == pytest.approx(1)
    values = np.random.default_rng(0).integers(0, 4, (7, 6))  # with ties
    friedman = scipy.stats.friedmanchisquare(*values.T).statistic
    assert consistency.kendall_w(values) == pytest.approx(friedman / (7 * 5))
    assert np.isnan(consistency.kendall_w(np.ones((1, 5)))) and np.isnan(consistency.kendall_w(np.ones((4, 5))))


def test_concordance_separates_agreement_from_noise():
    array = noise()
    array += 4 * np.arange(SETS)[None, :, None, None]
    result = consistency.concordance(cells(array), 0)
    assert (result["w"] > 0.9).all() and (result["p"] == 0.001).all() and (result["low"] > 0).all()
    assert (consistency.concordance(cells(noise(2)), 0)["q"] > 0.05).all()


def test_mean_of_pairs_never_pairs_a_unit_with_itself():
    r = np.full((3, 3), 0.2)
    np.fill_diagonal(r, 1)
    draws = np.array([[0, 1, 2], [0, 0, 1], [1, 1, 1]])
    assert consistency.mean_of_pairs(r, draws)[:2] == pytest.approx([0.2, 0.2])
    assert np.isnan(consistency.mean_of_pairs(r, draws)[2])


def test_a_family_is_found_and_a_language_is_not():
    labels = [{"family": str(i // 2), "language": "ab"[i % 2]} for i in range(MODELS)]
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, (MODELS // 2, 200))
    r = np.corrcoef(np.repeat(shared, 2, axis=0) + rng.normal(0, 0.7, (MODELS, 200)))
    family = consistency.grouped_pairs(r, labels, 0, "family", ("family",), ())
    language = consistency.grouped_pairs(r, labels, 0, "language", ("language",), ())
    assert family.effect > 0.4 and family.p < 0.02 and family.n == MODELS // 2
    assert family.p_greater < 0.02 and family.p_less > 0.98
    # every pair of one language is of two families here, so it is less alike: language counts against, never for
    assert language.effect < 0.1
    against = consistency.grouped_pairs(r, labels, 0, "family against language", ("family",), ("language",))
    assert against.effect > 0.4
    nothing = consistency.grouped_pairs(r, [{"family": str(i)} for i in range(MODELS)], 0, "", ("family",), ())
    assert np.isnan(nothing.effect)


def test_one_sided_tests_of_families_have_their_level(monkeypatch):
    monkeypatch.setattr(consistency, "PERMUTATIONS", 40)
    monkeypatch.setattr(consistency, "RESAMPLES", 49)
    rng, labels = np.random.default_rng(1), [{"family": str(i // 2)} for i in range(MODELS)]
    null = [consistency.grouped_pairs(np.corrcoef(rng.normal(size=(MODELS, 20))), labels, i, "", ("family",), ()) for i in range(200)]
    assert is_at_most([one.p_greater <= 0.05 for one in null]) and is_at_most([one.p_less <= 0.05 for one in null])


def test_components_of_a_plane_are_two():
    rng = np.random.default_rng(0)
    array = np.einsum("mdr,rb->mdb", rng.normal(0, 1, (MODELS, SETS, 2)), rng.normal(0, 1, (2, BENCHMARKS)))[..., None]
    result = variance.components(cells(array), "centred", "benchmark", 0)
    assert result.needed <= 2 and result.beyond_chance <= 2 and result.share[:2].sum() == pytest.approx(1)
    random = variance.components(cells(noise()), "centred", "benchmark", 0)
    low, high = random.needed_by_chance
    assert low - 1 <= random.needed <= high and random.beyond_chance == 0


@pytest.mark.slow
@pytest.mark.parametrize("value", ["centred", "gain"])
@pytest.mark.parametrize(("variables", "own"), [("benchmark", "md"), ("dataset", "mb"), ("model", "db")])
def test_unrelated_variables_have_no_components_though_their_observations_are_related(variables, own, value):
    """Each benchmark has base models that are better at it and sets that are good for it, of its own; likewise sets and base models."""
    rng, result = np.random.default_rng(3), []
    key = variables.replace("dataset", "d")[0]
    for i in range(60):
        shapes = [tuple(size if axis in (key, other) else 1 for axis, size in zip("mdb", (7, 6, 9), strict=True)) for other in own]
        array = rng.normal(size=(7, 6, 9)) + sum(rng.normal(size=shape) for shape in shapes)
        array = array * rng.lognormal(0, 0.7, 9)  # benchmarks of wide and narrow range
        result.append(variance.components(cells(array[..., None], 0.0), value, variables, i))
    assert is_at_most([one.beyond_chance > 0 for one in result])
    assert is_at_most([not one.needed_by_chance[0] <= one.needed <= one.needed_by_chance[1] for one in result])


@pytest.mark.parametrize("variables", ["benchmark", "dataset", "model"])
def test_a_common_component_is_found_among_related_observations(variables):
    rng = np.random.default_rng(4)
    for _ in range(5):
        parts = {name: rng.normal(size=size) for name, size in (("m", 7), ("d", 6), ("b", 9))}
        common = np.einsum("m,d,b->mdb", *(2.0 * np.sign(part) for part in parts.values()))
        array = common + rng.normal(size=(7, 6, 9)) + rng.normal(size=(7, 1, 9)) + rng.normal(size=(1, 6, 9))
        assert variance.components(cells(array[..., None], 0.0), "gain", variables, 0).beyond_chance >= 1


def test_complete_part_drops_the_worst_first():
    values = np.ones((4, 5))
    values[1] = np.nan
    values[3, 2] = np.nan
    rows, columns = variance.complete_part(values)
    assert 1 not in rows and np.isfinite(values[np.ix_(rows, columns)]).all() and len(rows) * len(columns) == 12


def test_variance_goes_to_the_planted_term():
    model, dataset, method = 5 * np.arange(4.0)[:, None, None], np.arange(5.0)[None, :, None], np.zeros((1, 1, 2))
    share = dict(zip(variance.TERMS, variance.shares(model + dataset + method), strict=True))
    assert share["model"] == pytest.approx(25 * 1.25 / (25 * 1.25 + 2)) and share["dataset"] == pytest.approx(2 / (25 * 1.25 + 2))
    assert sum(share.values()) == pytest.approx(1) and share["rest"] == 0
    table = variance.variance(cells(noise(3, 2) + 3 * np.arange(MODELS)[:, None, None, None]), "score", 0)
    mean = table.filter(pl.col("benchmark") == "all", pl.col("term") == "model").row(0, named=True)
    assert mean["effect"] > 0.9 and mean["low"] < mean["effect"] < mean["high"]


@pytest.mark.parametrize("n", [3, 8, 12, 30])
def test_signed_rank_p_is_that_of_scipy(n):
    values = np.random.default_rng(n).normal(0.3, 1, n)
    method = "exact" if n <= 12 else "asymptotic"
    assert estimates.signed_rank_p([*values, 0.0, np.nan]) == pytest.approx(scipy.stats.wilcoxon(values, method=method).pvalue)
    assert np.isnan(estimates.signed_rank_p([1.0]))


def test_likeness_has_an_interval_that_resamples_base_models():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3, 4))
    rows = [
        (f"m{m}", f"d{d}", f"b{b}", shared[d, b] + (0.2 if m else 3.0) * rng.normal()) for m in range(6) for d in range(3) for b in range(4)
    ]
    frame = pl.DataFrame(rows, schema=["model", "dataset", "benchmark", "gain"], orient="row")
    result = consistency.similarity(frame, "gain", seed=0).filter(pl.col("of") == "dataset", pl.col("first") < pl.col("second"))
    assert (result["low"] < result["r"]).all() and (result["r"] < result["high"]).all()


def test_an_observation_may_stand_several_times():
    array = np.random.default_rng(0).normal(size=(3, 8))
    assert consistency.weighted_correlations(array, np.ones(8, int)) == pytest.approx(estimates.correlation_matrix(array)[0])
    assert consistency.weighted_correlations(array, np.arange(8)) == pytest.approx(np.corrcoef(np.repeat(array, np.arange(8), axis=1)))
