"""Designs: their stated power is the rate at which simulated studies are rejected by the tests of the findings, and they cost what the plan says."""

import io
import json

import numpy as np
import polars as pl
import pytest
import yaml

from helpers.plan_study import STUDY, make
from sft_atlas.analyse import contrast
from sft_atlas.analyse.contrast import Components, Part
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.plan import design
from sft_atlas.plan.design import Size, sight, variance
from sft_atlas.plan.forecast import Forecast
from sft_atlas.plan.inputs import DesignInputs
from sft_atlas.plan.plan import page
from sft_atlas.published import audit_published, frames, select_single_sets, tidy_published
from sft_atlas.stats.estimates import combined, paired_difference
from sft_atlas.study import study as studies
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.paths import Paths
from sft_atlas.study.schema import Design
from sft_atlas.study.site import device

REAL = ROOT / "../shared/published/evaluation_result.csv"
DEVICES = ROOT / "config/devices.yaml"
PARTS = Components(
    model=Part(1.0), dataset=Part(0.6), cell=Part(2.0), run=Part(1.5, 1.0, 2.5, 20), seed=Part(1.0), items=Part(0.5), score=Part(2.5), models=8, sets=6, seeded=10
)  # fmt: skip
TIMES = 1200


def asked(question="sets", effect=2.0, population="models", **more):
    return Design(question=question, effect=effect, budget=100, population=population, **more)


def of_rate(rejections, stated):
    """Whether the power is within Monte-Carlo error (99.9 %) of the rate, the draws behind the stated power included."""
    return abs(np.mean(rejections) - stated) < 3.3 * np.sqrt(stated * (1 - stated) * (1 / len(rejections) + 1 / 4000)) + 1e-9


# ---------------------------------------------------------------- power, against simulated studies


def simulated(rng, size, effect, unit=None):
    """Mean gains over seeds of two sides [2, models, sets], with the interactions and seeds of PARTS; the first gains ``effect`` more.

    ``unit``: the axis over which the effect itself varies, of two recipes; what varies over the other one is part of the effect.
    """
    values = rng.normal(0, PARTS.cell.variance**0.5, (2, size.models, size.sets))
    values += rng.normal(0, (PARTS.run.variance / size.seeds) ** 0.5, values.shape)
    if unit == "models":
        values += rng.normal(0, PARTS.model.variance**0.5, (2, size.models, 1))
    if unit == "sets":
        values += rng.normal(0, PARTS.dataset.variance**0.5, (2, 1, size.sets))
    return values + np.array([effect, 0.0])[:, None, None]


@pytest.mark.parametrize(("size", "effect"), [(Size(7, 2, 1), 3.0), (Size(9, 2, 3), 2.0), (Size(6, 2, 2), 0.0)])
def test_the_power_for_two_sets_is_the_rate_at_which_base_models_decide(size, effect):
    rng = np.random.default_rng(1)
    drawn = [np.subtract(*simulated(rng, Size(size.models, 1, size.seeds), effect))[:, 0] for _ in range(TIMES)]
    stated = sight(size, PARTS, asked(effect=max(effect, 1e-9)), 1)
    assert of_rate([paired_difference(units, range(size.models), 0, resamples=1).p <= 0.05 for units in drawn], stated.power)
    assert np.std(np.mean(drawn, axis=1)) == pytest.approx(stated.stderr, rel=0.08)


@pytest.mark.parametrize(("population", "size", "effect"), [("models", Size(8, 3, 2), 2.0), ("sets", Size(3, 8, 1), 2.0)])
def test_the_power_for_two_recipes_is_the_rate_at_which_units_decide(population, size, effect):
    rng, others = np.random.default_rng(2), 1 if population == "models" else 0
    drawn = [np.subtract(*simulated(rng, size, effect, population)).mean(axis=others) for _ in range(TIMES)]
    stated = sight(size, PARTS, asked("methods", effect, population), 1)
    assert of_rate([paired_difference(units, range(stated.units), 0, resamples=1).p <= 0.05 for units in drawn], stated.power)
    assert np.std(np.mean(drawn, axis=1)) == pytest.approx(stated.stderr, rel=0.08)


def test_the_power_within_these_base_models_is_that_of_the_findings_test():
    """`combined`, with the noise of items and the variance between seeds that is estimated from all cells."""
    size, sets, effect = Size(3, 4, 2), 4, 2.4
    rng, rejected, cells = np.random.default_rng(3), [], size.models * sets
    shared, items = PARTS.score.variance - PARTS.items.variance, PARTS.items.variance
    df = cells * (size.seeds - 1)
    for _ in range(TIMES):
        gains = rng.normal(0, shared**0.5, (size.models, sets, 1)) + rng.normal(0, PARTS.run.variance**0.5, (size.models, sets, size.seeds))
        run = gains.var(axis=2, ddof=1).mean()
        means = gains.mean(axis=2)
        item = np.full(size.models, (2 * (items / size.seeds + shared)) ** 0.5)
        training = [np.full(size.models, (2 * part / size.seeds) ** 0.5) for part in (max(0.0, run - items), run)]
        found = combined(effect + means[:, 0] - means[:, 1], item, "", "runs", training=(*training, np.full(size.models, float(df))))
        rejected.append(found.p <= 0.05)
    stated = sight(Size(3, sets, 2), PARTS, asked(effect=effect, population="these"), 1)
    assert 0.3 < stated.power < 0.95 and abs(np.mean(rejected) - stated.power) < 0.06
    assert variance(size, PARTS, "sets", "these") == pytest.approx(2 * (1.5 / 2 + 2.0) / 3)


def test_the_power_for_the_noise_of_seeds_is_the_rate_of_its_test():
    from scipy import stats

    rng, size = np.random.default_rng(4), Size(2, 3, 4)
    df = 6 * 3
    rejected = stats.chi2.sf(PARTS.run.variance * rng.chisquare(df, TIMES) / 0.8**2, df) <= 0.05
    stated = sight(size, PARTS, asked("seeds", 0.8), 1)
    assert of_rate(rejected, stated.power)
    assert sight(size, Components(), asked("seeds", 0.8), 1).smallest == stated.smallest and np.isnan(
        sight(size, Components(), asked("seeds", 0.8), 1).power
    )


def test_what_cannot_be_decided_or_is_not_known_has_no_power():
    few = sight(Size(5, 2, 3), PARTS, asked(effect=50), 1)
    assert np.isnan(few.power) and few.why == "sign flips of 5 base models reach no p below 0.062"
    assert (
        np.isnan(sight(Size(8, 10, 3), PARTS, asked(effect=50), 45).power)
        and sight(Size(11, 10, 3), PARTS, asked(effect=50), 45).power == 1.0
    )
    assert sight(Size(8, 2, 1), PARTS, asked(population="these"), 1).why == design.ONE_SEED
    confounded = Components(cell=Part(3.5, 3, 4, 9), confounded=True)
    assert sight(Size(8, 2, 1), confounded, asked(), 1).power > 0 and "not known" in sight(Size(8, 2, 2), confounded, asked(), 1).why
    assert "not known" in sight(Size(8, 2, 2, 0.5), Components(cell=Part(2.0), run=Part(1.0)), asked(), 1).why
    assert "interaction_sd" in sight(Size(8, 2, 1), Components(run=Part(1.0)), asked("sizes"), 1).why


def test_fewer_items_are_never_better():
    whole, half = (variance(Size(8, 2, 2, share), PARTS, "sets", "models") for share in (1.0, 0.5))
    assert whole == 2 * (2 + 1.5 / 2) and half == whole + 2 * (0.5 / 2 + 2.0)
    assert variance(Size(4, 2, 2, 0.5), PARTS, "sets", "these") == pytest.approx(2 * ((1.5 + 0.5) / 2 + 2 * 2.0) / 4)


# ---------------------------------------------------------------- costs


def questioned(models=8, **asks):
    """The small study with several base models, and a question."""
    config = json.loads(json.dumps(STUDY)) | {
        "models": {f"ant{i}": {"path": f"models/ant{i}", "parameters": (i + 1) * 1e9} for i in range(models)}
    }
    config["plan"]["device"] = "h100"
    config["blocks"]["single"]["recipes"] = ["full"]
    config["recipes"]["full"]["save_epochs"] = "last"
    return config, {"question": "sets", "effect": 2.0, "budget": 1000.0, "seed_sd": 1.0, "interaction_sd": 2.0} | asks


def resolved(config, asks):
    return studies.from_config(config | {"design": asks}, "test").question


def test_a_design_costs_what_the_plan_forecasts_for_its_block(tmp_path):
    config, asks = questioned()
    question = resolved(config, asks)
    found = design.costs(config, question, DEVICES, tmp_path)
    size = Size(3, 2, 2)
    alone = config | {"models": dict(list(config["models"].items())[:3]), "blocks": {"x": design.block(size, question, found.seeds)}}
    study = studies.from_config(alone, "alone")
    forecast = Forecast(study, device(DEVICES, "h100", "test"), tmp_path)
    jobs = [job for job in forecast.jobs if job.kind.startswith(("train", "evaluate"))]
    assert len(jobs) == 12 + 12 + 3 and found.of(size) == pytest.approx(forecast.hours(jobs))
    assert found.of(Size(12, 2, 2)) == pytest.approx(np.multiply(12 / 8, found.of(Size(8, 2, 2))))  # four more, as dear as the mean
    fewer = found.of(Size(3, 2, 2, 0.5))
    assert 0.3 * found.of(size)[1] < fewer[1] < found.of(size)[1]


def test_results_that_are_there_cost_nothing(tmp_path):
    config, asks = questioned(models=2)
    question = resolved(config, asks)
    before = design.costs(config, question, DEVICES, tmp_path)
    paths = Paths(tmp_path)
    make(tmp_path, *(path.removeprefix(f"{tmp_path}/") for path in (
        paths.fill(paths.record, model="ant0", dataset="red", recipe="full"),
        paths.fill(paths.scores, model="ant0", dataset="red", recipe="full", epoch=10, suite="short"),
    )))  # fmt: skip
    after = design.costs(config, question, DEVICES, tmp_path)
    assert [each[0, 0, 0].tolist() for each in (after.left.training, after.left.scoring)] == [[0, 0, 0]] * 2
    assert after.left.training[0, 0, 1].tolist() == before.left.training[0, 0, 1].tolist()
    own, more = after.of(Size(2, 2, 1)), after.of(Size(3, 2, 1))
    whole = before.of(Size(2, 2, 1))  # where nothing is done: a model that the study does not have has no results
    assert own < whole and np.subtract(more, own) == pytest.approx(np.divide(whole, 2), rel=0.05)


def test_what_the_plan_cannot_forecast_is_named(tmp_path):
    config, asks = questioned(models=1)
    del config["plan"]["load"]
    with pytest.raises(AtlasError, match=r"too little to forecast evaluate short: state plan\.tokens"):
        design.costs(config, resolved(config, asks), DEVICES, tmp_path)


# ---------------------------------------------------------------- the page and the block


def written(tmp_path, run_script, monkeypatch, config, asks, **more):
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"study": config, "design": asks})))
    (tmp_path / "study.json").write_text(json.dumps(studies.from_config(config, "test").resolved()))
    outputs = {"output_page": tmp_path / "design.md", "output_table": tmp_path / "designs.parquet", "output_block": tmp_path / "block.yaml"}
    run_script(design, config="-", study=tmp_path / "study.json", devices=DEVICES, results=tmp_path / "results", **outputs, **more)
    return outputs["output_page"].read_text(), pl.read_parquet(outputs["output_table"]), strict_yaml(outputs["output_block"])


def test_the_recommended_block_is_the_cheapest_that_can_and_fits_into_the_study(tmp_path, run_script, monkeypatch):
    config, asks = questioned(effect=3.0)
    text, table, block = written(tmp_path, run_script, monkeypatch, config, asks)
    best = table.filter("recommended").row(0, named=True)
    assert best["power"] >= 0.8 and best["available"] and best["hours"] <= 1000
    cheaper = table.filter(pl.col("hours") < best["hours"], pl.col("available"))
    assert cheaper.height and cheaper["power"].fill_null(0).max() < 0.8
    study = studies.from_config(config | {"blocks": config["blocks"] | block["blocks"]}, "with the block")
    proposed = [run for run in study.runs.values() if "design-sets" in run.blocks]
    assert len(proposed) == best["runs"] and {run.dataset for run in proposed} == {"red", "blue"}
    lines = text.replace("\n", " ")
    assert f"Recommended: {best['models']} base models x 2 training sets" in lines and "| recommended " in text
    assert "stated: seed_sd" in text and "stated: interaction_sd" in text and "Correction: none, as there is one comparison" in lines
    assert "Holds for: base models like these, on the same items." in text and "as the findings" not in text


def test_a_question_that_no_design_within_the_budget_answers_is_told_what_it_would_cost(tmp_path, run_script, monkeypatch):
    config, asks = questioned(models=4, effect=3.0)
    text, table, block = written(tmp_path, run_script, monkeypatch, config, asks)
    said = " ".join(text.split())
    assert "No design within 1000 device-hours can see a difference of 3 points with power 0.8. The smallest one that can: " in said
    assert "base models that the study does not have" in said and block == {"blocks": {}} and not table["recommended"].any()
    config, asks = questioned(effect=3.0, budget=1e-3)
    said = " ".join(written(tmp_path, run_script, monkeypatch, config, asks)[0].split())
    assert "No design within 0.001 device-hours" in said and "that the study does not have" not in said
    config, asks = questioned(effect=0.01)
    said = " ".join(written(tmp_path, run_script, monkeypatch, config, asks)[0].split())
    assert "nor can any other of up to 24 base models and 10 seeds" in said


@pytest.mark.parametrize(
    ("asks", "words"),
    [
        ({"question": "methods"}, "Training sets are taken as they are"),
        ({"question": "sizes", "recipes": ["full", "large"], "interaction_sd": 0.5}, "the recipes full and large"),
        (
            {"question": "seeds", "effect": 0.5},
            "Seeds needed for a gain's standard error by training of at most 0.5 points, with the noise of the source: 4",
        ),
        ({"population": "these"}, "t, two-sided, noise of training; that of items is not known and left out"),
    ],
)
def test_every_question_has_a_page(asks, words, tmp_path, run_script, monkeypatch):
    config, usual = questioned()
    config["recipes"]["large"] = config["recipes"]["full"] | {"rows": 5000}
    config["blocks"]["single"]["recipes"] = ["full", "lora"]
    text, table, _ = written(tmp_path, run_script, monkeypatch, config, usual | asks)
    assert words in " ".join(text.split())
    assert set(table["question"]) == {asks.get("question", "sets")} and table["hours"].is_sorted()
    assert table.filter(pl.col("power") > 0).height


def test_a_proposed_block_of_a_recipe_with_seeds_names_its_own(tmp_path, run_script, monkeypatch):
    config, asks = questioned(effect=4.0)
    config["recipes"]["full"]["seed"] = 7
    _, table, block = written(tmp_path, run_script, monkeypatch, config, asks | {"question": "seeds", "effect": 0.7})
    entry = block["blocks"]["design-seeds"]
    assert entry["seeds"][0] == 7 and len(entry["seeds"]) == table.filter("recommended")["seeds"].item()
    assert yaml.safe_load((tmp_path / "block.yaml").read_text()) == block


# ---------------------------------------------------------------- where variances are from


def test_variances_are_from_the_study_then_from_the_published_scores_or_stated(tmp_path):
    def source(**asks):
        config, usual = questioned(seed_sd=None, interaction_sd=None)
        inputs = DesignInputs(
            studies.from_config(config | {"design": usual | asks}, "test"), Paths(tmp_path), ("scores.parquet", "source.json")
        )
        return inputs, inputs.source(), inputs.published(None), inputs.options(None)

    assert source()[1:] == ("published", ["scores.parquet", "source.json"], "--published scores.parquet --published-source source.json")
    assert source(seed_sd=1)[1] == "published" and source(seed_sd=1, population="these")[1:] == ("", [], "")
    assert source(seed_sd=1, interaction_sd=1)[1] == "" and source(question="seeds")[1] == ""
    with pytest.raises(AtlasError, match=r"design\.source: this study has no gains yet"):
        source(source="study")[0].config("{}")
    make(tmp_path, "tables/gains.parquet")
    assert source()[1:] == ("study", [], f"--learn-from {tmp_path}/tables") and source(source="published")[1] == "published"
    nothing = DesignInputs(studies.from_config(STUDY, "test"), Paths(tmp_path), ("a", "b"))
    with pytest.raises(AtlasError, match="snakemake design --config design="):
        nothing.config("{}")
    assert nothing.published(None) == [] and nothing.name == "no-question"


def gains_of(config, rng, seeds=2):
    """Gains in which base models answer to sets differently by 2 points, seeds by 1, and items by 0.5."""
    rows = [
        {
            "model": m, "dataset": d, "recipe": "full", "seed": seed, "method": "full", "benchmark": "quiz", "epoch": 10, "suite": "short", "source": "ours",
            "gain": (own + rng.normal(0, 1.25**0.5)) / 100, "stderr": 0.01, "seed_covariance": 0.75e-4,
        }
        for m in config["models"] for d in ("red", "blue") for own in [rng.normal(0, 2)] for seed in range(seeds)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def test_the_gains_of_the_study_are_learned_from(tmp_path, run_script, monkeypatch):
    config, asks = questioned(models=16, seed_sd=None, interaction_sd=None, effect=4.0)
    asks = {key: value for key, value in asks.items() if value is not None}
    (tmp_path / "tables").mkdir()
    gains_of(config, np.random.default_rng(6)).write_parquet(tmp_path / "tables/gains.parquet")
    text, table, _ = written(tmp_path, run_script, monkeypatch, config, asks, learn_from=tmp_path / "tables")
    said = " ".join(text.split())
    assert "gains of the study small; n = 16 base models x 2 training sets" in said and "n = 32 cells with several seeds" in said
    assert "Another draw of them would move a difference by up to 1.4 points" in said  # a gain's own error is 1 point
    known = table.filter(models=12, seeds=2)
    assert (
        known["stderr"].item() == pytest.approx((2 * (4 + 1.25 / 2) / 12) ** 0.5, rel=0.35)
        and known["smallest_low"].item() < known["smallest"].item()
    )


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="../shared/published is absent")
def test_the_example_in_the_docs_is_that_of_the_published_scores(tmp_path):
    tidy = tidy_published.tidy(REAL.read_bytes())
    repairs = audit_published.repairs(audit_published.audit(tidy))
    scores = select_single_sets.single_sets(frames.of_scores(frames.apply_policy(tidy, repairs, "repaired")))
    said = (ROOT / "docs/study-design.md").read_text(encoding="utf-8")
    parts = contrast.of_published(scores, ("full",), None, 0)
    assert f"| {parts.cell.variance**0.5:.3g} | {parts.cell.low**0.5:.2g} to {parts.cell.high**0.5:.2g} | 81 |" in said
    for models in (6, 8, 11, 12, 16):
        seen = sight(Size(models, 2, 1), parts, asked(effect=5), 1)
        assert f"{seen.stderr:.2f} | {seen.power:.2f} | {seen.smallest:.2g} ({seen.low:.2g} to {seen.high:.2g}) |" in said
    assert sight(Size(16, 2, 1), parts, asked(effect=4), 1).power >= 0.8 > sight(Size(15, 2, 1), parts, asked(effect=4), 1).power
    assert f"base models see {sight(Size(12, 10, 1), parts, asked(), 45).smallest:.2g} points" in " ".join(said.split())


# ---------------------------------------------------------------- the study as it is


def noted(config, tmp_path, published=None):
    study = studies.from_config(config, "test")
    return design.shortcomings(study, tmp_path, published)


def test_a_study_that_cannot_answer_is_told_by_its_plan(tmp_path):
    config, _ = questioned(models=4)
    few = noted(config, tmp_path)
    assert few[0].startswith("**No run has a second seed**") and few[1].startswith(
        "**4 base models cannot show that one training set is better"
    )
    text = " ".join(page(Forecast(studies.from_config(config, "test"), device(DEVICES, "h100", "test"), tmp_path)).split())
    assert "## What it can show - **No run has a second seed**" in text and "the test over base models needs 6." in text
    config["blocks"]["single"]["seeds"] = [0, 1]
    assert [line[:20] for line in noted(config, tmp_path)] == ["**4 base models cann", "`snakemake design` f"]


def test_a_study_that_compares_nothing_or_can_show_it_is_left_alone(tmp_path):
    config, _ = questioned(models=4)
    config["blocks"]["single"]["datasets"] = ["red"]
    assert noted(config, tmp_path) == []
    config, _ = questioned(models=7)
    config["blocks"]["single"]["seeds"] = [0, 1]
    assert noted(config, tmp_path) == []


def test_with_variances_at_hand_the_plan_says_how_large_a_difference_must_be(tmp_path):
    rng = np.random.default_rng(5)
    rows = [
        {"model": m, "dataset": d, "method": "full", "task": "quiz", "benchmark": "quiz", "score": rng.normal()} for m in range(11) for d in range(9)
    ]  # fmt: skip
    pl.DataFrame(rows).with_columns(pl.col("model", "dataset").cast(pl.String)).write_parquet(tmp_path / "single_sets.parquet")
    config, _ = questioned(models=7)
    said = noted(config, tmp_path, tmp_path / "single_sets.parquet")
    assert said[1].startswith("Two training sets must differ by ") and said[1].endswith(
        "(7 base models, 1 seed; variances of the published scores)"
    )
    assert float(said[1].split("differ by ")[1].split()[0]) == pytest.approx(1.28 * 2**0.5, rel=0.15)  # sign flips of seven
