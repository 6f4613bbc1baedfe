"""Advice from published scores: a planted ranking is found, nothing to learn is refused, its intervals cover, and its page says n and source."""

import json

import numpy as np
import polars as pl
import pytest

from helpers.rates import is_at_most
from sft_atlas.analyse import advise as job
from sft_atlas.analyse import published_advice as script
from sft_atlas.analyse import ranking
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.published import audit_published, frames, select_single_sets, tidy_published

REAL = ROOT / "../shared/published/evaluation_result.csv"
FAMILIES = [f"f{i // 2}" for i in range(10)]


def world(rng, models=10, sets=8, shared=0.0, family=0.0):
    """Effects of sets: what all base models share, what those of a family share, and noise."""
    own = shared * rng.normal(size=sets) + family * np.repeat(rng.normal(size=(models // 2, sets)), 2, axis=0)
    return ranking.effects(own + rng.normal(size=(models, sets)))


def measured(rng, **options):
    return ranking.quality(world(rng, **options), {"family": FAMILIES}, seed=0, shuffles=39)


# ---------------------------------------------------------------- planted


def test_where_base_models_share_nothing_the_ranking_is_refused():
    rng = np.random.default_rng(0)
    found = [measured(rng) for _ in range(25)]
    assert is_at_most([one.useful for one in found]) and is_at_most([one.trait is not None for one in found])
    refused = next(one for one in found if not one.useful)
    text = script.refusal(refused)
    assert text.startswith("No ranking: with a base model held out, the mean of the other base models is not better than a set at random")
    assert text.count(". ") == 0 and "regret" in text and "n = 10 base models" in text


def test_a_shared_ranking_is_found_and_its_prediction_intervals_cover():
    rng = np.random.default_rng(1)
    found = [measured(rng, shared=2.0) for _ in range(12)]
    assert np.mean([one.useful for one in found]) > 0.9
    assert sum(one.covered for one in found) / sum(one.intervals for one in found) == pytest.approx(0.95, abs=0.025)
    assert is_at_most([one.trait is not None for one in found])  # families say nothing more here
    gains = [one.chance.regret.mean() - one.adviser.regret.mean() for one in found]
    assert np.mean(gains) > 1 and found[0].regret.effect == pytest.approx(gains[0])


def test_a_family_is_used_only_where_it_is_shown_to_be_better():
    found = measured(np.random.default_rng(2), shared=1.0, family=3.0)
    assert found.trait == "family" and found.adviser.error.mean() < found.baseline.error.mean()
    few = ranking.alternatives(world(np.random.default_rng(2), family=3.0)[:4], {"family": FAMILIES[:4]}, 0)[0]
    assert few.better.effect > 0 and not few.is_better  # four base models cannot decide it


def test_a_set_that_a_base_model_lacks_does_not_shift_its_others():
    whole = ranking.relative(np.add.outer(np.arange(4.0), [9.0, 1.0, -4.0, -6.0]))
    lacking = whole + np.arange(4.0)[:, None]
    lacking[0, 0] = np.nan
    assert ranking.effects(lacking)[0, 1:] == pytest.approx(whole[0, 1:], abs=1e-6)


def test_a_base_model_held_out_is_not_used():
    effect = world(np.random.default_rng(3), shared=1.0)
    changed = effect.copy()
    changed[4] = 99.0
    assert ranking.held_out(changed)[4] == pytest.approx(ranking.held_out(effect)[4])
    unlike = ranking.held_out(effect, unlike=FAMILIES)
    assert unlike[4] == pytest.approx(np.delete(effect, (4, 5), axis=0).mean(axis=0))


# ---------------------------------------------------------------- the page


def cells(rng, models=6, sets=("lima", "math", "flan", "code")):
    """Published scores in points, with a base model that has none."""
    facts = {"dataset_label": None, "label": None, "family": "unknown", "language": "en", "n": 100}
    rows = [
        {"model": f"m{m}", "dataset": name, "method": method, "task": f"mmlu-{shots}", "benchmark": "mmlu"}
        | facts
        | {"score": 40.0 + 5 * d + 3 * m + rng.normal() if method == "full" else 0.0, "dataset_label": name, "label": f"m{m}"}
        for m in range(models)
        for shots in (0, 5)
        for d, name in enumerate(sets)
        for method in ("full", "lora")
    ]
    return pl.DataFrame(rows)


def text_of(made, model="new"):
    return " ".join("\n".join(script.section(made, model, "a CSV", {})).split())


def test_an_unknown_base_model_gets_the_mean_and_a_published_one_its_own_scores():
    scores = cells(np.random.default_rng(6))
    made = script.advise(scores, "new", ["lima", "code"], {}, 0)
    assert [one.dataset for one in made.rows] == ["code", "lima"] and made.basis == script.OTHERS
    assert all(one.n == 6 and one.below < one.low < one.effect < one.high < one.above for one in made.rows)
    page = text_of(made)
    assert "(n = 6 base models): new has none" in page and "Among these 2 candidates" in page and "nan" not in page
    assert "mean of the other base models (baseline) | 1.00 | 0.00" in page and "Source: a CSV, after the audit's repairs; full" in page
    own = script.advise(scores, "m2", [], {}, 0)
    assert own.basis == script.OWN and own.rows[0].dataset == "code" and own.rows[0].n == 1
    assert "Ranked by its own published scores" in text_of(own, "m2") and "no prediction" in text_of(own, "m2")
    with pytest.raises(AtlasError, match="no published scores of mine"):
        script.advise(scores, "new", ["mine"], {}, 0)


def test_too_few_base_models_are_refused():
    made = script.advise(cells(np.random.default_rng(7), models=2), "new", [], {}, 0)
    assert made.rows == [] and "at least 3 base models and 4 training sets; there are 2 and 4" in text_of(made)


def test_a_test_that_one_set_lacks_is_left_out_and_a_benchmark_counts_once():
    scores = cells(np.random.default_rng(6))
    high = pl.col("task") == "mmlu-5", pl.col("dataset") == "code"
    spoilt = scores.with_columns(pl.when(*high).then(99.0).otherwise("score").alias("score"))
    lacking = spoilt.filter(~((pl.col("task") == "mmlu-5") & (pl.col("dataset") == "lima")))
    effect = [script.scores(part).effect[:, 0].mean() for part in (spoilt, lacking)]
    assert effect[0] > 15 and effect[1] == pytest.approx(7.5, abs=1)
    other = scores.filter(task="mmlu-0").with_columns(pl.lit("mtbench").alias("benchmark"), pl.lit("mtbench-0").alias("task"), score=10.0)
    assert script.scores(pl.concat([scores, other])).effect[:, 0].mean() == pytest.approx(script.scores(scores).effect[:, 0].mean() / 2)


def test_the_job_writes_source_and_n_beside_every_number(run_script, tmp_path):
    cells(np.random.default_rng(6)).write_parquet(tmp_path / "single_sets.parquet")
    (tmp_path / "study.json").write_text('{"study": "mine", "seed": 0}')
    (tmp_path / "source.json").write_text(json.dumps({"source": "own.csv", "authors_file": False, "sha256": "ab" * 32}))
    outputs = {"output_page": tmp_path / "advice.md", "output_table": tmp_path / "advice.parquet"}
    published = {"published": tmp_path / "single_sets.parquet", "published_source": tmp_path / "source.json"}
    run_script(job, study=tmp_path / "study.json", model="new", **published, **outputs)
    table = pl.read_parquet(outputs["output_table"])
    assert table["rank"].to_list() == [1, 2, 3, 4] and set(table["source"]) == {"published scores"} and set(table["n"]) == {6}
    assert table["gain"].null_count() == 4 and table["q"].null_count() == 0
    page = outputs["output_page"].read_text()
    assert "own.csv (sha256 abababababab)" in page and "From the study" not in page


# ---------------------------------------------------------------- the authors' CSV


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="../shared/published is absent")
def test_the_figures_in_the_docs_are_those_of_the_published_scores():
    tidy = tidy_published.tidy(REAL.read_bytes())
    repairs = audit_published.repairs(audit_published.audit(tidy))
    part = select_single_sets.single_sets(frames.of_scores(frames.apply_policy(tidy, repairs, "repaired")))
    found = script.advise(part, "new", [], {}, 0)
    said = " ".join((ROOT / "docs/statistics.md").read_text(encoding="utf-8").split())
    quality = found.quality
    assert quality.useful and quality.trait is None
    for one in (quality.baseline, *quality.others, quality.chance):
        assert f"| {one.name} | {one.rank.mean():.2f} | {one.regret.mean():.2f} | {one.error.mean():.2f} |" in said
    assert f"held {quality.covered} of {quality.intervals} effects" in said
    assert script.advise(part, "swallow-mistral-7b", [], {}, 0).basis == script.OTHERS  # the CSV has no scores of it
    assert script.advise(part, "olmo-7b", [], {}, 0).basis == script.OWN
