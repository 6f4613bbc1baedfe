"""The run table, and the errors for study files that cannot be used."""

import copy
import json
import re
from collections import Counter

import pytest

from sft_atlas.core.errors import ConfigError
from sft_atlas.core.provenance import ROOT
from sft_atlas.study import checks
from sft_atlas.study import study as studies
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.paper import DATASETS, SET_HUBS
from sft_atlas.study.schema import Hyperparameters, StudyFile

SMALL = {
    "study": "small",
    "models": {"ant": {"path": "models/ant"}, "bee": {"path": "models/bee"}},
    "datasets": {
        "red": {"path": "red.jsonl"},
        "green": {"path": "green.jsonl"},
        "blue": {"path": "blue.jsonl"},
        "all": {"merge": "*"},
        "pair": {"merge": ["red", "blue"]},
    },
    "benchmarks": {"quiz": {"path": "quiz.jsonl", "task": "quiz.yaml"}},
    "suites": {"short": {"benchmarks": ["quiz"]}},
    "recipes": {
        "full": {"method": "full", "rows": 8, "epochs": 2, "learning_rate": 1e-3, "batch_size": 4},
        "lora": {"method": "lora", "rows": 8, "epochs": 2, "learning_rate": 2e-3, "batch_size": 4},
    },
    "blocks": {"single": {"models": "*", "datasets": "*", "recipes": ["full"]}},
}


def small(**changes):
    """SMALL with values set at paths, e.g. ``small(**{"recipes|full|rows": 4})``."""
    config = copy.deepcopy(SMALL)
    for path, value in changes.items():
        *parents, last = path.split("|")
        part = config
        for key in parents:
            part = part[key]
        part[last] = value
    return config


def study_of(**changes):
    return studies.from_config(small(**changes), "small.yaml")


def complaint(config):
    with pytest.raises(ConfigError) as caught:
        studies.from_config(config, "config/mine.yaml")
    return str(caught.value)


@pytest.fixture(scope="module")
def demo():
    return studies.load(ROOT / "config/demo.yaml")


# ---------------------------------------------------------------- the run table


def by_block(study, quantity):
    return dict(sum((Counter({block: quantity(run)}) for run in study.runs.values() for block in run.blocks), Counter()))


def test_demo_has_the_runs_and_checkpoints_of_its_blocks(demo):
    assert by_block(demo, lambda run: 1) == {"single": 27, "lora": 9, "merged": 2, "leave-one-out": 9, "trajectory": 4, "seeds": 6}
    assert len(demo.runs) == 51 + 4, "two runs of the block `seeds` are in `single` as well"
    epochs = {name: recipe.epochs if recipe.save_epochs == "all" else 1 for name, recipe in demo.file.recipes.items()}
    assert by_block(demo, lambda run: len(run.settings.kept_epochs)) == {
        "single": 27,
        "lora": 9,
        "merged": epochs["merged-full"] + epochs["merged-lora"],
        "leave-one-out": 9,
        "trajectory": 2 * sum(epochs[name] for name in demo.file.blocks["trajectory"].recipes),
        "seeds": 6,
    }
    assert epochs["merged-full"] == epochs["merged-lora"] > 1
    assert [checkpoint.epoch for checkpoint in demo.checkpoints[:3]] == [0, 0, 0]
    assert len(demo.checkpoints) == 3 + sum(len(run.settings.kept_epochs) for run in demo.runs.values())


def test_no_run_of_the_demo_stands_twice(demo):
    rows = demo.resolved()["runs"]
    same = Counter((row["model"], row["dataset"], json.dumps(row["settings"], sort_keys=True)) for row in rows)
    assert len(rows) == len(demo.runs)
    assert max(same.values()) == 1


def test_a_run_of_two_blocks_is_one_run_that_names_both():
    study = study_of(**{"blocks|again": {"models": ["ant"], "datasets": ["red", "all"], "recipes": ["full"]}})
    assert len(study.runs) == 6 + 1
    assert study.runs["ant", "red", "full"].blocks == ("single", "again")
    assert study.runs["bee", "red", "full"].blocks == ("single",)


@pytest.mark.parametrize("first", [True, False])
def test_a_run_is_represented_when_one_of_its_blocks_is(first):
    again = {"models": ["ant"], "datasets": ["red"], "recipes": ["full"], "measure_representation": not first}
    study = study_of(**{"blocks|single|measure_representation": first, "blocks|again": again})
    assert study.runs["ant", "red", "full"].measure_representation
    assert study.runs["bee", "red", "full"].measure_representation == first


def test_merged_and_leave_one_out_sets_have_their_members(demo):
    sources = ("arithmetic", "sorting", "reversal", "spelling", "deduction", "prose", "sequences", "syllogisms", "kinship")
    assert demo.file.source_datasets == sources
    assert demo.members("all") == sources
    assert demo.members("without-sorting") == ("arithmetic", *sources[2:])
    assert demo.left_out("without-sorting") == "sorting"
    assert demo.members("sorting") == ()
    assert demo.left_out("all") is None
    assert demo.datasets == (*sources, "all", *(f"without-{name}" for name in sources))


def test_a_merge_by_name_keeps_the_order_of_the_file():
    assert study_of(**{"datasets|pair|merge": ["blue", "red"]}).members("pair") == ("blue", "red")


def test_rows_are_counted_per_source_dataset():
    changes = {
        "recipes|few": {**SMALL["recipes"]["full"], "rows": 3},
        "recipes|fewer": {**SMALL["recipes"]["full"], "rows": 2},
        "blocks|merged": {"models": ["ant"], "datasets": ["pair"], "recipes": ["few"]},
        "blocks|rest": {"models": ["ant"], "datasets": ["all"], "recipes": ["fewer"], "leave_one_out": True},
    }
    study = study_of(**changes)
    assert study.sample_sizes("red") == (2, 3, 8)  # left out sets, merged, single
    assert study.sample_sizes("green") == (2, 8)
    assert study.sample_sizes("pair") == (3,)
    assert study.sample_sizes("without-red") == (2,)


def test_a_dataset_that_no_run_uses_is_measured_on_the_smallest_sample():
    study = study_of(**{"blocks|single|datasets": ["red"], "blocks|single|set": {"rows": 5}})
    assert study.sample_sizes("red") == study.sample_sizes("green") == (5,)


def paper():
    """The paper's grid with invented names: 12 base models, 10 datasets, 5 blocks."""
    models, sets = [f"model-{i}" for i in range(12)], [f"set-{i}" for i in range(10)]
    full = {"method": "full", "epochs": 10, "learning_rate": 1e-5, "batch_size": 32}
    lora = {"method": "lora", "epochs": 10, "learning_rate": 2e-6, "batch_size": 128}
    return {
        "study": "paper",
        "models": {name: {"path": name} for name in models},
        "datasets": {name: {"path": name} for name in sets} | {"all": {"merge": "*"}},
        "benchmarks": {"quiz": {"path": "quiz", "task": "quiz.yaml"}},
        "suites": {"one": {"benchmarks": ["quiz"]}},
        "recipes": {
            "full": {**full, "rows": 1000},
            "lora": {**lora, "rows": 1000},
            "full-every": {**full, "rows": 1000, "save_epochs": "all"},
            "lora-every": {**lora, "rows": 1000, "save_epochs": "all"},
            "constant-1k": {**full, "rows": 1000, "save_epochs": "all", "lr_scheduler_type": "constant"},
            "constant-20k": {**full, "rows": 20000, "save_epochs": "all", "lr_scheduler_type": "constant"},
        },
        "blocks": {
            "single": {"models": "*", "datasets": "*", "recipes": ["full", "lora"]},
            "merged": {"models": "*", "datasets": ["all"], "recipes": ["full-every", "lora-every"]},
            "leave-one-out": {"models": models[:1], "datasets": ["all"], "recipes": ["full", "lora"], "leave_one_out": True},
            "trajectory-1k": {"models": models[:3], "datasets": "*", "recipes": ["constant-1k"]},
            "trajectory-20k": {"models": models[:3], "datasets": sets[1:], "recipes": ["constant-20k"]},
        },
    }


def test_the_papers_grid_has_341_runs_and_1070_checkpoints():
    study = studies.from_config(paper(), "paper.yaml")
    runs, checkpoints = by_block(study, lambda run: 1), by_block(study, lambda run: len(run.settings.kept_epochs))
    assert runs == {"single": 240, "merged": 24, "leave-one-out": 20, "trajectory-1k": 30, "trajectory-20k": 27}
    assert checkpoints == {"single": 240, "merged": 240, "leave-one-out": 20, "trajectory-1k": 300, "trajectory-20k": 270}
    assert len(study.runs) == 341
    assert len([checkpoint for checkpoint in study.checkpoints if checkpoint.epoch > 0]) == 1070
    assert len(study.members("without-set-3")) == 9
    assert study.sample_sizes("set-0") == (1000,)
    assert study.sample_sizes("set-1") == (1000, 20000)


# ---------------------------------------------------------------- which value holds


def test_the_blocks_set_wins_over_the_recipe_and_overrides_win_by_how_much_they_name():
    overrides = [
        {"models": ["ant"], "datasets": ["red"], "recipes": ["full"], "set": {"warmup_ratio": 0.3}},
        {"models": ["ant"], "set": {"warmup_ratio": 0.1, "batch_size": 2}},
        {"models": ["ant"], "datasets": ["red", "blue"], "set": {"warmup_ratio": 0.2}},
        {"set": {"warmup_ratio": 0.05}},
    ]
    study = study_of(**{"blocks|single|set": {"batch_size": 6, "warmup_ratio": 0.01, "rows": 5}, "overrides": overrides})
    result = {key[:2]: (run.settings.warmup_ratio, run.settings.batch_size, run.settings.rows) for key, run in study.runs.items()}
    assert result == {
        ("ant", "red"): (0.3, 2, 5),
        ("ant", "blue"): (0.2, 2, 5),
        ("ant", "green"): (0.1, 2, 5),
        ("bee", "red"): (0.05, 6, 5),
        ("bee", "blue"): (0.05, 6, 5),
        ("bee", "green"): (0.05, 6, 5),
    }
    assert {run.settings.learning_rate for run in study.runs.values()} == {1e-3}


def test_an_override_can_name_a_leave_one_out_set():
    changes = {
        "blocks|rest": {"models": ["ant"], "datasets": ["all"], "recipes": ["full"], "leave_one_out": True},
        "overrides": [{"datasets": ["without-red"], "set": {"rows": 3}}],
    }
    study = study_of(**changes)
    assert study.runs["ant", "without-red", "full"].settings.rows == 3
    assert study.runs["ant", "without-blue", "full"].settings.rows == 8


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (0, 2, 1)])
def test_a_tie_that_a_more_specific_override_settles_is_no_tie_in_any_order(order):
    overrides = [
        {"models": ["ant"], "set": {"rows": 4}},
        {"datasets": ["red"], "set": {"rows": 5}},
        {"models": ["ant"], "datasets": ["red"], "set": {"rows": 6}},
    ]
    study = study_of(overrides=[overrides[i] for i in order])
    assert {key[:2]: run.settings.rows for key, run in study.runs.items()} == {
        ("ant", "red"): 6,
        ("ant", "green"): 4,
        ("ant", "blue"): 4,
        ("bee", "red"): 5,
        ("bee", "green"): 8,
        ("bee", "blue"): 8,
    }


def test_overrides_that_agree_are_no_tie():
    study = study_of(overrides=[{"models": ["ant"], "set": {"rows": 4}}, {"datasets": ["red"], "set": {"rows": 4}}])
    assert study.runs["ant", "red", "full"].settings.rows == 4


@pytest.mark.parametrize(("save_epochs", "kept"), [("last", (5,)), ("all", (1, 2, 3, 4, 5)), ([4, 2, 2], (2, 4))])
def test_kept_epochs(save_epochs, kept):
    study = study_of(**{"recipes|full|epochs": 5, "recipes|full|save_epochs": save_epochs})
    assert study.kept_epochs("full") == kept
    assert [c.epoch for c in study.checkpoints if (c.model, c.dataset) == ("bee", "blue")] == list(kept)


# ---------------------------------------------------------------- what jobs are given


def test_the_json_of_a_study_says_all_that_the_study_says(demo):
    resolved = demo.resolved()
    runs = {(row["model"], row["dataset"], row["folder"]): row for row in resolved["runs"]}
    assert list(runs) == list(demo.runs)
    for key, run in demo.runs.items():
        assert Hyperparameters.model_validate(runs[key]["settings"]) == run.settings
        assert runs[key]["save_epochs"] == list(run.settings.kept_epochs)
        assert runs[key]["blocks"] == list(run.blocks)
    assert list(resolved["datasets"]) == list(demo.datasets)
    for name, entry in resolved["datasets"].items():
        assert (tuple(entry["members"]), entry["without"]) == (demo.members(name), demo.left_out(name))
        assert entry["label"]
    assert {name: entry["label"] for name, entry in resolved["models"].items()} == {
        name: model.label or name for name, model in demo.file.models.items()
    }
    assert resolved["results"] == "results/demo"


def test_a_study_file_survives_json(demo):
    assert StudyFile.model_validate_json(demo.file.model_dump_json()) == demo.file


@pytest.mark.parametrize(
    "path", ["recipes|full|label", "models|ant|label", "datasets|red|label", "datasets|red|group", "models|ant|family"]
)
def test_a_label_is_no_part_of_what_a_run_is_made_with(path):
    plain, labelled = study_of(), study_of(**{path: "Something else"})
    assert [run.settings for run in labelled.runs.values()] == [run.settings for run in plain.runs.values()]
    assert [run.settings.model_dump_json() for run in labelled.runs.values()] == [
        run.settings.model_dump_json() for run in plain.runs.values()
    ]
    assert labelled.resolved() != plain.resolved()


def test_local_paths_start_at_data_root_and_know_the_environment(monkeypatch):
    monkeypatch.setenv("SOMEWHERE", "/elsewhere")
    rooted = study_of(data_root="$SOMEWHERE/data")
    assert rooted.path("train/red.jsonl") == "/elsewhere/data/train/red.jsonl"
    assert rooted.path("$SOMEWHERE/red.jsonl") == "/elsewhere/red.jsonl"
    assert study_of().path("red.jsonl") == "red.jsonl"


# ---------------------------------------------------------------- errors

MISTAKES = {
    "unknown key": (
        {"recipes|full|learning_rat": 1},
        "recipes.full.learning_rat: unknown key; did you mean 'learning_rate'? (valid keys: method, rows,",
    ),
    "unknown key at the top": ({"modles": {}}, "modles: unknown key; did you mean 'models'?"),
    "unknown key inside a part that may be absent": (
        {"models|ant": {"pretrain": {"architecture": "llama", "mixture": {"prose": 1}, "head": 3}}},
        "models.ant.pretrain.head: unknown key; did you mean 'heads'? (valid keys: architecture,",
    ),
    "a recipe's key under its former name": ({"recipes|full|warmup": 0.1}, "recipes.full.warmup: was renamed; write warmup_ratio"),
    "a former name in an override": (
        {"overrides": [{"models": ["ant"], "set": {"packing": True}}]},
        "overrides[0].set.packing: was renamed; write padding_free",
    ),
    "a former name in a grid": (
        {"recipes|full|grid": {"schedule": ["cosine", "constant"]}},
        "recipes.full.grid.schedule: was renamed; write lr_scheduler_type",
    ),
    "a block's key under its former name": (
        {"blocks|single|represent": False},
        "blocks.single.represent: was renamed; write measure_representation",
    ),
    "a dataset's key under its former name": (
        {"datasets|red|where": {"task": ["a"]}},
        "datasets.red.where: was renamed; write filter",
    ),
    "a study's key under its former name": ({"only": {"models": ["ant"]}}, "only: was renamed; write select"),
    "missing key": ({"recipes|full": {"method": "full"}}, "recipes.full.learning_rate: this key is required and missing"),
    "wrong type": ({"recipes|full|rows": "many"}, "recipes.full.rows: Input should be a valid integer", "(got 'many')"),
    "wrong choice": ({"recipes|full|method": "half"}, "recipes.full.method: Input should be 'full' or 'lora' (got 'half')"),
    "out of range": ({"recipes|full|learning_rate": 0}, "recipes.full.learning_rate: Input should be greater than 0 (got 0)"),
    "a text where a list belongs": (
        {"blocks|single|models": "ant"},
        "blocks.single.models: Input should be a valid list: write [ant] (got 'ant')",
    ),
    "a text where keys belong": (
        {"select": "ant"},
        "select: must hold keys and values; valid keys: models, datasets, recipes, seeds, blocks, without (got 'ant')",
    ),
    "no such model": (
        {"blocks|single|models": ["aunt"]},
        "blocks.single.models[0]: there is no model 'aunt'; did you mean 'ant'? (defined: ant, bee)",
    ),
    "no such dataset": (
        {"blocks|single|datasets": ["red", "bleu"]},
        "blocks.single.datasets[1]: there is no dataset 'bleu'; did you mean 'blue'?",
    ),
    "no such recipe": (
        {"blocks|single|recipes": ["ful"]},
        "blocks.single.recipes[0]: there is no recipe 'ful'; did you mean 'full'? (defined: full, lora)",
    ),
    "no such benchmark": (
        {"suites|short|benchmarks": ["quizz"]},
        "suites.short.benchmarks[0]: there is no benchmark 'quizz'; did you mean 'quiz'?",
    ),
    "no such member": (
        {"datasets|pair|merge": ["red", "blu"]},
        "datasets.pair.merge[1]: there is no source dataset 'blu'; did you mean 'blue'?",
    ),
    "a merge of a merge": (
        {"datasets|pair|merge": ["all"]},
        "datasets.pair.merge[0]: there is no source dataset 'all' (defined: red, green, blue)",
    ),
    "an empty merge": ({"datasets|pair|merge": []}, "datasets.pair: merge must name at least one dataset"),
    "a member twice": ({"datasets|pair|merge": ["red", "red"]}, "datasets.pair: merge must name at least one dataset, and none twice"),
    "a benchmark twice": (
        {"suites|other": {"benchmarks": ["quiz"]}},
        "suites.other.benchmarks: 'quiz' is measured twice (also in 'short'); name it once",
    ),
    "two sources": (
        {"models|ant": {"path": "a", "hub": "a/b", "revision": "1"}},
        "models.ant: give exactly one of hub, path, package, pretrain, not hub and path",
    ),
    "no source": ({"datasets|red": {"seed": 1}}, "datasets.red: give exactly one of path, hub, tasks, merge"),
    "hub without revision": ({"models|ant": {"hub": "a/b"}}, "models.ant: hub and revision belong together: pin the commit that you use"),
    "hub dataset without revision": ({"datasets|red": {"hub": "a/b"}}, "datasets.red: hub and revision belong together: pin the commit"),
    "tasks without size": ({"datasets|red": {"tasks": {"prose": 1}}}, "datasets.red: tasks and size belong together: state how many items"),
    "keep beyond epochs": ({"recipes|full|save_epochs": [1, 3]}, "recipes.full: save_epochs names epoch 3, but there are 2 epochs"),
    "keep nothing": ({"recipes|full|save_epochs": []}, "recipes.full: save_epochs names no epoch; use last, all or a list of epochs"),
    "micro batch": ({"recipes|full|micro_batch_size": 3}, "recipes.full: batch_size 4 is not a multiple of micro_batch_size 3"),
    "noise on several GPUs": (
        {"recipes|full|neftune_noise_alpha": 5, "recipes|full|gpus": 2},
        "recipes.full: neftune_noise_alpha is checked on one GPU only",
    ),
    "QLoRA of all weights": (
        {"recipes|full|load_in_4bit": True},
        "recipes.full: load_in_4bit makes no sense with method: full, because only a frozen base can be in four bits; use method: lora",
    ),
    "QLoRA with DoRA": (
        {"recipes|lora|load_in_4bit": True, "recipes|lora|lora": {"dora": True}},
        "recipes.lora: lora.dora was never run on a base in four bits; remove lora.dora or load_in_4bit",
    ),
    "8-bit optimiser on several GPUs": (
        {"recipes|full|optim": "adamw_8bit", "recipes|full|gpus": 2},
        "recipes.full: optim is checked on one GPU only",
    ),
    "negative noise": (
        {"recipes|full|neftune_noise_alpha": -1},
        "recipes.full.neftune_noise_alpha: Input should be greater than 0 (got -1)",
    ),
    "noise on concatenated samples": (
        {"recipes|full|neftune_noise_alpha": 5, "recipes|full|padding_free": True},
        "recipes.full: neftune_noise_alpha scales its noise by the length of a sequence, which padding_free changes",
    ),
    "lora settings of a full recipe": ({"recipes|full|lora": {"rank": 4}}, "recipes.full: lora settings make no sense with method: full"),
    "a slash in a name": ({"datasets|red/er": {"path": "x"}}, "datasets.red/er: names may hold letters, digits, '.', '_' and '-'"),
    "a slash in the study's name": ({"study": "a/b"}, "study: String should match pattern", "(got 'a/b')"),
    "reserved dataset": ({"datasets|base": {"path": "x"}}, "datasets.base: the name is reserved; choose one that is not 'base'"),
    "reserved prefix": (
        {"datasets|without-red": {"path": "x"}},
        "datasets.without-red: the name is reserved;",
        "does not begin with 'without-'",
    ),
    "reserved recipe": (
        {"recipes|base": SMALL["recipes"]["full"]},
        "recipes.base: the name is reserved for the base models; choose another",
    ),
    "holdout of everything": (
        {"datasets|red|holdout": 1.0},
        "datasets.red: holdout must be a share between 0 and 1, such as 0.05, or a file, not 1.0",
    ),
    "template of another name": ({"template": "chatml"}, "template: Input should be 'chat' (got 'chatml')"),
    "unknown key of the template": ({"template": {"promt": "x"}}, "template.promt: unknown key; did you mean 'prompt'?"),
    "turns without conversations": (
        {"datasets|red|turns": "all"},
        "datasets.red: turns: all needs conversations; name their column with `columns: {conversation: ...}`",
    ),
    "turns without a chat template": (
        {"datasets|red|turns": "all", "datasets|red|columns": {"conversation": "chat"}},
        "datasets.red.turns: all needs the chat template of the tokenizer; set `template: chat`, or remove turns",
    ),
    "template without its place": (
        {"template": {"prompt": "Question:"}},
        "template: prompt needs {instruction} once and response needs {response} once",
    ),
    "set of an unknown key": (
        {"blocks|single|set": {"learning_rte": 1}},
        "blocks.single.set.learning_rte: not a hyper-parameter that may differ; did you mean 'learning_rate'?",
    ),
    "set of a key that is fixed": (
        {"blocks|single|set": {"epochs": 3}},
        "blocks.single.set.epochs: not a hyper-parameter that may differ",
        "(allowed: activation_checkpointing,",
    ),
    "set of a wrong value": (
        {"blocks|single|set": {"rows": 0}},
        "bee/blue/full in blocks.single: rows: Input should be greater than 0 (got 0)",
    ),
    "an empty block": (
        {"blocks|none": {"models": [], "datasets": "*", "recipes": ["full"]}},
        "blocks.none: defines no run; name at least one model",
    ),
    "leave one out of a source dataset": (
        {"blocks|rest": {"models": "*", "datasets": ["red"], "recipes": ["full"], "leave_one_out": True}},
        "blocks.rest.datasets[0]: leave_one_out needs a `merge` of at least two datasets; 'red' is not one",
    ),
    "leave one out of everything": (
        {"blocks|rest": {"models": "*", "datasets": "*", "recipes": ["full"], "leave_one_out": True}},
        "blocks.rest.datasets: leave_one_out needs the names of merged datasets",
    ),
    "leave one out of two merges": (
        {"blocks|rest": {"models": "*", "datasets": ["all", "pair"], "recipes": ["full"], "leave_one_out": True}},
        "blocks: without-red would come from both 'all' and 'pair'; use one merged set",
    ),
    "two blocks that differ on a run": (
        {"blocks|again": {"models": ["ant"], "datasets": ["red"], "recipes": ["full"], "set": {"rows": 4, "warmup_ratio": 0.5}}},
        "blocks.again: defines the run ant/red/full differently from blocks.single: rows (8 and 4), warmup_ratio (0.0 and 0.5); ",
        "; give one of them a recipe of its own",
    ),
    "ambiguous override": (
        {"overrides": [{"models": ["ant"], "set": {"rows": 4}}, {"datasets": ["red"], "set": {"rows": 5}}]},
        "overrides[1].set.rows: overrides[0] sets it as well for ant/red/full and is as specific; let one of them name more of model, dataset and recipe",
    ),
    "unmatched override": (
        {"overrides": [{"recipes": ["lora"], "set": {"rows": 4}}]},
        "overrides[0]: matches no run; remove or correct it",
    ),
    "override of nothing known": (
        {"overrides": [{"models": ["cat"], "set": {"rows": 4}}]},
        "overrides[0].models[0]: there is no model 'cat'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained_with_file_key_and_remedy(mistake):
    changes, *fragments = MISTAKES[mistake]
    text = complaint(small(**changes))
    assert all(line.startswith("config/mine.yaml: ") for line in text.splitlines())
    assert f"config/mine.yaml: {fragments[0]}" in text
    for fragment in fragments[1:]:
        assert fragment in text
    assert "literal[" not in text and "list[" not in text


def test_a_holdout_file_that_is_not_there_is_an_error():
    file = studies.from_config(small(**{"datasets|red|holdout": "held.jsonl"}), "mine.yaml").file
    found = checks.local_files(file, str)
    assert any(line.startswith("datasets.red.holdout: there is no held.jsonl; correct the path") for line in found)


def test_every_problem_is_listed_at_once():
    text = complaint(small(**{"recipes|full|rows": "many", "models|ant": {"hub": "a/b"}, "suites|short|benchmark": []}))
    assert [line.split(": ")[1] for line in text.splitlines()] == ["models.ant", "suites.short.benchmark", "recipes.full.rows"]


def test_a_long_list_of_problems_is_cut_and_counted():
    lines = complaint(small(**{f"recipes|full|key-{i}": 1 for i in range(20)})).splitlines()
    assert len(lines) == 9
    assert lines[-1] == "... and 12 more of this kind"


# ---------------------------------------------------------------- the file itself


def yaml_complaint(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        strict_yaml(path)
    assert str(caught.value).startswith(f"{path}:")
    return str(caught.value).removeprefix(f"{path}:")


def test_a_key_that_stands_twice_is_an_error_with_both_lines(tmp_path):
    text = yaml_complaint(tmp_path, "study: mine\nmodels:\n  ant: {path: a}\n  bee: {path: b}\n  ant: {path: c}\n")
    assert text == "5:3: key 'ant' is repeated (first in line 3); remove one"


def test_the_same_key_in_two_parts_is_no_error(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("models:\n  ant: {path: a}\ndatasets:\n  ant: {path: a}\n")
    assert strict_yaml(path) == {"models": {"ant": {"path": "a"}}, "datasets": {"ant": {"path": "a"}}}


def test_yaml_anchors_and_merges_work(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("one: &one {rows: 1, epochs: 2}\ntwo: {<<: *one, rows: 3}\n")
    assert strict_yaml(path)["two"] == {"rows": 3, "epochs": 2}


@pytest.mark.parametrize("text", ["models: [ant\n", "prompt: {{instruction}}\n", "a: b: c\n", "\tstudy: mine\n"])
def test_invalid_yaml_is_an_error_with_its_place(tmp_path, text):
    assert re.match(r"[12]:\d+: not valid YAML: ", yaml_complaint(tmp_path, text))


@pytest.mark.parametrize("text", ["", "- ant\n", "just text\n"])
def test_a_file_without_keys_is_an_error(tmp_path, text):
    assert yaml_complaint(tmp_path, text) == "1:1: must hold keys and values"


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: there is no such file$"):
        studies.load(tmp_path / "nowhere.yaml")


STUDY_FILES = [path for path in sorted((ROOT / "config").glob("*.yaml")) if "models" in strict_yaml(path)]  # others are laid over these


def test_the_study_files_are_found():
    assert {"demo.yaml", "smollm2.yaml", "paper.yaml"} <= {path.name for path in STUDY_FILES}


@pytest.mark.parametrize("path", STUDY_FILES, ids=lambda path: path.name)
def test_every_study_file_of_the_repository_is_valid(path):
    study = studies.load(path)
    assert study.runs
    assert study.name == path.stem


# ---------------------------------------------------------------- select


BLOCKS = {
    "single": {"models": "*", "datasets": "*", "recipes": ["full", "lora"]},
    "again": {"models": ["ant"], "datasets": ["red", "pair"], "recipes": ["full"]},
}


@pytest.mark.parametrize(
    ("select", "runs"),
    [
        ({"models": ["ant"], "datasets": ["red"]}, {("ant", "red", "full"), ("ant", "red", "lora")}),
        ({"blocks": ["again"]}, {("ant", "red", "full"), ("ant", "pair", "full")}),
        ({"recipes": ["lora"], "models": ["bee"], "datasets": ["red", "blue"]}, {("bee", "red", "lora"), ("bee", "blue", "lora")}),
        ({"blocks": ["again"], "without": ["ant/pair/full"]}, {("ant", "red", "full")}),
    ],
)
def test_select_narrows_the_runs(select, runs):
    narrowed, whole = study_of(blocks=BLOCKS, select=select), study_of(blocks=BLOCKS)
    assert set(narrowed.runs) == runs
    assert all(narrowed.runs[key].settings == whole.runs[key].settings for key in runs)
    assert set(narrowed.models) == {model for model, _, _ in runs}


def test_a_selection_keeps_the_members_of_a_merged_set_and_no_other_dataset():
    narrowed = study_of(blocks=BLOCKS, select={"datasets": ["pair"]})
    assert narrowed.datasets == ("red", "blue", "pair") and narrowed.sources == ("red", "blue")
    assert narrowed.members("pair") == ("red", "blue")
    assert set(narrowed.resolved()["models"]) == {"ant"}


def test_a_selection_does_not_change_what_perplexity_is_measured_on():
    changes = {"blocks": {**BLOCKS, "large": {"models": ["ant"], "datasets": ["red"], "recipes": ["big"]}}}
    changes["recipes"] = SMALL["recipes"] | {"big": SMALL["recipes"]["full"] | {"rows": 64}}
    narrowed = study_of(**changes, select={"recipes": ["big"]})
    assert narrowed.sample_sizes("red") == (64,) and narrowed.smallest_rows("red") == 8


def test_a_dataset_that_joins_no_run_keeps_its_place_in_the_whole_study_only():
    blocks = {"single": {"models": ["ant"], "datasets": ["red"], "recipes": ["full"]}}
    assert study_of(blocks=blocks).sources == ("red", "green", "blue")
    assert study_of(blocks=blocks, select={"models": ["ant"]}).sources == ("red",)


def test_a_selection_that_names_what_does_not_exist_lists_what_does():
    text = complaint(small(select={"models": ["ants"], "blocks": ["singles"], "without": ["ant/red/fll"]}))
    assert "select.without[0]: there is no run 'ant/red/fll'; did you mean 'ant/red/full'?" in text
    assert "select.models[0]: no run has the model 'ants'; did you mean 'ant'? (there are ant, bee)" in text
    assert "select.blocks[0]: no run has the block 'singles'; did you mean 'single'? (there are single)" in text


def test_a_selection_that_matches_nothing_lists_what_there_is():
    text = complaint(small(blocks=BLOCKS, select={"models": ["bee"], "blocks": ["again"]}))
    assert "select: matches no run" in text and "2 models (ant, bee)" in text and "2 blocks (single, again)" in text


# ---------------------------------------------------------------- advise


@pytest.mark.parametrize(
    ("datasets", "names"), [(["red", "blue"], ("red", "blue")), (["red", "red"], ("red",)), ([], ("red", "green", "blue"))]
)
def test_candidates_that_the_study_has_are_named_and_the_study_stays_as_it_is(datasets, names):
    study = study_of(advise={"model": "ant", "datasets": datasets})
    assert (study.candidates.model, study.candidates.datasets) == ("ant", names)
    assert (study.all_models, study.all_datasets) == (study.file.models, study.file.datasets)
    assert study.resolved() == study_of().resolved()


def test_candidates_may_be_any_local_file_or_saved_dataset(tmp_path):
    for name in ("A.CSV", "b.jsonl.zst", "saved/state.json", "folder/other.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    paths = [str(tmp_path / name) for name in ("A.CSV", "b.jsonl.zst", "saved")]
    assert study_of(advise={"model": "ant", "datasets": paths}).candidates.datasets == ("A", "b", "saved")
    assert "a file or a saved dataset" in complaint(small(advise={"model": "ant", "datasets": [str(tmp_path / "folder")]}))


def test_candidates_from_folders_files_and_the_hub_join_no_run_table_or_plan(tmp_path):
    (tmp_path / "tuned").mkdir()
    (tmp_path / "mine.jsonl.gz").write_text("")
    plain, study = study_of(), study_of(advise={"model": str(tmp_path / "tuned"), "datasets": ["red", str(tmp_path / "mine.jsonl.gz")]})
    assert (study.candidates.model, study.candidates.datasets) == ("tuned", ("red", "mine"))
    assert study.all_models["tuned"].path == str(tmp_path / "tuned") and study.all_datasets["mine"].allow_fewer
    assert study.members("mine") == () and study.smallest_rows("mine") == 8 and study.members("all") == plain.members("all")
    for part in ("models", "datasets", "sources", "runs", "checkpoints"):
        assert getattr(study, part) == getattr(plain, part)
    assert study.resolved() == plain.resolved() and study.file.model_dump_json() == plain.file.model_dump_json()
    study = study_of(advise={"model": "org/model-7b@abc123", "datasets": ["red"]})
    assert study.all_models["model-7b"].model_dump(exclude_defaults=True) == {"hub": "org/model-7b", "revision": "abc123"}


def test_a_set_of_the_study_is_the_papers_by_its_hub_id_not_by_its_name():
    def published(asked, **entry):
        config = small(**{"datasets|math": entry})
        return studies.from_config(config | {"advise": {"model": "ant", "datasets": [asked]}}, "small.yaml").candidates

    own = published("math", path="mine.jsonl")
    assert own.datasets == ("math",) and own.published_datasets == ()
    assert published("math", hub="someone/math", revision="main").published_datasets == ()
    assert published("math", hub="TIGER-Lab/MathInstruct", revision="main").published_datasets == ("math",)
    config = small(
        **{"datasets|chat": {"hub": "GAIR/lima", "revision": "main"}, "datasets|flan": {"hub": "Open-Orca/FLAN", "revision": "main"}}
    )
    asked = studies.from_config(config | {"advise": {"model": "ant", "datasets": ["chat", "flan"]}}, "small.yaml").candidates
    assert (asked.datasets, asked.published_datasets) == (("chat", "flan"), ("lima",))  # which part of FLAN it is nobody said
    paper = strict_yaml(ROOT / "config/paper.yaml")["datasets"]
    assert {name: paper[name]["hub"] for name in SET_HUBS} == SET_HUBS and set(SET_HUBS) == set(DATASETS)


def test_names_alone_are_enough_for_advice_from_published_scores():
    asked = study_of(advise={"model": "meta-llama/Meta-Llama-3-8B", "datasets": ["LIMA", "red"]}).candidates
    assert (asked.model, asked.published_model, asked.measurable, asked.language) == ("llama3-8b", "llama3-8b", False, "en")
    assert (asked.datasets, asked.published_datasets) == (("red",), ("lima",))
    asked = study_of(advise={"model": "someone/model-9b", "language": "ja"}).candidates
    assert (asked.model, asked.published_model, asked.language, asked.family) == ("model-9b", "model-9b", "ja", None)
    assert asked.published_datasets is None and asked.datasets == ("red", "green", "blue")
    asked = study_of(advise={"model": "Qwen/Qwen2.5-7B@abc123", "datasets": ["red"]}).candidates
    assert (asked.published_model, asked.measurable, asked.published_datasets) == ("qwen2.5-7b", True, ())
    asked = study_of(advise={"model": "wolf", "datasets": ["theirs"]}, published_csv="own.csv").candidates
    assert (asked.published_model, asked.datasets, asked.published_datasets) == ("wolf", (), ("theirs",))


@pytest.mark.parametrize(
    ("advise", "words"),
    [
        ({"model": "wolf"}, "advise.model: 'wolf' is not a base model of the study (defined: ant, bee), a folder or HUB_ID@REVISION"),
        ({"model": "aunt"}, "advise.model: 'aunt' is not a base model of the study; did you mean 'ant'?"),
        ({"model": "ant", "datasets": ["redd"]}, "advise.datasets[0]: 'redd' is not a source dataset of the study; did you mean 'red'?"),
        ({"model": "ant", "datasets": ["red", "all"]}, "advise.datasets[1]: 'all' is not a source dataset"),
        ({"datasets": ["red"]}, "advise.model: this key is required and missing"),
        ({"model": "x/ant@abc"}, "advise.model: x/ant@abc would be called 'ant', a name that is in use; rename"),
    ],
)
def test_candidates_that_are_not_there_are_named(advise, words):
    assert words in complaint(small(advise=advise))


@pytest.mark.parametrize(
    ("datasets", "call"),
    [("red,blue", "{model: ant, datasets: [red, blue]}"), (["red"], "{model: ant, datasets: [red]}"), ({}, "{model: ant}")],
)
def test_the_former_call_of_advise_is_answered_with_the_new_one(datasets, call):
    text = complaint(small(model="ant", datasets=datasets))
    assert text == f"config/mine.yaml: model: ask for advice with the key `advise`: snakemake advise --config advise='{call}'"


def test_a_candidate_whose_file_name_is_no_name_is_refused(tmp_path):
    for name in ("$(touch pwned).jsonl", "a; b.jsonl", "a b.jsonl", "{x}.jsonl", "模.jsonl"):
        (tmp_path / name).touch()
        said = complaint(small(advise={"model": "ant", "datasets": [str(tmp_path / name)]}))
        assert "advise.datasets[0]" in said and "rename the file or folder" in said


def test_branches_and_tags_of_the_hub_are_named_and_commits_are_not():
    config = copy.deepcopy(SMALL)
    config["models"] |= {"ant": {"hub": "a/b", "revision": "main"}, "bee": {"hub": "a/c", "revision": "0" * 40}}
    quiz = next(iter(config["benchmarks"]))
    shots = {"count": 1, "hub": "a/d", "revision": "v1"}
    config["benchmarks"][quiz] = {"hub": "a/d", "revision": "0" * 40, "task": config["benchmarks"][quiz]["task"], "shots": shots}
    assert checks.unpinned(StudyFile.model_validate(config)) == ["models.ant", f"benchmarks.{quiz}.shots"]
