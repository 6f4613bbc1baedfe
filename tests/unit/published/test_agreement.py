"""The tests hold their level where nothing agrees, although training sets act alike in all base models, and find what is planted."""

import numpy as np
import polars as pl
import pytest

from helpers.rates import is_at_most
from sft_atlas.analyse.consistency import centred
from sft_atlas.published import agreement

BENCHMARKS = ("math-0", "gsm8k-0", "gsm8k-4", "nq-0", "boolq-0", "humaneval-0")
RNG = np.random.default_rng


def cells(**scores: np.ndarray) -> pl.DataFrame:
    """Cells from scores [models, sets, benchmarks] by method; gains are the scores."""
    rows = [
        (f"m{m}", f"d{d}", method, BENCHMARKS[b], float(value), float(value))
        for method, part in scores.items()
        for (m, d, b), value in np.ndenumerate(part)
    ]
    table = pl.DataFrame(rows, schema=["model", "dataset", "method", "benchmark", "score", "gain"], orient="row")
    return centred(table.with_columns(pl.col("score", "gain").fill_nan(None)))


def helped(rng: np.random.Generator, models: int, sets: int) -> np.ndarray:
    """Scores where a set helps all base models, on all benchmarks and on some more than on others."""
    common = rng.normal(size=sets)[None, :, None] + rng.normal(size=(1, sets, len(BENCHMARKS)))
    return common + rng.normal(size=(models, 1, 1)) + rng.normal(size=(models, sets, len(BENCHMARKS)))


def test_methods_that_have_nothing_in_common_do_not_correlate(monkeypatch):
    real = agreement.two_way.correlation
    monkeypatch.setattr(agreement.two_way, "correlation", lambda *rest: real(*rest, count=499))
    rng = RNG(0)

    def table(shared: float) -> pl.DataFrame:
        x, y = helped(rng, 6, 9), helped(rng, 6, 9)
        return agreement.method_correlation(cells(full=x, lora=(1 - shared) * y + shared * x), 0)

    null = [table(0.0) for _ in range(60)]
    for place in (0, -1):  # one base model, and all
        assert is_at_most([one["p"][place] <= 0.05 for one in null])
        assert is_at_most([one["low"][place] > 0 or one["high"][place] < 0 for one in null], 0.1)  # ten units cover about 90 %
    found = table(0.7)
    assert found.height == 7 and (found["p"] <= 0.05).all() and (found["low"] > 0).all()
    assert found["models"].to_list() == [1] * 6 + [6] and set(found["sets"]) == {9} and np.isnan(found["q"][-1])


def test_what_is_missing_in_one_method_is_no_pair():
    scores = helped(RNG(1), 2, 6)
    lora = scores.copy()
    lora[0, :4] = np.nan
    table = agreement.method_correlation(cells(full=scores, lora=lora), 0)
    assert table["pairs"].to_list() == [12, 36, 48]
    assert np.isnan(table["effect"][0]) and np.isnan(table["low"][0])  # two training sets decide nothing
    assert table["effect"][1] == pytest.approx(1)
    alone = agreement.method_correlation(cells(full=scores), 0)
    assert set(alone["pairs"]) == {0} and alone["effect"].is_nan().all()


def test_base_models_with_sets_of_their_own_kind_do_not_agree(monkeypatch):
    monkeypatch.setattr(agreement.consistency, "PERMUTATIONS", 199)
    rng = RNG(2)
    null = [agreement.set_agreement(cells(full=rng.normal(size=(6, 7, 6))), 0) for _ in range(60)]
    assert is_at_most([one["p"][0] <= 0.05 for one in null])
    assert is_at_most([one["low"][0] > 0 or one["high"][0] < 0 for one in null], 0.1)
    kinds = 5 * rng.normal(size=(3, len(BENCHMARKS)))[np.arange(7) % 3]  # sets of one kind act alike
    found = agreement.set_agreement(cells(full=kinds + rng.normal(size=(6, 7, len(BENCHMARKS)))), 0)
    assert found["p"][0] <= 0.05 and found["low"][0] > 0 and found["n"].to_list() == [6, 6]


def test_intervals_of_pairs_need_five_base_models():
    for models, finite in ((4, False), (5, True)):
        table = agreement.set_similarity(cells(full=helped(RNG(3), models, 4)), 0).filter(value="centred", model="all")
        assert table["n"].to_list() == [models] * 6
        assert table["low"].is_finite().all() == finite and table["smallest"].is_finite().all()


STUDY = {
    "datasets": {"d0": {"group": "mathematics"}, **{f"d{i}": {"group": "other"} for i in range(1, 6)}},
    "benchmarks": {name: {"group": "mathematics" if name.startswith(("math", "gsm")) else "other"} for name in BENCHMARKS},
}


def test_ranks_on_the_own_topic():
    """The set is best on MATH and last on GSM8K, whose two variants count once."""
    scores = np.zeros((7, 4, len(BENCHMARKS)))
    scores[:, :, 0] = [9, 3, 2, 1]
    scores[:, :, 1:3] = np.array([0, 3, 2, 1])[:, None]
    scores[6, 1, 0] = np.nan  # this base model does not rank the sets on MATH
    row = agreement.own_topic(cells(full=scores), STUDY, 0).row(0, named=True)
    assert (row["n"], row["sets"], row["expected"], row["best"]) == (7, 4, 2.5, 0)
    assert row["effect"] == pytest.approx((6 * 2.5 + 4) / 7)
    assert (row["smallest"], row["largest"]) == (2.5, 4)


def test_a_set_of_no_topic_is_at_the_middle_rank_and_few_models_decide_nothing():
    rng = RNG(4)
    null = [agreement.own_topic(cells(full=rng.normal(size=(8, 6, 6))), STUDY, 0).row(0, named=True) for _ in range(60)]
    assert is_at_most([row["p"] <= 0.05 for row in null])
    planted = rng.normal(size=(8, 6, 6))
    planted[:, 0] += 3
    assert agreement.own_topic(cells(full=planted), STUDY, 0)["q"][0] <= 0.05
    few = agreement.own_topic(cells(full=planted[:5]), STUDY, 0).row(0, named=True)
    assert few["n"] == 5 and np.isnan(few["q"])


def languages(rng: np.random.Generator, r: list[float], each: int = 4) -> tuple[pl.DataFrame, dict]:
    """Cells of two examinations that correlate at about ``r`` in the base models of a language."""
    x, noise = rng.normal(size=(2, len(r) * each, 8, len(BENCHMARKS)))
    rho = np.repeat(r, each)[:, None]
    x[..., 1] = rho * x[..., 0] + np.sqrt(1 - rho**2) * noise[..., 1]
    return cells(full=x), {"models": {f"m{i}": {"language": "abc"[i // each]} for i in range(len(x))}}


def test_languages_that_do_not_matter_are_not_found():
    rng, pair = RNG(5), (BENCHMARKS[:2],)
    null = [agreement.transfer_by_language(*languages(rng, [0.5] * 3), pair, 0).row(-1, named=True) for _ in range(60)]
    assert {row["language"] for row in null} == {agreement.BETWEEN} and is_at_most([row["p"] <= 0.05 for row in null])
    table = agreement.transfer_by_language(*languages(rng, [0.98, 0.98, -0.9]), pair, 0)
    assert table["p"][-1] <= 0.05 and table["n"].to_list() == [4, 4, 4, 12] and table["low"].is_nan().all()
    few = agreement.transfer_by_language(*languages(rng, [0.98, -0.9], 2), pair, 0)
    assert np.isnan(few["p"][-1]) and few["n"][-1] == 4  # four base models cannot be decided
    wide = agreement.transfer_by_language(*languages(rng, [0.9], 6), pair, 0)
    assert np.isfinite(wide["low"][0]) and np.isnan(wide["effect"][-1])  # one language
