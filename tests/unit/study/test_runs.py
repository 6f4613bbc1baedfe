"""Seeds of a block or a recipe: which runs there are, where they are kept, and what is refused."""

import copy

import pytest

from sft_atlas.core.errors import ConfigError
from sft_atlas.study import study as studies
from sft_atlas.study import takeover
from sft_atlas.study.paths import Paths, checkpoints, result_files

RECIPE = {"method": "lora", "rows": 4, "epochs": 2, "learning_rate": 1e-3, "batch_size": 2}
STUDY = {
    "study": "s",
    "models": {"m": {"path": "models/m"}},
    "datasets": {"a": {"path": "a.jsonl"}, "b": {"path": "b.jsonl"}},
    "benchmarks": {"t": {"path": "t.jsonl", "task": "t.yaml"}},
    "suites": {"one": {"benchmarks": ["t"]}},
    "recipes": {"lora": RECIPE, "full": {**RECIPE, "method": "full"}},
    "blocks": {"x": {"models": "*", "datasets": "*", "recipes": ["lora", "full"]}},
}


def study_of(*changes):
    """STUDY with values set at paths: ``("blocks", "x", "seeds", [0, 1])``."""
    config = copy.deepcopy(STUDY)
    for *parents, last, value in changes:
        part = config
        for key in parents:
            part = part[key]
        part[last] = value
    return studies.from_config(config, "s.yaml")


def folders(study, dataset="a"):
    return {run.folder: run.settings.seed for run in study.runs.values() if run.dataset == dataset}


def test_without_seeds_every_run_is_where_it_was():
    study = study_of()
    assert folders(study) == {"lora": 0, "full": 0} and set(study.recipes) == {"lora", "full"}
    assert [(run["recipe"], run["seed"], run["folder"]) for run in study.resolved()["runs"][:2]] == [
        ("lora", 0, "lora"),
        ("full", 0, "full"),
    ]


def test_a_run_with_the_recipes_own_seed_keeps_its_folder_when_seeds_are_added():
    assert folders(study_of(("blocks", "x", "seeds", [0, 1]))) == {"lora": 0, "lora-seed-1": 1, "full": 0, "full-seed-1": 1}
    assert folders(study_of(("recipes", "lora", "seeds", [7, 0]))) == {"lora": 0, "lora-seed-7": 7, "full": 0}
    other = study_of(("recipes", "lora", "seeds", [7, 0]), ("recipes", "lora", "seed", 7))
    assert folders(other) == {"lora": 7, "lora-seed-0": 0, "full": 0}


def test_the_seeds_of_a_block_replace_those_of_its_recipes_and_blocks_share_runs():
    study = study_of(
        ("recipes", "lora", "seeds", [0, 1, 2]),
        ("blocks", "x", "seeds", [0, 1]),
        ("blocks", "y", {"models": "*", "datasets": ["a"], "recipes": ["lora"]}),
    )
    assert folders(study) == {"lora": 0, "lora-seed-1": 1, "full": 0, "full-seed-1": 1, "lora-seed-2": 2}
    assert folders(study, "b") == {"lora": 0, "lora-seed-1": 1, "full": 0, "full-seed-1": 1}
    assert study.runs["m", "a", "lora-seed-1"].blocks == ("x", "y") and study.runs["m", "a", "lora-seed-2"].blocks == ("y",)


def test_seeds_change_nothing_but_the_seed_and_train_on_the_same_rows():
    study = study_of(("blocks", "x", "seeds", [0, 1]))
    one, other = (study.runs["m", "a", folder].settings for folder in ("lora", "lora-seed-1"))
    assert one.model_copy(update={"seed": 1}) == other
    assert study.sample_sizes("a") == (4,)


def test_files_of_every_seed_are_expected_in_a_folder_of_their_own():
    study = study_of(("blocks", "x", "seeds", [0, 1]))
    resolved = study.resolved()
    assert checkpoints(resolved) == list(study.checkpoints)
    records = {str(file.path) for file in result_files(resolved, "runs", "r")}
    assert "r/runs/m/a/lora/train.json" in records and "r/runs/m/a/lora-seed-1/train.json" in records and len(records) == 8


def test_a_call_can_select_seeds_and_leave_one_out():
    seeds = ("blocks", "x", "seeds", [0, 1])
    assert folders(study_of(seeds, ("select", {"seeds": [1]}))) == {"lora-seed-1": 1, "full-seed-1": 1}
    assert "lora-seed-1" not in folders(study_of(seeds, ("select", {"without": ["m/a/lora-seed-1"]})))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("blocks", "x", "seeds", [1, 1])], "blocks.x.seeds: names seed 1 twice; remove one"),
        ([("blocks", "x", "seeds", [])], "blocks.x.seeds"),
        (
            [("blocks", "x", "seeds", [0]), ("blocks", "x", "set", {"seed": 3})],
            "blocks.x.set.seed: blocks.x.seeds names the seeds of m/a/lora",
        ),
        (
            [("recipes", "lora", "seeds", [0, 1]), ("overrides", [{"recipes": ["lora"], "set": {"seed": 3}}])],
            "overrides[0].set.seed: recipes.lora.seeds names the seeds of m/a/lora; remove one of the two",
        ),
        (
            [("recipes", "lora-seed-1", RECIPE), ("blocks", "x", "seeds", [0, 1])],
            "recipes.lora-seed-1: the name is that of the folder for seed 1 of the recipe lora; choose another",
        ),
        (
            [("recipes", "lora", "seeds", [0]), ("recipes", "lora", "grid", {"seed": [0, 1]})],
            "recipes.lora.grid.seed: `seeds` of this recipe",
        ),
        ([("select", {"seeds": [4]})], "select.seeds[0]: no run has the seed 4 (there are 0)"),
    ],
)
def test_what_names_seeds_twice_or_wrongly_is_refused(changes, message):
    with pytest.raises(ConfigError) as caught:
        study_of(*changes)
    assert message in str(caught.value)


def test_a_grid_of_seeds_is_said_to_make_recipes_of_their_own():
    study = study_of(("recipes", "lora", "grid", {"seed": [0, 1]}))
    assert folders(study) == {"lora_s0": 0, "lora_s1": 1, "full": 0}
    (line,) = study.warnings()
    assert line.startswith("recipes.lora_s0 and lora_s1 differ only in `seed`") and "`seeds: [0, 1]`" in line


def test_a_renamed_recipe_takes_its_seeds_along():
    former = study_of(("blocks", "x", "seeds", [0, 1])).resolved()
    config = ("recipes", {"new": RECIPE, "full": {**RECIPE, "method": "full"}})
    study = study_of(config, ("blocks", "x", {"models": "*", "datasets": "*", "recipes": ["new", "full"], "seeds": [0, 1, 2]}))
    names = takeover.renames(former, study)
    assert names == {"recipes": {"lora": "new", "lora-seed-1": "new-seed-1"}}
    path = Paths.fill("runs/{model}/{dataset}/{recipe}/train.json", model="m", dataset="a", recipe="lora-seed-1")
    assert takeover.place(path, names) == "runs/m/a/new-seed-1/train.json"


def test_recipes_of_a_grid_of_seeds_become_seeds_of_one_recipe():
    former = study_of(("recipes", "lora", "grid", {"seed": [0, 1, 2]})).resolved()
    study = study_of(("blocks", "x", {"models": "*", "datasets": "*", "recipes": ["lora", "full"], "seeds": [0, 1, 3]}))
    assert takeover.renames(former, study) == {"recipes": {"lora_s0": "lora", "lora_s1": "lora-seed-1"}}
    assert takeover.renames(study.resolved(), study) == {}


def test_a_seed_that_is_added_moves_nothing():
    former = study_of(("blocks", "x", "seeds", [0, 1])).resolved()
    assert takeover.renames(former, study_of(("blocks", "x", "seeds", [0, 1, 2]))) == {}
    assert takeover.renames(study_of().resolved(), study_of(("blocks", "x", "seeds", [0, 1, 2]))) == {}
