"""Generated tasks: distinct items, sides that never meet, the same items for the same seed."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.data import leaks, procedural

ANSWERABLE = [name for name in procedural.NAMES if name != procedural.PROSE]


def normal(items):
    return {" ".join(item["instruction"].lower().split()) for item in items}


@pytest.mark.parametrize("name", procedural.NAMES)
def test_items_of_a_task_are_distinct_and_complete(name):
    items = procedural.generate({name: 1}, 30, 0, "train")
    assert len(items) == len(normal(items)) == 30
    assert all(item["instruction"].strip() and item["response"].strip() and item["task"] == name for item in items)
    for item in items:
        assert item.get("choices", [item["response"]])[item.get("label", 0)] == item["response"]
        assert len(set(item.get("choices", []))) == len(item.get("choices", []))


@pytest.mark.parametrize("name", ANSWERABLE)
def test_training_and_benchmark_items_never_meet(name):
    train = set().union(*(normal(procedural.generate({name: 1}, 40, seed, "train")) for seed in range(4)))
    held_out = set().union(*(normal(procedural.generate({name: 1}, 20, seed, "benchmark")) for seed in range(4)))
    assert len(train) > 40
    assert len(held_out) > 20
    assert not train & held_out
    rows = [([text], [""]) for text in train]  # nor does a longer item hold a shorter one
    assert not leaks.Items({name: [{"instruction": text, "answer": "-"} for text in held_out]}).found_in(rows)[0]


def test_the_side_of_an_item_does_not_depend_on_case_and_white_space():
    texts = [f"Spell word{i} backward" for i in range(400)]
    assert all(procedural.side_of(text) == procedural.side_of(f"  {text.upper()}\n") for text in texts)
    shares = Counter(map(procedural.side_of, texts))
    assert 60 < shares["benchmark"] < 140


WITHOUT_PYCOSAT = "import sys; sys.modules['pycosat'] = None; "


def start(script):
    """A process that runs a script on the project's modules."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow_scripts"), "PYTHONHASHSEED": "0"}
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_items_in_another_process_and_without_pycosat():
    weights = dict.fromkeys(procedural.NAMES, 1)
    script = f"import json; from sft_atlas.data import procedural; print(json.dumps([procedural.generate({weights}, 60, seed, 'train') for seed in (0, 1)]))"
    started = [start(script), start(WITHOUT_PYCOSAT + script)]
    first, second = (json.loads(process.communicate()[0]) for process in started)
    assert first == second
    assert len(first[0]) == 60
    assert first[0] != first[1]


def test_without_pycosat_the_one_task_that_uses_it_says_how_to_get_it():
    script = "from sft_atlas.data import procedural; procedural.import_reasoning_gym().create_dataset('zebra_puzzles')[0]"
    error = start(WITHOUT_PYCOSAT + script).communicate()[1]
    assert "AtlasError: tasks.zebra_puzzles: needs the package pycosat" in error
    assert "-m pip install pycosat" in error


@pytest.mark.parametrize(("size", "weights"), [(40, (3, 1)), (53, (1, 1, 1, 0.01)), (7, (1, 1, 1, 1))])
def test_tasks_get_their_share_and_the_sizes_add_up(size, weights):
    names = ["chain_sum", "number_sorting", "spell_backward", "prose"][: len(weights)]
    counts = Counter(item["task"] for item in procedural.generate(dict(zip(names, weights, strict=True)), size, 0, "train"))
    assert sum(counts.values()) == size
    assert all(abs(counts[name] - size * weight / sum(weights)) <= 1 for name, weight in zip(names, weights, strict=True))


@pytest.mark.parametrize("side", ["train", "benchmark"])
def test_syllogisms_are_balanced(side):
    items = procedural.generate({"syllogism": 1}, 40, 0, side)
    assert Counter(item["response"] for item in items) == {"Yes": 20, "No": 20}


def test_too_few_items_are_an_error_with_both_numbers(monkeypatch):
    settings = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    monkeypatch.setitem(procedural.TASKS, "chain_sum", procedural.ProceduralTask(settings, procedural.TASKS["chain_sum"].rewrite))
    with pytest.raises(AtlasError, match=r"tasks\.chain_sum: has \d+ distinct items for the train side, not 400; lower `size`"):
        procedural.generate({"chain_sum": 1}, 400, 0, "train")


def test_text_that_ends_is_an_error_too():
    with pytest.raises(AtlasError, match=r"tasks\.prose: has \d+ distinct items for the train side, not 100000;"):
        procedural.generate({"prose": 1}, 100_000, 0, "train")


def test_an_unknown_task_is_an_error_that_lists_the_known_ones():
    with pytest.raises(AtlasError, match=r"there is no task 'chain_sun' \(known: chain_sum, "):
        procedural.generate({"chain_sum": 1, "chain_sun": 1}, 5, 0, "train")


def test_open_text_makes_no_benchmark():
    with pytest.raises(AtlasError, match=r"tasks\.prose: open text has no single right answer"):
        procedural.generate({"prose": 1}, 5, 0, "benchmark")
