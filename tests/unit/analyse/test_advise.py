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
    rows = []
    for m in range(models):
        for shots in (0, 5):
            rows.append((f"m{m}", None, "base", None, None, 0, "mmlu", shots, 40.0, "percent", 0))
            for d, name in enumerate([*sets, "code"]):
                score = 40.0 + 5 * d + rng.normal()
                rows.append((f"m{m}", name, "full", 1000, "cosine", 10, "mmlu", shots, score, "percent", 0))
                rows.append((f"m{m}", name, "full", 20000, "constant", 10, "mmlu", shots, 0.0, "percent", 0))
    columns = ["model", "dataset", "method", "rows", "schedule", "epoch", "benchmark", "shots", "score", "scale", "row"]
    return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)


def test_published_scores_rank_known_sets():
    scores = published(np.random.default_rng(6))
    training, features = script.from_published(scores, "m0", ["lima", "code"])
    assert training.models == ["m1", "m2", "m3", "m4", "m5"] and features.shape == (2, 0)
    assert training.gain[:, training.sets.index("code")].mean() == pytest.approx(0.15, abs=0.02)
    made, result = advise(training, ["lima", "code"], features, seed=0)
    assert [one.dataset for one in made] == ["code", "lima"] and result.useful
    page = script.page("m0", ["lima", "code"], training, made, result)
    assert "| 1 | code |" in " ".join(page.split()) and "of the published scores" in page and "Error with a base model held out" in page
    assert "some published ones are unreliable" in " ".join(page.split())
    # A test that one set lacks under a base model says nothing of the order of its other sets: 5-shot gains are no longer in any mean.
    spoilt = scores.with_columns(pl.when(pl.col("shots") == 5, pl.col("dataset") == "code").then(99.0).otherwise("score").alias("score"))
    lacking = spoilt.filter(~((pl.col("shots") == 5) & (pl.col("dataset") == "lima")))
    known = [script.from_published(part, "m0", ["code"])[0].gain[:, 0].mean() for part in (spoilt, lacking)]
    assert known[0] > 0.3 and known[1] == pytest.approx(0.15, abs=0.02)
    with pytest.raises(AtlasError, match="no published gain of mine"):
        script.from_published(scores, "m0", ["mine"])
