"""What a claim needs of a study, what of it is missing, and what that costs."""

from pathlib import Path

import pytest

from helpers import paper_part
from helpers.plan_study import DEVICE
from sft_atlas.plan.forecast import Forecast
from sft_atlas.published.claims import PAPER
from sft_atlas.reproduce import reproduce
from sft_atlas.reproduce.missing import NEEDS, Missing
from sft_atlas.reproduce.own_results import names
from sft_atlas.study.study import from_config


def missing(root: Path, study=None) -> Missing:
    study = study or paper_part.study()
    return Missing(study, names(study.resolved()), DEVICE, root)


def touch(path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()


def likely(found: Missing, kind: str, *parts: str) -> float:
    """Device-hours of the jobs of a kind whose log has these parts."""
    jobs = Forecast(found.study, DEVICE, found.root).jobs
    chosen = [job for job in jobs if job.kind == kind and all(part in str(job.log) for part in parts)]
    assert chosen
    return sum(job.device_seconds[1] for job in chosen) / 3600


def test_every_claim_that_results_can_decide_says_what_it_needs():
    assert set(NEEDS) == set(PAPER) - set(reproduce.STATED)


def test_scores_of_runs_and_base_models_are_needed(tmp_path):
    found = missing(tmp_path)
    # six base models and 36 runs of full fine-tuning, by two suites
    assert len(found.needed("synergies")) == 2 * (6 + 36)
    # MATH and GSM8K are in one suite; Alpaca, LIMA, CodeAlpaca, Magicoder and FLAN knowledge are compared
    assert len(found.needed("code-mathematics")) == 6 + 6 * 5
    assert found.needed("size") == [] and found.needed("map-size") == []


def test_what_is_there_is_not_missing(tmp_path):
    found = missing(tmp_path)
    first = found.missing("synergies")[0]
    touch(first.path)
    assert first.name == "olmo-7b: scores of short" and first not in found.missing("synergies")


def test_costs_are_those_of_the_plan_and_each_job_counts_once(tmp_path):
    found = missing(tmp_path)
    runs = found.missing("weights-upwards")  # weight change takes a processor: only training counts
    assert found.hours(runs)[1] == pytest.approx(likely(found, "train full") + likely(found, "train lora") - merged(found))
    both = found.missing("weights-upwards") + found.missing("layer-agreement")
    assert found.hours(both) == found.hours(runs)


def merged(found: Missing) -> float:
    return likely(found, "train full", "/all/") + likely(found, "train lora", "/all/")


def test_training_counts_only_where_there_are_no_weights(tmp_path):
    found = missing(tmp_path)
    result = next(each for each in found.missing("synergies") if each.name == "olmo-7b/lima/full epoch 3: scores of short")
    with_training = found.hours([result])[1]
    assert with_training == pytest.approx(likely(found, "train full", "olmo-7b/lima/") + scoring(found, "short"))
    result.weights.mkdir(parents=True)
    assert found.hours([result])[1] == pytest.approx(scoring(found, "short"))


def scoring(found: Missing, suite: str) -> float:
    return likely(found, f"evaluate {suite}", "olmo-7b/lima/full/epoch-3")


def test_what_cannot_be_forecast_has_no_cost(tmp_path):
    config = paper_part.config()
    del config["plan"]["tokens"]["lima"]
    found = missing(tmp_path, from_config(config, "part.yaml"))
    assert found.hours(found.missing("synergies")) is None
    assert reproduce.cost_text(None) == "not forecast"


def test_measurements_are_named(tmp_path):
    found = missing(tmp_path)
    named = {
        result.name for key in ("perplexity", "weak-predictors", "layers", "dimension", "map-methods") for result in found.missing(key)
    }
    assert {
        "olmo-7b: perplexity of lima",
        "lima: length and diversity",
        "similarity of training sets and benchmarks",
        "olmo-7b/lima/full epoch 3: weight change by layer",
        "olmo-7b: intrinsic dimension",
        "olmo-7b/lima/lora epoch 3: likelihoods",
    } <= named


def test_a_part_without_the_runs_of_a_claim_needs_nothing_for_it(tmp_path):
    full = {"models": "*", "datasets": ["lima", "openmath"], "recipes": ["full"]}
    found = missing(tmp_path, paper_part.study(models=2, single=full))
    assert found.needed("lora-qa") == [] and found.needed("code-mathematics") == []
    assert len(found.needed("family")) == 2 * (2 + 4)
