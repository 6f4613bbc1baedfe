"""Settings that cannot give a result are refused before any job; those that rarely make sense are warnings."""

import pytest
import yaml

from sft_atlas.core.errors import ConfigError
from sft_atlas.core.provenance import ROOT
from sft_atlas.data import procedural
from sft_atlas.study import study as studies


def study_of(monkeypatch, **changes):
    """The demo with values set at paths, as the workflow checks it."""
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text(encoding="utf-8"))
    for path, value in changes.items():
        *parents, last = path.split("|")
        part = config
        for key in parents:
            part = part[key]
        part[last] = value
    study = studies.from_config(config, "mine.yaml")
    study.check_paths()
    if problems := procedural.problems(study.file):
        raise ConfigError(study.source, problems)
    return study


JUDGE = {"benchmarks": ["sums"], "judge": {"model": "m", "url": "https://x"}}
REFUSED = {
    "an absurd rate": ({"recipes|full|learning_rate": 1e5}, "recipes.full: learning_rate 100000 destroys every model"),
    "an infinite rate": ({"recipes|full|learning_rate": float("inf")}, "recipes.full.learning_rate: must be a finite number, not inf"),
    "NaN anywhere": ({"description": {"a": [float("nan")]}}, "description.a[0]: must be a finite number, not nan"),
    "decay of all weights": (
        {"recipes|full|weight_decay": 2000},
        "recipes.full: weight_decay 2000 at learning_rate 0.003 removes the weights",
    ),
    "a million epochs": ({"recipes|full|epochs": 10**6}, "recipes.full.epochs: Input should be less than or equal to 10000"),
    "samples of one token": ({"recipes|full|max_length": 1}, "recipes.full.max_length: Input should be greater than or equal to 8"),
    "more rows than are generated": ({"recipes|full|rows": 10**9}, "trains on 1,000,000,000 rows, but datasets.arithmetic generates 320"),
    "a rank above the width": ({"recipes|lora|lora": {"rank": 4096}}, "lora.rank 4096 is above the width of llama-strings, 64"),
    "targets of another architecture": (
        {"recipes|lora|lora": {"targets": ["c_attn"]}},
        "recipes.lora: lora.targets c_attn match no module of llama-strings (it has down_proj, gate_proj",
    ),
    "no targets": ({"recipes|lora|lora": {"targets": []}}, "recipes.lora.lora.targets: List should have at least 1 item"),
    "no room for a prompt": (
        {"suites|tasks|max_length": 16},
        "suites.tasks.max_length: 16 tokens hold no prompt of sums beside an answer of 16; raise it",
    ),
    "an unknown task": (
        {"datasets|prose|tasks": {"chain_sums": 1}},
        "datasets.prose.tasks: there is no task 'chain_sums'; did you mean 'chain_sum'",
    ),
    "a benchmark of open text": (
        {"benchmarks|sums|tasks": {"prose": 1}},
        "benchmarks.sums.tasks.prose: open text has no single right answer",
    ),
    "no task file": ({"benchmarks|sums|task": "/dev/null"}, "benchmarks.sums.task: there is no file /dev/null; name an lm-eval task file"),
    "an empty path": ({"datasets|prose": {"path": ""}}, "datasets.prose.path: String should have at least 1 character"),
    "a device as data": ({"datasets|prose": {"path": "/dev/zero"}}, "datasets.prose.path: there is no /dev/zero"),
    "a path with wildcards": ({"datasets|prose": {"path": "a/{b}.jsonl"}}, "datasets.prose.path: 'a/{b}.jsonl' has braces or a line break"),
    "a column that no item has": (
        {"benchmarks|sums|shots": {"count": 2, "by": "subject"}},
        "benchmarks.sums.shots.by: generated items have no column 'subject'",
    ),
    "an unknown device": ({"plan|device": "h1000"}, "plan.device: 'h1000' is not in config/devices.yaml"),
    "a variable that is no key": (
        {"suites|tasks": JUDGE | {"judge": JUDGE["judge"] | {"key_variable": "PATH"}}},
        "key_variable PATH holds no key",
    ),
    "a million judgements": (
        {"suites|tasks": JUDGE | {"judge": JUDGE["judge"] | {"repeats": 10**6}}},
        "repeats: Input should be less than",
    ),
    "a negative seed": ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
    "names that differ in case": (
        {"recipes|Full": {"method": "full", "rows": 8, "epochs": 1, "learning_rate": 1e-3, "batch_size": 4}},
        "recipes.Full",
    ),
    "too many checkpoints": (
        {
            "recipes|full|epochs": 10_000,
            "recipes|full|save_epochs": "all",
        },
        "blocks: define 330,036 checkpoints; a study may have 100,000",
    ),
    "heads that do not divide": ({"models|llama-strings|pretrain|heads": 3}, "models.llama-strings.pretrain: heads must be even"),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_give_a_result_is_refused(monkeypatch, changes, words):
    with pytest.raises(ConfigError) as caught:
        study_of(monkeypatch, **changes)
    assert words in str(caught.value)


WARNED = {
    "a high rate": ({"recipes|full|learning_rate": 0.5}, "recipes.full: learning_rate 0.5 is very high"),
    "many epochs": ({"recipes|full|epochs": 500}, "recipes.full: 500 epochs are very many"),
    "a batch above the rows": (
        {"recipes|full|batch_size": 512},
        "recipes.full: batch_size 512 is above the 160 rows, so that an epoch is one smaller",
    ),
    "short samples": ({"recipes|full|max_length": 16}, "recipes.full: max_length 16 drops every sample that is longer"),
    "a target that is nowhere": (
        {"recipes|lora|lora": {"targets": ["q_proj", "v_prj"]}},
        "recipes.lora: lora.targets: v_prj matches no module of llama-strings",
    ),
}


@pytest.mark.parametrize(("changes", "words"), WARNED.values(), ids=WARNED)
def test_what_rarely_makes_sense_is_a_warning(monkeypatch, changes, words):
    assert any(line.startswith(words) for line in study_of(monkeypatch, **changes).warnings())


def test_the_demo_has_no_warnings(monkeypatch):
    assert study_of(monkeypatch).warnings() == []


def test_a_batch_is_compared_with_all_members_of_a_merged_set(monkeypatch):
    changes = {"recipes|merged-full|batch_size": 200}
    assert not any("merged-full" in line for line in study_of(monkeypatch, **changes).warnings()), "nine members of 24 rows"


def test_examples_from_two_places_are_refused(monkeypatch):
    for shots, words in {
        "both": ({"path": "a", "hub": "b", "revision": "c"}, "give a path, or hub and revision, not both"),
        "unpinned": ({"hub": "b"}, "hub and revision belong together"),
    }.values():
        with pytest.raises(ConfigError, match=words):
            study_of(monkeypatch, **{"benchmarks|sums|shots": {"count": 1, **shots}})
