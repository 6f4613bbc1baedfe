"""The adviser: planted worlds are ranked, worlds without anything to learn are refused; what it learns from, and its page."""

import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from helpers.rates import is_at_most
from sft_atlas.analyse import advise as script
from sft_atlas.analyse.advise import Training, advise, held_out_predictions, skill
from sft_atlas.core.errors import AtlasError


def world(rng, models=6, sets=8, slope=0.0, shared=0.0):
    """Two properties that differ by base model, one of the set alone; gains from the first by ``slope`` and from the set by ``shared``."""
    own = rng.normal(size=(sets, 3))
    x = 0.8 * own + np.concatenate([0.6 * rng.normal(size=(models, sets, 2)), np.zeros((models, sets, 1))], axis=2)
    y = slope * x[:, :, 0] + shared * rng.normal(size=sets) + 0.7 * rng.normal(size=(models, sets)) + rng.normal(size=(models, 1))
    return Training(y, x, [f"m{i}" for i in range(models)], [f"d{i}" for i in range(sets)], ["a", "b", "c"], "a test")


def rates(rng, count, new_sets, **options):
    return [skill(world(rng, **options), new_sets, seed=i, shuffles=39).useful for i in range(count)]


@pytest.mark.slow
def test_nothing_to_learn_is_refused():
    rng = np.random.default_rng(0)
    assert is_at_most(rates(rng, 60, new_sets=False))
    assert is_at_most(rates(rng, 20, new_sets=True, models=4, sets=6))
    # Sets that help everyone can be ranked where they are known; their properties say nothing about sets that are not.
    assert np.mean(rates(rng, 15, new_sets=False, shared=1.5)) > 0.9
    assert is_at_most(rates(rng, 20, new_sets=True, models=4, sets=6, shared=1.5))


def test_a_planted_property_ranks_new_sets():
    assert np.mean(rates(np.random.default_rng(1), 8, new_sets=True, slope=2.0)) > 0.8


def test_the_left_out_side_is_not_used():
    rng = np.random.default_rng(2)
    training = world(rng, slope=1.0, shared=1.0)
    changed = training.gain.copy()
    changed[3] = rng.normal(size=8)
    assert held_out_predictions(training.features, training.gain, False)[3] == pytest.approx(
        held_out_predictions(training.features, changed, False)[3]
    )


@pytest.mark.slow
def test_advice_ranks_by_what_was_planted_and_its_interval_covers():
    rng = np.random.default_rng(3)
    covered, ranks = [], []
    for i in range(12):
        whole = world(rng, models=9, slope=2.0, shared=0.5)
        training = Training(whole.gain[:8], whole.features[:8], whole.models[:8], whole.sets, whole.properties, whole.source)
        made, _ = advise(training, whole.sets, whole.features[8], seed=i)
        assert [one.gain for one in made] == sorted((one.gain for one in made), reverse=True)
        truth = dict(zip(whole.sets, whole.gain[8], strict=True))
        covered += [one.low <= truth[one.dataset] <= one.high for one in made]
        ranks.append(np.corrcoef([one.gain for one in made], [truth[one.dataset] for one in made])[0, 1])
    assert np.mean(covered) > 0.85 and np.mean(ranks) > 0.8


def test_too_few_gains_give_a_reason_instead_of_a_ranking():
    training = world(np.random.default_rng(4), models=2, slope=2.0)
    made, result = advise(training, training.sets, training.features[0], seed=0)
    assert made == [] and "at least 3 base models and 4 training sets; there are 2 and 8" in script.page(
        "m", ["d0"], training, made, result
    )


def test_missing_gains_and_properties_are_missing_not_zero():
    training = world(np.random.default_rng(5), slope=2.0)
    training.gain[0, 0], training.features[1, 1, 0] = np.nan, np.nan
    assert np.isnan(held_out_predictions(training.features, training.gain, True)[0, 0])
    made, _ = advise(training, training.sets, np.full((8, 3), np.nan), seed=0)
    assert all(np.isfinite(one.gain) for one in made)


# ---------------------------------------------------------------- what it learns from


@pytest.fixture(scope="module")
def advice_request(tmp_path_factory):
    """The folder of the synthetic study's tables, and the files of a question about its third base model."""
    study, root, frames = synthetic.collected()
    folder = tmp_path_factory.mktemp("tables")
    for name in ("gains", "perplexity", "properties"):
        frames[name].write_parquet(folder / f"{name}.parquet")
    return study, root, folder


def call(advice_request, run_script, tmp_path, candidates, **options):
    study, root, folder = advice_request
    model = list(study["models"])[2]
    files = {"perplexity": [root / "perplexity" / model / f"{name}.parquet" for name in candidates]}
    files["properties"] = [root / "data" / name / "256" / "properties.parquet" for name in candidates]
    outputs = {"output_page": tmp_path / "advice.md", "output_table": tmp_path / "advice.parquet"}
    arguments = {"study": root / "study.json", "model": model, "dataset": list(candidates), "learn_from": folder}
    run_script(script, **arguments, **files, similarity=root / "tables" / "similarity.parquet", **outputs, **options)
    return outputs["output_page"].read_text(), pl.read_parquet(outputs["output_table"])


def test_the_base_model_in_question_is_excluded(advice_request, run_script, tmp_path):
    page, table = call(advice_request, run_script, tmp_path, ["arith", "chat"])
    assert "there are 2 and 6" in page and table.is_empty()


def test_properties_reach_the_adviser(advice_request):
    study, _, frames = synthetic.collected()
    training, own = script.from_study(frames, study, "new", list(training_sets := study["datasets"])[:3])
    assert training.gain.shape == (3, 6) and own.shape[0] == 3
    # Nothing was measured on that base model: what is left are properties of the training sets alone.
    assert training.properties == ["words", "lexical_diversity", "near_duplicates", "lexical_centroid"]
    one = next(iter(study["models"]))
    training, own = script.from_study(frames, study, one, list(training_sets)[:3])
    assert training.models == list(study["models"])[1:] and "perplexity_response" in training.properties
    row = frames["perplexity"].filter(model=one, dataset=list(training_sets)[1], scope="response")["perplexity"].item()
    assert own[1, training.properties.index("perplexity_response")] == pytest.approx(np.log(row))
    assert "semantic_centroid" not in training.properties


def published(rng, models=6, sets=("lima", "math", "flan")):
    """Cells of published scores in points, as in the table of repaired gains; no base model has a usable score."""
    rows = []
    for m in range(models):
        for shots in (0, 5):
            for d, name in enumerate([*sets, "code"]):
                rows.append((f"m{m}", name, "full", f"mmlu-{shots}", 40.0 + 5 * d + 3 * m + rng.normal(), None))
                rows.append((f"m{m}", name, "lora", f"mmlu-{shots}", 0.0, None))
    columns = ["model", "dataset", "method", "benchmark", "score", "gain"]
    return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)


def test_published_scores_rank_known_sets():
    scores = published(np.random.default_rng(6))
    training, features = script.from_published(scores, "m0", ["lima", "code"])
    assert training.models == ["m1", "m2", "m3", "m4", "m5"] and features.shape == (2, 0)
    made, result = advise(training, ["lima", "code"], features, seed=0)
    assert [one.dataset for one in made] == ["code", "lima"] and result.useful
    assert all(np.isnan(one.gain) and one.relative_low < one.relative < one.relative_high for one in made)
    page = " ".join(script.page("m0", ["lima", "code"], training, made, result).split())
    assert "| 1 | code |" in page and "of the published scores" in page and "Error with a base model held out" in page
    assert "nan" not in page and "predicted gain" not in page and "after the audit's repairs" in page
    assert "Baseline, the mean over the other base models: rank correlation within base models 1.000" in page
    # A test that one set lacks under a base model says nothing of the order of its other sets: 5-shot scores are no longer in any mean.
    high = pl.col("benchmark") == "mmlu-5", pl.col("dataset") == "code"
    spoilt = scores.with_columns(pl.when(*high).then(99.0).otherwise("score").alias("score"))
    lacking = spoilt.filter(~((pl.col("benchmark") == "mmlu-5") & (pl.col("dataset") == "lima")))
    code = [script.relative(script.from_published(part, "m0", ["code"])[0].gain)[:, 0].mean() for part in (spoilt, lacking)]
    assert code[0] > 0.15 and code[1] == pytest.approx(0.075, abs=0.02)
    with pytest.raises(AtlasError, match="no published gain of mine"):
        script.from_published(scores, "m0", ["mine"])


def test_a_judged_benchmark_counts_as_much_as_one_with_many_variants():
    rows = [
        (f"m{m}", name, "full", task, {"a": 30.0, "b": 60.0}[name] if task == "mtbench-0" else 50.0, None)
        for m in range(4)
        for name in ("a", "b")
        for task in ("mtbench-0", "nq-0", "nq-1", "nq-5")
    ]
    cells = pl.DataFrame(rows, schema=["model", "dataset", "method", "benchmark", "score", "gain"], orient="row", infer_schema_length=None)
    gain = script.from_published(cells, "new", ["a"])[0].gain
    assert (gain[:, 1] - gain[:, 0]).tolist() == pytest.approx([0.15] * 4)


# ---------------------------------------------------------------- the baseline


def test_regret_and_first_places_are_counted():
    gain = np.array([[0.1, 0.3, 0.2], [0.5, 0.4, np.nan]])
    predicted = np.array([[0.0, 0.1, 0.2], [0.2, 0.1, 0.9]])  # the first is wrong by 0.1; the third set of the second has no gain
    one = script.order(predicted, gain)
    assert (one.top, one.models) == (1, 2) and one.regret == pytest.approx(0.05)
    assert script.order(np.zeros((1, 3)), gain[:1]).regret == pytest.approx(0.1)  # any set: 0.3 less the mean 0.2


def test_the_baseline_is_the_mean_over_the_other_base_models():
    gain = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 5.0], [np.nan, 0.0, 2.0]])
    y = gain - np.nanmean(gain, axis=1, keepdims=True)
    assert script.mean_of_others(gain)[0] == pytest.approx(np.nanmean(y[1:], axis=0))
    assert script.mean_of_others(gain)[1] == pytest.approx(np.nanmean(y[[0, 2]], axis=0))


def test_a_property_beats_the_baseline_only_where_it_says_something():
    informed = world(np.random.default_rng(7), models=8, slope=2.0)
    result = skill(informed, new_sets=False, seed=0, shuffles=19)
    assert result.own.rank > result.baseline.rank and result.own.regret < result.baseline.regret
    page = " ".join(script.page("m", ["d0"], informed, [], result).split())
    assert "The adviser is better." in page
    assert skill(informed, new_sets=True, seed=0, shuffles=19).baseline is None
