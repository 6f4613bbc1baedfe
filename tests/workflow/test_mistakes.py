"""Mistakes that users make: one clear message before any job, no traceback, a failing exit code."""

import json
import platform
import re
import sys

import pytest

from helpers import lesser_kernel
from helpers.lesser_kernel import PRCTL


def spoil(study, path, value):
    *parents, last = path
    for key in parents:
        study = study[key]
    study[last] = value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            ("recipes", "full", "learning_rte"),
            1e-4,
            ["study.yaml", "recipes.full.learning_rte", "unknown key", "did you mean 'learning_rate'"],
        ),
        (("recipes", "full", "learning_rate"), "fast", ["study.yaml", "recipes.full.learning_rate", "number", "'fast'"]),
        (("blocks", "single", "recipes"), ["ful"], ["study.yaml", "blocks.single.recipes[0]", "'ful'", "did you mean 'full'"]),
        (("blocks", "single", "models"), ["llama"], ["study.yaml", "blocks.single.models[0]", "llama-strings"]),
        (
            ("blocks", "scores"),
            {"models": "*", "datasets": ["spelling"], "recipes": ["full"]},
            ["study.yaml", "blocks.scores", "the name is a rule or target of the workflow", "choose another"],
        ),
        (("suites", "tasks", "benchmarks"), ["summs"], ["study.yaml", "suites.tasks.benchmarks[0]", "did you mean 'sums'"]),
        (
            ("blocks", "again"),
            {"models": "*", "datasets": ["spelling"], "recipes": ["full"], "set": {"seed": 1}},
            ["study.yaml", "blocks.again", "blocks.single", "differently", "seed (0 and 1)", "recipe of its own"],
        ),
    ],
)
def test_a_wrong_study_file(empty, path, value, words):
    spoil(empty.study, path, value)
    empty.write(empty.study)
    printed = empty.run("-n", ok=False)
    assert all(word in printed for word in words), printed
    assert re.search(rf"^study\.yaml:\d+:\d+: {re.escape(words[1])}", printed, re.MULTILINE), printed
    assert "Traceback" not in printed and 'File "' not in printed
    assert not (empty.path / "results").exists()


def test_a_key_that_stands_twice(empty):
    with open(empty.path / "study.yaml", "a") as handle:
        handle.write("\nseed: 3\nseed: 4\n")
    printed = empty.run("plan", "--quiet", "all", ok=False)  # as `make plan` calls it
    assert re.search(r"study\.yaml:\d+:1: key 'seed' is repeated", printed) and "Traceback" not in printed and 'File "' not in printed


def test_what_snakemake_reads_before_the_workflow_is_refused_with_its_place(empty):
    empty.write(empty.study)
    (empty.path / "open.yaml").write_text("recipes:\n  full: {rows: 3\n")
    calls = [
        (["--lint"], ["open.yaml"], r"open\.yaml:3:1: not valid YAML"),
        (["plan"], ["absent.yaml"], r"absent\.yaml: there is no such file"),
    ]
    for arguments, files, words in calls:
        printed = empty.run(*arguments, "--configfile", "study.yaml", *files, ok=False)
        assert re.search(f"^{words}", printed, re.MULTILINE) and "Traceback" not in printed and 'File "' not in printed


def test_advice_without_anything_to_learn_from_ends_in_one_line(empty):
    printed = empty.run("-n", "advise", "--config", "advise={model: llama-strings, datasets: [spelling]}", ok=False)
    assert (
        "\nthere is nothing to learn from: this study has no gains yet" in printed
        and "Traceback" not in printed
        and 'File "' not in printed
    )


def test_a_data_file_that_is_not_there(empty):
    empty.study["datasets"]["mine"] = {"path": "my/absent.jsonl"}
    empty.write(empty.study)
    printed = empty.run("-n", ok=False)
    assert "my/absent.jsonl" in printed and "datasets.mine.path" in printed and "Traceback" not in printed


def test_a_training_set_that_is_a_benchmark_is_a_warning_of_the_dry_run(empty):
    (empty.path / "my").mkdir()
    (empty.path / "my/items.jsonl").write_text('{"instruction": "a", "response": "b"}\n')
    empty.study["datasets"]["mine"] = {"path": "my/items.jsonl", "allow_fewer": True}
    empty.study["benchmarks"]["quiz"] = {"path": "my/items.jsonl", "task": "config/benchmarks/generate.yaml"}
    empty.study["suites"]["tasks"]["benchmarks"].append("quiz")
    empty.write(empty.study)
    assert re.search(r"study\.yaml:\d+:3: datasets\.mine and benchmarks\.quiz read the same file \(my/items\.jsonl\)", empty.run("-n"))
    empty.study["benchmarks"]["quiz"]["task"] = "config/benchmarks/boolq.yaml"
    empty.write(empty.study)
    printed = empty.run("-n", ok=False)
    assert re.search(r"study\.yaml:\d+:5: config/benchmarks/boolq\.yaml:\d+:1: doc_to_text: .*'passage' is undefined", printed)
    assert "Traceback" not in printed


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in PRCTL, reason="another kernel is simulated with seccomp filters")
def test_code_is_refused_before_any_job_where_its_sandbox_would_lack_a_wall(empty):
    item = {"prompt": "def f(x):\n", "test": "def check(f): assert f(1) == 2", "entry_point": "f", "canonical_solution": "    return 2\n"}
    (empty.path / "my").mkdir()
    (empty.path / "my/code.jsonl").write_text("".join(json.dumps(item | {"prompt": f"# {i}\ndef f(x):\n"}) + "\n" for i in range(3)))
    columns = {"instruction": "prompt", "response": "canonical_solution"}
    empty.study["benchmarks"]["code"] = {"path": "my/code.jsonl", "task": "config/benchmarks/humaneval.yaml", "columns": columns}
    empty.study["suites"]["code"] = {"benchmarks": ["code"], "max_length": 256, "max_new_tokens": 16}
    empty.study["allow_code_execution"] = True
    empty.write(empty.study)
    empty.starter = (sys.executable, lesser_kernel.__file__, "namespaces")
    printed = empty.run("-n", "scores")
    assert "suites.code: its jobs are refused on this machine, whose sandbox for code lacks namespaces" in printed
    printed = empty.run("scores", ok=False)
    assert "lacks what the sandbox for code written by models needs: namespaces" in printed and "`sandbox: best_effort`" in printed
    assert "Traceback" not in printed and not empty.result("models").exists() and not empty.result("data").exists()
    empty.study["sandbox"] = "best_effort"
    empty.write(empty.study)
    assert empty.run("-n", "-p", "scores").count("runs with `sandbox: best_effort` on") == 1


def test_a_failing_job_says_why_and_the_others_go_on(empty):
    (empty.path / "my").mkdir()
    (empty.path / "my/few.jsonl").write_text('{"instruction": "a", "response": "b"}\n')
    empty.study["datasets"]["few"] = {"path": "my/few.jsonl"}
    empty.write(empty.study)
    printed = empty.run(*(f"results/small/data/{name}/24/train.parquet" for name in ("few", "spelling")), ok=False)
    assert "datasets.few: 24 rows are needed, 1 are left after cleaning" in printed and "allow_fewer" in printed
    assert "Traceback" not in printed
    assert empty.result("data/spelling/24/train.parquet").exists()


def test_another_directory_is_refused_in_one_line(empty, tmp_path):
    empty.write(empty.study)
    printed = empty.run("-n", "--directory", str(tmp_path), ok=False)
    assert f"start Snakemake in the folder of this Snakefile, without --directory: cd {empty.path}" in printed
    assert "Traceback" not in printed and "File " not in printed
