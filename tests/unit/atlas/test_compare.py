"""Comparisons of checkpoints and recipes: the paired statistics are those of gains and of a plain computation, and bounded."""

import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from sft_atlas.analyse import select
from sft_atlas.atlas import contents
from sft_atlas.atlas.pages import compare
from sft_atlas.evaluate.scores import standard_error
from sft_atlas.stats.estimates import benjamini_hochberg
from sft_atlas.tables import seeds

FIRST, SECOND = "alder-1b/arith/full-256/3", "alder-1b/logic/lora-256/3"


@pytest.fixture(scope="module")
def shown():
    study, root, frames = synthetic.collected()
    averaged = {name: seeds.averaged(name, frame) for name, frame in frames.items()}
    return contents.Contents(study, averaged, frames, contents.expected(study), root=str(root))


@pytest.fixture(scope="module")
def found(shown):
    scores = compare.item_scores(shown, "alder-1b")
    names = [name for name in shown.checkpoints["address"] if name.startswith("alder-1b/")]
    wanted, possible = compare.pairs(shown, names)
    return scores, names, wanted, possible, compare.tested(scores, names, wanted)


def rows(names, table, first, second):
    a, b = names.index(first), names.index(second)
    return pl.DataFrame(table).filter(pl.col("first") == a, pl.col("second") == b)


def test_the_base_model_with_a_checkpoint_is_the_gain(shown, found):
    own = rows(found[1], found[4], "alder-1b/base/base/0", FIRST)
    gains = shown.each_seed["gains"].filter(synthetic.at("alder-1b", "arith", "full-256", 3))
    both = own.join(gains, on="benchmark", suffix="_table")
    assert both.height == 8
    for name, other in (("difference", "gain"), ("stderr", "stderr_table"), ("score_second", "score")):
        assert both[name].to_list() == pytest.approx((100 * both[other]).to_list(), rel=1e-6)
    p = select.tested(gains)["p"].to_numpy()
    assert both.sort("benchmark")["q"].to_list() == pytest.approx(
        benjamini_hochberg(p[np.argsort(gains["benchmark"].to_list())]).tolist(), rel=1e-6
    )


def test_two_checkpoints_are_compared_item_by_item(found):
    scores, names, _, _, table = found
    own = rows(names, table, *sorted((FIRST, SECOND), key=names.index)).filter(pl.col("benchmark") == "sums").row(0, named=True)
    difference = scores["sums"][SECOND] - scores["sums"][FIRST]
    if names.index(SECOND) < names.index(FIRST):
        difference = -difference
    assert own["difference"] == pytest.approx(100 * difference.mean(), rel=1e-6)
    assert own["stderr"] == pytest.approx(100 * difference.std(ddof=1) / 10, rel=1e-6)
    assert (own["better"], own["worse"], own["n"]) == ((difference > 0).sum(), (difference < 0).sum(), 100)
    assert own["low"] < own["difference"] < own["high"]


def test_clusters_are_units_and_unscored_items_are_left_out():
    first, second = np.array([0, 1, 0, 1, 0, np.nan]), np.array([1, 1, 0, 0, 1, 1.0])
    clusters = ["a", "a", "b", "b", None, "a"]
    own = compare.paired(first, second, np.array([0, 0, 1, 1, 2, 0]))
    difference = (second - first)[:5]
    assert own["n"] == 5 and own["gain"] == pytest.approx(difference.mean())
    assert own["stderr"] == pytest.approx(standard_error(difference.tolist(), clusters[:5])[0])
    assert (own["better"], own["worse"]) == (2, 1)


@pytest.mark.parametrize(
    ("first", "second", "units", "stderr", "z"),
    [
        ([0, 0], [1, 1], [0, 1], 0.0, np.inf),
        ([1, 0], [1, 0], [0, 1], 0.0, 0.0),
        ([0, 1], [1, 1], [0, 0], None, None),
        ([np.nan], [1], [0], None, None),
    ],
)
def test_what_cannot_be_estimated_is_not(first, second, units, stderr, z):
    own = compare.paired(np.array(first, float), np.array(second, float), np.array(units))
    assert (own["stderr"], own["z"]) == (stderr, z)


def test_an_earlier_checkpoint_is_tested_in_its_own_run_only(found):
    _, names, wanted, possible, _ = found
    chosen = {(names[a], names[b]) for a, b in wanted}
    assert possible == len(names) * (len(names) - 1) // 2 > len(wanted)
    assert ("alder-1b/arith/full-256/1", "alder-1b/arith/full-256/3") in chosen
    assert ("alder-1b/base/base/0", "alder-1b/arith/full-256/1") in chosen
    assert not any({"alder-1b/arith/full-256/1", SECOND} == set(pair) for pair in chosen)
    base = [pair for pair in wanted if names[pair[0]].endswith("base/base/0")]
    assert wanted[: len(base)] == base, "gains come first where the limit is reached"


def test_recipes_are_compared_over_base_models_and_sets(shown):
    own = pl.DataFrame(compare.recipes(shown)).filter(pl.col("first") == "full-256", pl.col("second") == "lora-256")
    assert own["benchmark"].to_list()[0] == compare.ALL and own.height == 9
    pairs = select.method_pairs(shown.tables["gains"], shown.study)
    overall = select.overall_difference(pairs, shown.study["seed"])
    first = own.row(0, named=True)
    assert first["difference"] == pytest.approx(100 * overall.effect, rel=1e-6)
    assert (first["unit"], first["n"], first["runs"]) == (overall.unit, overall.n, 18)
    assert first["q"] is None and own["q"][1:].null_count() == 0
    assert first["low"] == pytest.approx(100 * overall.low, rel=1e-6)


def test_too_few_units_have_no_p():
    gains = pl.DataFrame(
        [(model, "a", "sums", recipe, gain) for model in "xyz" for recipe, gain in (("one", 0.1), ("two", 0.2))],
        schema=["model", "dataset", "benchmark", "recipe", "gain"],
        orient="row",
    )
    own = compare.of_recipes(gains, "one", "two", 0)
    assert [row["p"] for row in own] == [None, None] and [row["runs"] for row in own] == [3, 3]
    assert compare.of_recipes(gains, "one", "three", 0) == []
