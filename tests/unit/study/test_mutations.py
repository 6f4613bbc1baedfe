"""Study files with random faults end in an accepted study or in messages of one line: no traceback, no hang, no command that runs.

`SFT_ATLAS_MUTATIONS=600 pytest tests/unit/study/test_mutations.py` is for a night; `SFT_ATLAS_MUTATIONS_SEED` gives other ones.
"""

import copy
import os
import random
import signal
import subprocess
import types

import pytest
import yaml

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.data import first_items, procedural
from sft_atlas.data.inputs import DataInputs
from sft_atlas.evaluate.inputs import EvaluateInputs
from sft_atlas.measure.inputs import MeasureInputs
from sft_atlas.study import study as studies
from sft_atlas.study.paths import Paths
from sft_atlas.tables.inputs import TableInputs

COUNT = int(os.environ.get("SFT_ATLAS_MUTATIONS", 40))
SEED = int(os.environ.get("SFT_ATLAS_MUTATIONS_SEED", 0))
LIMIT = 5  # seconds for one file

TEXTS = [
    "$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "a; touch pwned", "a\ntouch pwned\n", "a & touch pwned &", "{wildcards.model}",
    "{", "a b", "Ünï 模型 🙂", "", " ", "*", "-", "--output", "~", "/dev/null", "/dev/zero", "../../etc", "\ud800", "\x00", "\x1b[2J", "x" * 100_000, "null", "# no",
]  # fmt: skip
OTHERS = [
    None, True, 0, -1, 1, 10**6, 10**9, 2**64, 10**400, 0.5, -0.0, 1e5, 1e-30, float("inf"), float("nan"), [], {}, [[]], [None], {"a": None}, {1: 2}, {None: 1},
    ["a", "a"], [1, 2, 3], {"$(touch pwned)": 1}, "*", "chat", "all",
]  # fmt: skip
BYTES = [
    b"\xff\xfe",
    b"\x00",
    b"\t",
    b"{",
    b"]",
    b"&a [*a]",
    b"!!int x",
    b"!!python/object/apply:os.system ['touch pwned']",
    b"2024-13-45",
    b"9" * 5000,
]


def whole_study() -> dict:
    """The demo with the parts that it does not use: examples, a judge, an encoder, held-out rows, overrides."""
    study = yaml.safe_load((ROOT / "config/demo.yaml").read_text(encoding="utf-8"))
    study["benchmarks"]["sums"]["shots"] = {"count": 2, "by": "task"}
    study["benchmarks"]["mine"] = {
        "path": "items.jsonl",
        "task": "config/benchmarks/generate.yaml",
        "columns": {"instruction": "instruction"},
    }
    study["suites"]["mine"] = {"benchmarks": ["mine"]}
    study["datasets"]["mine"] = {"path": "rows.jsonl", "holdout": 0.1, "allow_fewer": True, "label": "Mine", "drop_responses": ["none"]}
    study["recipes"]["lora"]["lora"] = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}
    study["recipes"]["lora"]["grid"] = {"learning_rate": [1e-3, 1e-4], "batch_size": [8, 16]}
    study["overrides"] = [{"models": ["gemma3-logic"], "set": {"warmup_ratio": 0.1}}]
    study["measure"]["similarity"] = {"encoder": {"path": "rows.jsonl", "pooling": "mean"}}
    study["template"] = {"prompt": "###Question: {instruction}\n###Answer:", "response": " {response}"}
    study["release"] = {"namespace": "me"}
    return study


def places(value, path=()):
    """Every path in nested keys and lists."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(rng: random.Random) -> bytes:
    """A study file with one to three faults."""
    study = copy.deepcopy(whole_study())
    kind = rng.choice(["value"] * 6 + ["key", "delete", "move", "bytes", "cut", "lines", "shape"])
    for _ in range(rng.randint(1, 3)):
        *parents, last = rng.choice([path for path in places(study) if path])
        part = study
        for key in parents:
            part = part[key]
        if kind == "value":
            part[last] = copy.deepcopy(rng.choice(rng.choice([TEXTS, OTHERS])))
        elif kind == "key" and isinstance(part, dict):
            part[rng.choice([*TEXTS, 1, None, True, 2.5])] = part.pop(last)
        elif kind == "delete":
            del part[last]
        elif kind == "move":
            part[last] = copy.deepcopy(study[rng.choice(list(study))])
    text = yaml.dump(study, sort_keys=False, allow_unicode=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    at = rng.randrange(len(text))
    if kind == "bytes":
        return text[:at] + rng.choice(BYTES) + text[at + rng.choice([0, 1, 5]) :]
    if kind == "cut":
        return text[:at]
    if kind == "lines":
        lines = text.split(b"\n")
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[i], lines[j] = lines[j], lines[i]
        return b"\n".join(lines)
    if kind == "shape":
        laughs = b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 12))
        grid = b"recipes: {a: {grid: {seed: [%s], rows: [%s]}}}\n" % ((b", ".join(b"%d" % i for i in range(1500)),) * 2)
        key = rng.choice([b"datasets: ", b"models: ", b"study: "])
        return rng.choice(
            [
                key + b"[" * 3000,
                key + b"{a: " * 3000,
                laughs + key + b"*a11",
                b"x: &x {y: *x}\n",
                grid,
                b"",
                b"word",
                b"- a",
                b"--- a\n--- b",
            ]
        )
    return text


def call(path) -> str:
    """What reading a study file says before any job; the options of accepted ones go through a shell."""
    try:
        study = studies.load(path)
        study.check_paths()
        lines = [*procedural.problems(study.file), *first_items.problems(study)]
        study.warnings()
    except AtlasError as error:
        assert all(line and line.isprintable() for line in str(error).split("\n")), ascii(str(error))
        return str(error)
    if not lines:
        subprocess.run(["bash", "-c", f"true {' '.join(options(study))}"], check=True)
    return "\n".join(lines)


def options(study) -> list[str]:
    """Everything that goes into command lines without Snakemake's quotes."""
    paths = Paths("results/x")
    evaluate, measure = EvaluateInputs(study, paths), MeasureInputs(study, paths)
    DataInputs(study, paths).local_files(), TableInputs(study, paths).plan_json(None)
    made = []
    for suite in study.file.suites:
        wildcards = types.SimpleNamespace(suite=suite, place="tables", dataset=study.sources[0])
        made += [evaluate.benchmark_options(wildcards), evaluate.settings(wildcards)]
    return [*made, measure.items_options(wildcards), measure.representation(wildcards), measure.similarity_options(wildcards)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").symlink_to(ROOT / "config")
    for name in ("rows", "items"):
        (tmp_path / f"{name}.jsonl").write_text('{"instruction": "a", "response": "b"}\n' * 3)
    return tmp_path


def test_mutated_study_files_end_in_messages(folder):
    rng = random.Random(SEED)
    (folder / "study.yaml").write_text(yaml.safe_dump(whole_study()))
    assert call(folder / "study.yaml") == "", "the study without faults is accepted"

    def too_long(*_):
        raise TimeoutError(f"over {LIMIT} s")

    monitor = signal.signal(signal.SIGALRM, too_long)
    accepted, failed = 0, []
    try:
        for i in range(COUNT):
            text = mutated(rng)
            (folder / "study.yaml").write_bytes(text)
            signal.setitimer(signal.ITIMER_REAL, LIMIT)
            try:
                accepted += not call(folder / "study.yaml")
            except Exception as error:  # noqa: BLE001  anything but a message is a finding
                failed.append((i, f"{type(error).__name__}: {str(error)[:300]}", text if len(text) < 200 else b""))
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, monitor)
    print(f"{COUNT} files, {accepted} accepted, {COUNT - accepted - len(failed)} refused with a message, {len(failed)} otherwise")
    assert not failed
    assert sorted(path.name for path in folder.iterdir()) == ["config", "items.jsonl", "rows.jsonl", "study.yaml"], "no command has run"
