"""An edited module rebuilds the results of the jobs that use it, and no others.

The jobs that use a module come from syntax trees (`helpers.imports`), the files that depend on theirs from a listing of all jobs; neither
asks `sft_atlas.core.sources`. Every output is an empty file of the same age, so nothing has to be run. `SFT_ATLAS_EVERY_MODULE=1` edits
each module in turn, with a dry run of five seconds for each; otherwise three stand for all.
"""

import os
import re
from dataclasses import dataclass

import pytest

from helpers.folders import ROOT, fresh, small_demo
from helpers.imports import MODULES, imported_by, reached, with_helpers
from sft_atlas.core.files import write_json
from sft_atlas.study import study as studies

TARGETS = ("all", "cards", "rescore", "contamination", "correctness", "published", "release", "advise", "design", "reproduce")
MORE = {"advise": {"model": "llama-strings"}, "design": {"question": "sets", "effect": 5, "budget": 10}}
# Jobs whose results are expensive, or decide those of expensive jobs: an edit of their code rebuilds nothing.
NOT_REBUILT = {
    *("pretrain_demo_model", "fetch_model", "fetch_dataset", "fetch_benchmark", "fetch_published"),
    *("prepare_dataset", "prepare_suite", "merge_datasets", "check_overlap", "resolve_study"),
    *("train", "evaluate", "measure_layers", "measure_perplexity", "measure_representation"),
}
OLD = 1_500_000_000
EVERY = sorted(name for name, path in MODULES.items() if path.stat().st_size)
SOME = ["sft_atlas.stats.permanova", "sft_atlas.models.tokenization", "sft_atlas.report.figures.gains"]


@dataclass(frozen=True)
class Job:
    """A job as a dry run prints it."""

    rule: str
    inputs: frozenset
    outputs: frozenset
    figure: str | None


def jobs(printed: str) -> set[Job]:
    every = set()
    for rule, body in re.findall(r"^(?:local)?rule (\S+):\n((?:    .*\n)+)", printed, re.M):
        parts = dict(re.findall(r"^    (input|output|wildcards): (.*)$", body, re.M))
        inputs, outputs = (frozenset(parts[name].split(", ")) if name in parts else frozenset() for name in ("input", "output"))
        figure = re.search(r"\bfigure=(\w+)", parts.get("wildcards", ""))
        every.add(Job(rule, inputs, outputs, figure and figure[1]))
    return every


def modules_of(job: Job) -> set[str]:
    """Modules whose edit must rebuild a job: those that its own reaches, and those that it finds by a computed name."""
    rule = "train" if job.rule.startswith("train_") else job.rule
    if rule in NOT_REBUILT or not job.outputs:
        return set()
    start = [name for name in MODULES if name.endswith(f".{rule}")]
    if rule == "plot":
        start.append(f"sft_atlas.report.figures.{job.figure}")
    if rule == "rescore_samples":
        start += [name for name in MODULES if name.startswith("sft_atlas.evaluate.metrics.")]
    if rule == "check_invariants":
        tests = with_helpers(*(ROOT / "tests/invariants").glob("*.py"), ROOT / "tests/conftest.py")
        start += ["sft_atlas.train.train", *(name for path in tests for name in imported_by(path))]
    return reached(*start) & set(EVERY)


def file_of(module: str) -> str:
    return str(MODULES[module].relative_to(ROOT))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The small study with an empty file for every output of every target, and all its jobs."""
    folder = fresh(tmp_path_factory.mktemp("built"), small_demo() | MORE)
    folder.result("tables").mkdir(parents=True)
    folder.result("tables/gains.parquet").touch()  # an advice learns from it
    for _ in range(2):  # an advice also learns from published scores, where they are on disk
        every = jobs(folder.run("--dry-run", "--forceall", *TARGETS))
        for path in (folder.path / name for job in every for name in job.outputs):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(exist_ok=True) if path.name == "weights" else path.touch()
        write_json(folder.result("study.json"), studies.from_config(folder.study, "study.yaml").resolved())  # which each call reads
    for path in folder.path.rglob("*"):
        os.utime(path, (OLD, OLD))
    return folder, every


def edited(folder, *modules: str) -> set[Job]:
    """The jobs of a dry run after an edit of modules."""
    for module in modules:
        os.utime(folder.path / file_of(module))
    printed = folder.run("--dry-run", *TARGETS)
    for module in modules:
        os.utime(folder.path / file_of(module), (OLD, OLD))
    return jobs(printed)


def test_nothing_is_rebuilt_without_an_edit(built):
    folder, _ = built
    assert not edited(folder)


def test_each_job_has_exactly_the_modules_that_it_uses(built):
    _, every = built
    package = {file_of(module): module for module in EVERY}
    for job in every:
        listed = {package[path] for path in job.inputs & set(package)}
        assert listed == modules_of(job), f"{job.rule}: {sorted(listed ^ modules_of(job))}"
    assert {name for name in EVERY if name.startswith("sft_atlas.stats.")} <= set().union(*map(modules_of, every))


@pytest.mark.parametrize("module", EVERY if os.environ.get("SFT_ATLAS_EVERY_MODULE") else SOME)
def test_an_edit_rebuilds_what_uses_the_module_and_what_follows(built, module):
    folder, every = built
    expected = {job for job in every if module in modules_of(job)}
    while more := {job for job in every if job.inputs & {name for one in expected for name in one.outputs}} - expected:
        expected |= more
    assert edited(folder, module) == expected
