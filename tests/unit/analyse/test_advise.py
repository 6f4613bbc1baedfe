"""The adviser: planted worlds are ranked, worlds without anything to learn are refused; what it learns from, and its page."""

import numpy as np
import polars as pl
import pytest

from helpers import synthetic
from helpers.rates import is_at_most
from sft_atlas.analyse import advise as script
from sft_atlas.analyse.advise import Training, advise, held_out_predictions, skill


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
    covered, ranks, kept = [], [], []
    for i in range(12):
        whole = world(rng, models=9, slope=2.0, shared=0.5)
        training = Training(whole.gain[:8], whole.features[:8], whole.models[:8], whole.sets, whole.properties, whole.source)
        made, _, refused = advise(training, whole.sets, whole.features[8], seed=i)
        kept.append(refused is None)
        assert [one.gain for one in made] == sorted((one.gain for one in made), reverse=True)
        truth = dict(zip(whole.sets, whole.gain[8], strict=True))
        covered += [one.low <= truth[one.dataset] <= one.high for one in made]
        ranks.append(np.corrcoef([one.gain for one in made], [truth[one.dataset] for one in made])[0, 1])
    assert np.mean(covered) > 0.85 and np.mean(ranks) > 0.8 and np.mean(kept) > 0.8


def test_too_few_gains_give_a_reason_instead_of_a_ranking():
    training = world(np.random.default_rng(4), models=2, slope=2.0)
    made, *skills = advise(training, training.sets, training.features[0], seed=0)
    page = "\n".join(script.section(["d0"], training, made, *skills))
    assert made == [] and "at least 3 base models and 4 training sets; there are 2 and 8" in page


def test_missing_gains_and_properties_are_missing_not_zero():
    training = world(np.random.default_rng(5), slope=2.0)
    training.gain[0, 0], training.features[1, 1, 0] = np.nan, np.nan
    assert np.isnan(held_out_predictions(training.features, training.gain, True)[0, 0])
    made, *_ = advise(training, training.sets, np.full((8, 3), np.nan), seed=0)
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


# ---------------------------------------------------------------- imported scores


def imported(frame, models, sets, gains, recipe="full-256"):
    """Rows of the table of gains that others measured: of the study's first benchmark, as if their recipe was one of the study."""
    row = frame.filter(pl.col("epoch") == pl.col("epoch").max()).head(1).with_columns(source=pl.lit("csv"), base_source=pl.lit("csv"))
    rows = [
        row.with_columns(model=pl.lit(model), dataset=pl.lit(name), recipe=pl.lit(recipe), method=pl.lit("full"), gain=pl.lit(float(gain)))
        for model, values in zip(models, gains, strict=True)
        for name, gain in zip(sets, values, strict=True)
    ]
    return pl.concat([frame, *(each.cast(frame.schema) for each in rows)])


def test_imported_gains_are_a_source_of_their_own(advice_request, run_script, tmp_path):
    study, root, folder = advice_request
    page, table = call(advice_request, run_script, tmp_path, ["arith", "chat"])
    frames = {name: pl.read_parquet(folder / f"{name}.parquet") for name in ("gains", "perplexity", "properties")}
    models, sets = [f"new-{i}" for i in range(5)], ["arith", "chat", "red", "blue", "green"]
    gains = 0.1 * np.arange(5) + np.random.default_rng(0).normal(scale=0.01, size=(5, 5))
    (tmp_path / "both").mkdir()
    for name, frame in frames.items():
        (imported(frame, models, sets, gains) if name == "gains" else frame).write_parquet(tmp_path / "both" / f"{name}.parquet")
    both, ranked = call((study, root, tmp_path / "both"), run_script, tmp_path, ["arith", "chat"])
    own, theirs = both.split("## From ")[1:]
    assert page.split("## From ")[1].startswith(own.strip()) and table.is_empty()  # the study's own section is what it is without them
    assert (
        theirs.startswith(f"scores imported into the study {study['study']}") and "Learned from 5 base models x 5 training sets" in theirs
    )
    assert ranked.select("source", "dataset", "n").rows() == [
        (f"scores imported into the study {study['study']}", name, 5) for name in ("chat", "arith")
    ]
    assert "The sources are ranked apart" in both


def test_the_study_and_the_published_scores_are_asked_at_once_and_ranked_apart(advice_request, run_script, tmp_path):
    study, root, folder = advice_request
    models, sets = [f"m{i}" for i in range(5)], ["arith", "chat", "red", "blue", "green"]
    frames = {name: pl.read_parquet(folder / f"{name}.parquet") for name in ("gains", "perplexity", "properties")}
    gains = 0.1 * np.arange(5) + np.random.default_rng(0).normal(scale=0.01, size=(5, 5))
    (tmp_path / "both").mkdir()
    for name, frame in frames.items():
        (imported(frame, models, sets, gains) if name == "gains" else frame).write_parquet(tmp_path / "both" / f"{name}.parquet")
    facts = {"method": "full", "task": "mmlu-0", "benchmark": "mmlu", "family": "unknown", "language": "en", "n": 100}
    rng = np.random.default_rng(1)
    scores = [
        {"model": m, "label": m, "dataset": d, "dataset_label": d, "score": 40.0 - 5 * i + rng.normal(), **facts} for m in models for i, d in enumerate(sets)
    ]  # fmt: skip
    pl.DataFrame(scores).write_parquet(tmp_path / "single_sets.parquet")
    (tmp_path / "source.json").write_text('{"source": "own.csv", "authors_file": false, "sha256": "abababababab"}')
    published = {
        "published": tmp_path / "single_sets.parquet",
        "published_source": tmp_path / "source.json",
        "published_dataset": ["arith", "chat"],
    }
    page, table = call((study, root, tmp_path / "both"), run_script, tmp_path, ["arith", "chat"], **published)
    titles = [part.split("\n")[0] for part in page.split("## From ")[1:]]
    assert titles == ["the published scores", f"the study {study['study']}", f"scores imported into the study {study['study']}"]
    assert "The sources are ranked apart" in page and "n = 5 base models" in page
    first = {source: part.sort("rank")["dataset"].to_list() for (source,), part in table.group_by("source")}
    assert first == {"published scores": ["arith", "chat"], f"scores imported into the study {study['study']}": ["chat", "arith"]}


def test_a_study_of_imported_gains_alone_has_their_section_only(advice_request, run_script, tmp_path):
    study, root, folder = advice_request
    (tmp_path / "theirs").mkdir()
    for name in ("gains", "perplexity", "properties"):
        frame = pl.read_parquet(folder / f"{name}.parquet")
        if name == "gains":
            frame = imported(frame, ["new-1", "new-2"], ["arith", "chat"], np.ones((2, 2))).filter(pl.col("source") != "ours")
        frame.write_parquet(tmp_path / "theirs" / f"{name}.parquet")
    page, _ = call((study, root, tmp_path / "theirs"), run_script, tmp_path, ["arith", "chat"])
    assert page.count("## From") == 1 and "## From scores imported into the study" in page and "there are 2 and 2" in page


def test_properties_reach_the_adviser(advice_request):
    study, _, frames = synthetic.collected()
    training, own = script.from_study(frames, study, "new", list(training_sets := study["datasets"])[:3], "a test")
    assert training.gain.shape == (3, 6) and own.shape[0] == 3
    # Nothing was measured on that base model: what is left are properties of the training sets alone.
    assert training.properties == ["words", "lexical_diversity", "near_duplicates", "lexical_centroid"]
    one = next(iter(study["models"]))
    training, own = script.from_study(frames, study, one, list(training_sets)[:3], "a test")
    assert training.models == list(study["models"])[1:] and "perplexity_response" in training.properties
    row = frames["perplexity"].filter(model=one, dataset=list(training_sets)[1], scope="response")["perplexity"].item()
    assert own[1, training.properties.index("perplexity_response")] == pytest.approx(np.log(row))
    assert "semantic_centroid" not in training.properties


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
    assert result.beats_baseline
    page = " ".join("\n".join(script.section(["d0"], informed, [], result)).split())
    assert "The adviser is better: the baseline's error minus its own is" in page
    assert skill(informed, new_sets=True, seed=0, shuffles=19).baseline is None


def test_properties_that_say_nothing_are_refused_and_the_mean_ranks():
    training = world(np.random.default_rng(8), models=6, shared=2.0)
    made, result, refused = advise(training, training.sets, training.features[0], seed=0)
    assert made and result.useful and refused is not None and not refused.beats_baseline
    page = " ".join("\n".join(script.section(training.sets, training, made, result, refused)).split())
    assert "Properties of training sets: refused, they are not shown to be better than this baseline" in page
    assert "with a, b, c" not in page and "| n base models |" in page
