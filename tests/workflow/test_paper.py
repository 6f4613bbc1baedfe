"""config/paper.yaml is the paper's grid, counted as the authors' table of scores adds up; config/search.yaml is the search before it."""

from collections import Counter

import pytest
from snakemake.utils import update_config

from sft_atlas.core.provenance import ROOT
from sft_atlas.study import study as studies
from sft_atlas.study.messages import strict_yaml
from sft_atlas.train.micro_batch import BatchPlan

BLOCKS = {"single": (240, 240), "merged": (24, 240), "leave_one_out": (20, 20), "trajectory_1k": (30, 300), "trajectory_20k": (27, 270)}


def load(*names):
    config = {}
    for name in names:
        update_config(config, strict_yaml(ROOT / "config" / name))
    return studies.from_config(config, " + ".join(names))


@pytest.fixture(scope="module")
def paper():
    return load("paper.yaml")


def ladder(settings):
    """Every batch plan that a run may come to when it runs out of memory."""
    plan = BatchPlan.of_recipe(settings)
    while plan:
        yield plan
        plan = plan.smaller(settings)


def by_block(study):
    runs, checkpoints = Counter(), Counter()
    for run in study.runs.values():
        for block in run.blocks:
            runs[block] += 1
            checkpoints[block] += len(run.settings.kept_epochs)
    return {block: (runs[block], checkpoints[block]) for block in runs}


def test_341_runs_give_1070_checkpoints(paper):
    assert (len(paper.runs), len(paper.checkpoints) - len(paper.models)) == (341, 1070)
    assert by_block(paper) == BLOCKS
    assert all(len(run.blocks) == 1 for run in paper.runs.values()), "a run of two blocks would be one run less than the paper's"


def test_the_models_are_the_papers_and_differ_by_family_and_language(paper):
    assert len(paper.models) == len({model.hub for model in paper.file.models.values()}) == 12
    assert Counter(model.language for model in paper.file.models.values()) == {"en": 4, "zh": 4, "ja": 4}
    assert not any(model.trust_remote_code for model in paper.file.models.values())


def test_the_data_are_the_papers(paper):
    assert len(paper.sources) == 10 and paper.members("all") == paper.sources
    assert paper.sample_sizes("alpaca_cleaned") == (1000, 20000) and paper.sample_sizes("lima") == (1000,)
    assert [name for name in paper.sources if paper.file.datasets[name].drop_responses == ["none"]] == [
        "flan_knowledge",
        "flan_reasoning",
        "flan_comprehension",
    ]
    assert len(paper.members("without-lima")) == 9


@pytest.mark.parametrize(("method", "rate", "batch"), [("full", 1e-5, 32), ("lora", 2e-6, 128)])
def test_the_recipes_have_the_papers_values(paper, method, rate, batch):
    settings = [run.settings for run in paper.runs.values() if run.settings.method == method]
    assert {(s.learning_rate, s.batch_size, s.weight_decay, s.epochs) for s in settings} == {(rate, batch, 0.0, 10)}
    gpus = 4 if method == "full" else 1
    assert {(s.gpus, fit.micro_batch_size * fit.gradient_accumulation_steps * gpus) for s in settings for fit in ladder(s)} == {
        (gpus, batch)
    }
    schedules = {(block, run.settings.lr_scheduler_type) for run in paper.runs.values() for block in run.blocks}
    assert {block for block, schedule in schedules if schedule == "constant"} == {"trajectory_1k", "trajectory_20k"}


def test_the_reading_with_three_models_left_out_from_adds_40_runs():
    study = load("paper.yaml", "paper-leave-one-out-3.yaml")
    assert by_block(study) == BLOCKS | {"leave_one_out": (60, 60)}
    assert len(study.runs) == 381


def test_the_twelve_benchmarks_are_measured_in_three_suites(paper):
    assert set(paper.file.suites) == {"zero-shot", "few-shot", "judged"}
    assert len(paper.file.suites["zero-shot"].benchmarks) + len(paper.file.suites["judged"].benchmarks) >= 12
    measured = {name for suite in paper.file.suites.values() for name in suite.benchmarks}
    assert set(paper.file.plan.load) == measured
    assert set(paper.file.plan.tokens) == set(paper.sources)


def test_the_dry_run_plans_every_run_and_one_job_for_each_checkpoint_and_suite(empty):
    """Offline, without an accelerator, nothing downloaded."""
    planned = empty.planned("--configfile", "config/paper.yaml")
    assert sum(count for name, count in planned.items() if name.startswith("train_")) == 341
    assert planned["evaluate"] == 2 * (1070 + 12) and planned["generate"] == planned["judge"] == 1070 + 12
    assert planned["measure_layers"] == 1070 and planned["measure_perplexity"] == 120
    assert planned["fetch_model"] == 12 and planned["fetch_dataset"] == 10


def test_the_search_is_96_conditions_on_six_sets(empty):
    """All runs are counted in the run table, and one training set, which only the search has, in a dry run.

    Every condition is a rule of its own, so one set reaches all 96 rules; the other five add files to them and five times the seconds.
    """
    search = load("paper.yaml", "search.yaml")
    conditions = Counter(recipe for _, _, recipe in search.runs)
    assert len(conditions) == 96 and set(conditions.values()) == {6}
    assert len(search.sources) == 6 and {model for model, _, _ in search.runs} == {"llama3-8b"}
    part = "select={blocks: [search], datasets: [flan]}"
    planned = empty.planned("train", "--configfile", "config/paper.yaml", "config/search.yaml", "--config", part)
    trained = {name: count for name, count in planned.items() if name.startswith("train_")}
    assert len(trained) == 96 and set(trained.values()) == {1}
    assert planned["fetch_model"] == planned["fetch_dataset"] == 1
