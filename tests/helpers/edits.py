"""A very small study, and random edits of it: what people change between two calls.

An edit takes the study, the folder and a random generator, changes the study or a file, and returns what it did; None where it cannot be made.
"""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

PROMPT = "###Question: {instruction}\n###Answer:"


def rows(rng: random.Random, count: int = 24) -> str:
    """Lines of a training file."""
    pairs = [(rng.randrange(90), rng.randrange(90)) for _ in range(count)]
    return "".join(
        json.dumps({"instruction": f"Which is larger, {a} or {b}? (question {i})", "response": str(max(a, b))}) + "\n"
        for i, (a, b) in enumerate(pairs)
    )


def smallest_study(folder: Path) -> dict:
    """Two models x two sets x two recipes x two suites, and a merge; writes its data file."""
    (folder / "mine.jsonl").write_text(rows(random.Random(0)))
    pretrain = {"mixture": {"chain_sum": 1}, "steps": 4, "hidden_size": 32, "layers": 2, "vocabulary": 300, "batch_size": 4}
    recipe = {"rows": 16, "epochs": 1, "batch_size": 8, "max_length": 256}
    return {
        "study": "tiny",
        "keep_weights": "final",
        "models": {
            name: {"dtype": "float32", "pretrain": {"architecture": name, **pretrain}} for name in ("llama", "qwen3")
        },
        "datasets": {
            "spelling": {"tasks": {"spell_backward": 1}, "size": 40},
            "mine": {"path": "mine.jsonl"},
            "both": {"merge": ["spelling", "mine"]},
        },
        "benchmarks": {
            "sums": {"task": "config/benchmarks/generate.yaml", "tasks": {"chain_sum": 1}, "size": 8},
            "kinship": {"task": "config/benchmarks/choice.yaml", "tasks": {"family_relationships": 1}, "size": 8},
        },
        "suites": {name: {"benchmarks": [benchmark], "max_length": 256, "batch_size": 8} for name, benchmark in (("written", "sums"), ("chosen", "kinship"))},
        "recipes": {"full": {"method": "full", "learning_rate": 1e-3, **recipe}, "lora": {"method": "lora", "learning_rate": 5e-3, **recipe}},
        "blocks": {
            "single": {"models": "*", "datasets": "*", "recipes": ["full", "lora"]},
            "merged": {"models": ["llama"], "datasets": ["both"], "recipes": ["full"]},
        },
        "measure": {"representation": {"items_per_benchmark": 8, "max_length": 256}, "perplexity": {"max_length": 256}},
    }  # fmt: skip


def new_name(rng: random.Random, taken) -> str:
    return next(name for name in iter(lambda: f"{rng.choice('abcdefgh')}{rng.randrange(100)}", "") if name not in taken)


def renamed(mapping: dict, old: str, new: str) -> dict:
    """The mapping with another key at the same place."""
    return {new if key == old else key: value for key, value in mapping.items()}


def replace_names(study: dict, old: str, new: str, *keys: str) -> None:
    """Replace a name in the lists of blocks, of `select` and of merges."""
    parts = [*study["blocks"].values(), study.get("select") or {}, *(study["datasets"].values() if "datasets" in keys else ())]
    for part in parts:
        for key in (*keys, "merge"):
            if isinstance(part.get(key), list):
                part[key] = [new if name == old else name for name in part[key]]


# ---------------------------------------------------------------- kinds of edits

KINDS: dict[str, Callable[[dict, Path, random.Random], str | None]] = {}


def kind(function: Callable) -> Callable:
    KINDS[function.__name__] = function
    return function


def sources(study: dict) -> list[str]:
    return [name for name, entry in study["datasets"].items() if "merge" not in entry]


@kind
def add_dataset(study, folder, rng):
    if len(sources(study)) > 2:
        return None
    name = new_name(rng, study["datasets"])
    study["datasets"] = {
        name: {"tasks": {rng.choice(["number_sorting", "syllogism"]): 1}, "size": 40, "seed": rng.randrange(3)},
        **study["datasets"],
    }
    return name


@kind
def remove_dataset(study, folder, rng):
    merged = {name for entry in study["datasets"].values() for name in entry.get("merge", ())}
    free = [name for name in sources(study) if name not in merged]
    if not free:
        return None
    del study["datasets"][free[0]]
    return free[0]


@kind
def rename_dataset(study, folder, rng):
    old, new = rng.choice(sources(study)), new_name(rng, study["datasets"])
    study["datasets"] = renamed(study["datasets"], old, new)
    replace_names(study, old, new, "datasets")
    return f"{old} -> {new}"


@kind
def dataset_seed(study, folder, rng):
    name = rng.choice(sources(study))
    study["datasets"][name]["seed"] = rng.randrange(4, 8)
    return name


@kind
def merge_order(study, folder, rng):
    study["datasets"]["both"]["merge"].reverse()
    return "both"


@kind
def content_of_data_file(study, folder, rng):
    (folder / "mine.jsonl").write_text(rows(rng))
    if old := rng.random() < 0.5:  # as a file that is moved there
        os.utime(folder / "mine.jsonl", (1e9, 1e9))
    return f"mine.jsonl, {'old' if old else 'new'}"


@kind
def add_model(study, folder, rng):
    if len(study["models"]) > 2:
        return None
    first = study["models"]["llama"]
    study["models"]["llama-two"] = {**first, "pretrain": {**first["pretrain"], "seed": 1 + rng.randrange(2)}}
    return "llama-two"


@kind
def remove_model(study, folder, rng):
    return "llama-two" if study["models"].pop("llama-two", None) else None


@kind
def rename_model(study, folder, rng):
    old, new = "qwen3" if "qwen3" in study["models"] else "qwen3-b", "qwen3-b" if "qwen3" in study["models"] else "qwen3"
    study["models"] = renamed(study["models"], old, new)
    replace_names(study, old, new, "models")
    return f"{old} -> {new}"


@kind
def model_seed(study, folder, rng):
    study["models"]["llama"]["pretrain"]["seed"] = rng.randrange(3, 6)
    return "llama"


@kind
def add_recipe(study, folder, rng):
    if len(study["recipes"]) > 2:
        return None
    name, first = new_name(rng, study["recipes"]), study["recipes"][rng.choice(list(study["recipes"]))]
    study["recipes"][name] = {**first, "seed": rng.randrange(5)}
    study["blocks"]["single"]["recipes"].append(name)
    return name


@kind
def remove_recipe(study, folder, rng):
    used = study["blocks"]["single"]["recipes"]
    free = [name for name in used if name not in study["blocks"]["merged"]["recipes"]]
    if len(used) < 2 or not free:
        return None
    name = rng.choice(free)
    used.remove(name)
    del study["recipes"][name]
    return name


@kind
def rename_recipe(study, folder, rng):
    old, new = rng.choice(list(study["recipes"])), new_name(rng, study["recipes"])
    study["recipes"] = renamed(study["recipes"], old, new)
    replace_names(study, old, new, "recipes")
    return f"{old} -> {new}"


def set_of_a_recipe(key: str, *values):
    def edit(study, folder, rng):
        name = rng.choice(list(study["recipes"]))
        study["recipes"][name][key] = rng.choice([value for value in values if value != study["recipes"][name].get(key)])
        return f"{name}.{key} = {study['recipes'][name][key]}"

    KINDS[f"recipe_{key}"] = edit


for key, values in {
    "learning_rate": (1e-3, 2e-3, 4e-3), "epochs": (1, 2), "rows": (8, 16), "seed": (0, 1, 2), "save_epochs": ("last", "all"),
    "micro_batch_size": (2, 4, 8), "activation_checkpointing": (True, False), "label": ("One", "Two"), "weight_decay": (0.0, 0.1),
}.items():  # fmt: skip
    set_of_a_recipe(key, *values)


@kind
def block_seeds(study, folder, rng):
    name = rng.choice(list(study["blocks"]))
    study["blocks"][name]["seeds"] = rng.choice([seeds for seeds in ([0], [0, 1], [1, 2]) if seeds != study["blocks"][name].get("seeds")])
    return f"{name}.seeds = {study['blocks'][name]['seeds']}"


@kind
def override(study, folder, rng):
    study["overrides"] = [] if study.get("overrides") else [{"models": ["llama"], "set": {"learning_rate": 3e-3}}]
    return str(study["overrides"])


@kind
def template(study, folder, rng):
    before = study.get("template", {}).get("prompt", PROMPT)
    after = rng.choice([prompt for prompt in (PROMPT, "Question: {instruction}\nAnswer:", "Q: {instruction}\nA:") if prompt != before])
    study["template"] = {"prompt": after}
    for name in ("generate", "choice"):
        path = folder / f"config/benchmarks/{name}.yaml"
        spelled = [json.dumps(prompt.replace("{instruction}", "{{instruction}}")) for prompt in (before, after)]
        path.write_text(path.read_text().replace(*spelled))
    return after


@kind
def content_of_task_file(study, folder, rng):
    path = folder / "config/benchmarks/generate.yaml"
    before = "16" if "max_gen_toks: 16" in path.read_text() else "12"
    path.write_text(path.read_text().replace(f"max_gen_toks: {before}", f"max_gen_toks: {12 if before == '16' else 16}"))
    return "generate.yaml"


def set_of_a_suite(key: str, *values):
    def edit(study, folder, rng):
        name = rng.choice(list(study["suites"]))
        study["suites"][name][key] = rng.choice([value for value in values if value != study["suites"][name].get(key)])
        return f"{name}.{key} = {study['suites'][name][key]}"

    KINDS[f"suite_{key}"] = edit


for key, values in {"max_new_tokens": (4, 6, 8), "batch_size": (4, 8), "max_length": (200, 256)}.items():
    set_of_a_suite(key, *values)


@kind
def shots(study, folder, rng):
    entry = study["benchmarks"][rng.choice(list(study["benchmarks"]))]
    if not entry.pop("shots", None):
        entry["shots"] = {"count": 1 + rng.randrange(2)}
    return str(entry)


@kind
def benchmark_size(study, folder, rng):
    entry = study["benchmarks"][rng.choice(list(study["benchmarks"]))]
    entry["size"] = 14 - entry["size"]
    return str(entry)


@kind
def add_benchmark(study, folder, rng):
    if len(study["benchmarks"]) > 2:
        return None
    name = new_name(rng, study["benchmarks"])
    study["benchmarks"][name] = {"task": "config/benchmarks/generate.yaml", "tasks": {"number_sequence": 1}, "size": 6}
    suite = study["suites"][rng.choice(list(study["suites"]))]
    suite["benchmarks"].insert(rng.randrange(2), name)
    return name


@kind
def remove_benchmark(study, folder, rng):
    suite = next((suite for suite in study["suites"].values() if len(suite["benchmarks"]) > 1), None)
    if suite is None:
        return None
    name = suite["benchmarks"].pop(rng.randrange(len(suite["benchmarks"])))
    if not any(name in each["benchmarks"] for each in study["suites"].values()):
        del study["benchmarks"][name]
    return name


@kind
def rename_benchmark(study, folder, rng):
    old, new = rng.choice(list(study["benchmarks"])), new_name(rng, study["benchmarks"])
    study["benchmarks"] = renamed(study["benchmarks"], old, new)
    for suite in study["suites"].values():
        suite["benchmarks"] = [new if name == old else name for name in suite["benchmarks"]]
    return f"{old} -> {new}"


@kind
def add_suite(study, folder, rng):
    if len(study["suites"]) > 2:
        return None
    name = new_name(rng, study["suites"])
    study["suites"] = {
        name: {"benchmarks": [rng.choice(list(study["benchmarks"]))], "max_length": 256, "max_new_tokens": 5},
        **study["suites"],
    }
    return name


@kind
def remove_suite(study, folder, rng):
    if len(study["suites"]) < 3:
        return None
    name = rng.choice(list(study["suites"]))
    gone = study["suites"].pop(name)
    for benchmark in gone["benchmarks"]:
        if not any(benchmark in each["benchmarks"] for each in study["suites"].values()):
            del study["benchmarks"][benchmark]
    return name


@kind
def rename_suite(study, folder, rng):
    old, new = rng.choice(list(study["suites"])), new_name(rng, study["suites"])
    study["suites"] = renamed(study["suites"], old, new)
    return f"{old} -> {new}"


@kind
def select(study, folder, rng):
    if study.pop("select", None):
        return "all"
    choices = {"models": list(study["models"]), "recipes": study["blocks"]["single"]["recipes"], "datasets": sources(study)}
    key = rng.choice(list(choices))
    study["select"] = {key: [rng.choice(choices[key])]}
    return str(study["select"])


@kind
def keep_weights(study, folder, rng):
    study["keep_weights"] = rng.choice([value for value in ("none", "final", "all") if value != study["keep_weights"]])
    return study["keep_weights"]


@kind
def study_seed(study, folder, rng):
    study["seed"] = study.get("seed", 0) + 1
    return str(study["seed"])


@kind
def measurements(study, folder, rng):
    section, key, values = rng.choice([
        ("perplexity", "max_length", (128, 256)), ("perplexity", "batch_size", (8, 16)), ("perplexity", "rows", (6, 8)),
        ("representation", "items_per_benchmark", (6, 8)), ("representation", "batch_size", (4, 8)), ("layers", "ranks", (True, False)),
        ("similarity", "rows", (10, 20)), ("similarity", "text", ("full", "instruction")),
    ])  # fmt: skip
    part = study["measure"].setdefault(section, {})
    part[key] = rng.choice([value for value in values if value != part.get(key)])
    return f"{section}.{key} = {part[key]}"


@kind
def delete_a_result(study, folder, rng):
    found = sorted(
        (folder / "results/tiny").rglob(
            rng.choice(["scores/*.parquet", "train.json", "train.parquet", "overlap.parquet", "likelihood.parquet"])
        )
    )
    if not found:
        return None
    path = rng.choice(found)
    path.unlink()
    return str(path.relative_to(folder))


def make_edits(study: dict, folder: Path, rng: random.Random) -> list[str]:
    """One to three edits of different kinds; what they did."""
    chosen, done = rng.sample(list(KINDS), len(KINDS)), []
    for name in chosen:
        if (what := KINDS[name](study, folder, rng)) is not None:
            done.append(f"{name}: {what}")
        if len(done) == rng.choice([1, 2, 3, 3]):
            break
        if len(done) == 3:
            break
    return done
