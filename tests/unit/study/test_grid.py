"""A recipe with a grid stands for all its combinations, and the search of the paper is one."""

import pytest
from snakemake.utils import update_config

from sft_atlas.core.errors import ConfigError
from sft_atlas.core.provenance import ROOT
from sft_atlas.study import grid as grids
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.study import from_config

RECIPE = {"method": "full", "rows": 8, "epochs": 2, "learning_rate": 1e-3, "batch_size": 4}


def config(**grid):
    return {
        "recipes": {"plain": RECIPE, "search": RECIPE | {"label": "S", "grid": grid}},
        "blocks": {"one": {"models": ["m"], "datasets": ["d"], "recipes": ["search", "plain"]}},
        "overrides": [{"recipes": ["search"], "set": {"warmup_ratio": 0.1}}, {"models": ["m"], "set": {}}],
    }


def test_every_combination_is_a_recipe_wherever_the_grid_is_named():
    made = grids.expand(config(learning_rate=[1e-5, 2e-6], max_grad_norm=[1, 0.5]), "x")
    names = ["search_lr1e-05_mgn1", "search_lr1e-05_mgn0.5", "search_lr2e-06_mgn1", "search_lr2e-06_mgn0.5"]
    assert list(made["recipes"]) == ["plain", *names]
    assert made["recipes"][names[1]] == RECIPE | {
        "learning_rate": 1e-5,
        "max_grad_norm": 0.5,
        "label": "S, learning rate 1e-05, max grad norm 0.5",
    }
    assert made["blocks"]["one"]["recipes"] == [*names, "plain"]
    assert [override.get("recipes") for override in made["overrides"]] == [names, None]


def test_a_study_without_grid_is_left_alone():
    study = {"recipes": {"plain": RECIPE}, "blocks": "nonsense"}
    assert grids.expand(study, "x") == study
    assert grids.expand({}, "x") == {}


def test_a_wrong_grid_is_explained():
    with pytest.raises(ConfigError, match=r"recipes\.search\.grid\.learning_rat: not a hyper-parameter; did you mean 'learning_rate'"):
        grids.expand(config(learning_rat=[1]), "x")
    for values in ([], 3):
        with pytest.raises(ConfigError, match=r"recipes\.search\.grid\.batch_size: give a list of values"):
            grids.expand(config(batch_size=values), "x")


def test_the_papers_search_has_96_conditions_and_5760_candidates():
    merged = {}
    for name in ("paper", "search"):
        update_config(merged, strict_yaml(ROOT / f"config/{name}.yaml"))
    study = from_config(merged, "search")
    assert len(study.runs) == 576 and len({run.recipe for run in study.runs.values()}) == 96
    assert sum(len(run.settings.kept_epochs) for run in study.runs.values()) == 5760
    assert {run.model for run in study.runs.values()} == {"llama3-8b"}
    assert set(study.sources) == {"magicoder", "lima", "code_alpaca", "flan", "openmath", "alpaca_cleaned"}
    parts = [study.file.datasets[f"flan_{part}"] for part in ("knowledge", "reasoning", "comprehension")]
    tasks = {"_task_name": [task for part in parts for task in part.filter["_task_name"]]}
    assert study.file.datasets["flan"] == parts[0].model_copy(update={"label": "FLAN", "filter": tasks}), "the union of the grid's three"
    assert {(run.settings.method, run.settings.gpus) for run in study.runs.values()} == {("full", 4), ("lora", 1)}
    assert [(c.what, c.value) for c in study.file.plan.compare] == [("gpu_hours", 23040)] and "flan" in study.file.plan.tokens
    conditions = {
        (run.settings.method, run.settings.learning_rate, run.settings.batch_size, run.settings.weight_decay) for run in study.runs.values()
    }
    assert len(conditions) == 96 and ("lora", 2e-6, 128, 0) in conditions and ("full", 1e-5, 32, 0) in conditions  # what the paper chose


def test_equal_values_and_too_many_combinations_are_refused():
    for values, words in {
        (1e-5, 1e-5, 1e-5): "1e-05 is there twice; remove one",
        (1.0000001e-5, 1.0000002e-5): "1.0000001e-05 and 1.0000002e-05 would have the same name",
    }.items():
        with pytest.raises(ConfigError, match=words):
            grids.expand(config(learning_rate=list(values)), "x")
    with pytest.raises(
        ConfigError, match=r"recipes\.search\.grid: stands for 2,000,000 recipes; all grids of a study may stand for 10,000"
    ):
        grids.expand(config(seed=list(range(2000)), rows=list(range(1000))), "x")
