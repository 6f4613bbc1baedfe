"""What the task files of a study's benchmarks ask for, checked before any job runs."""

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path

import yaml

from sft_atlas.study.schema import StudyFile

JUDGED = ("mt_bench", "alpaca_eval")  # `metadata: {judged: ...}` of a task file: what a judge has to do


FORMER_METRICS = re.compile(r"!function\s+(sft_atlas\.scoring(\.\S+))")  # a former name of the package


class _Loader(yaml.SafeLoader):
    """Plain YAML in which a function of lm-eval's `!function` is its name."""


_Loader.add_constructor("!function", lambda loader, node: node.value)


@functools.cache
def task_file(path: str) -> dict[str, object]:
    """The keys of an lm-eval task file, those of the files that it includes too; functions by name."""
    own, included = _read(path)
    merged: dict[str, object] = {}
    for other in included:
        merged |= task_file(other)
    return merged | own


def task_sources(path: str) -> list[str]:
    """A task file and every file that it includes, itself first."""
    return [path, *(source for other in _read(path)[1] for source in task_sources(other))]


@functools.cache
def _read(path: str) -> tuple[dict[str, object], list[str]]:
    """(the keys of one file, the files that it includes)."""
    config = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader) or {}
    included = config.pop("include", [])
    names = included if isinstance(included, list) else [included]
    return config, [os.path.normpath(os.path.join(os.path.dirname(path), name)) for name in names]


def judged(path: str) -> str | None:
    """How a task's answers are judged; None where they are compared with right answers."""
    return (task_file(path).get("metadata") or {}).get("judged")


def absent_files(file: StudyFile, path: Callable[[str], str]) -> list[str]:
    """Local files and folders that a study names and that are not there; ``path`` resolves a `path` of the study file."""
    found = []
    for part in ("models", "datasets", "benchmarks"):
        for name, entry in getattr(file, part).items():
            if entry.path and not os.path.exists(path(entry.path)):
                where = "relative to data_root" if file.data_root else "relative to the current directory"
                found.append(f"{part}.{name}.path: there is no {path(entry.path)}; correct the path ({where}) or put it there")
    encoder = file.measure.similarity.encoder
    if encoder and encoder.path and not os.path.exists(path(encoder.path)):
        found.append(f"measure.similarity.encoder.path: there is no {path(encoder.path)}; correct the path or put it there")
    for name, entry in file.benchmarks.items():
        if entry.shots and entry.shots.path and not os.path.exists(path(entry.shots.path)):
            found.append(f"benchmarks.{name}.shots.path: there is no {path(entry.shots.path)}; correct the path or put it there")
        if not os.path.exists(entry.task):
            found.append(
                f"benchmarks.{name}.task: there is no {entry.task}; name an lm-eval task file, such as config/benchmarks/generate.yaml"
            )
    return found


def former_names(path: str) -> list[str]:
    """Scoring functions that a task file names as they were called before."""
    texts = ((source, Path(source).read_text(encoding="utf-8")) for source in task_sources(path))
    return [
        f"{source}: {name} was renamed; write `!function sft_atlas.evaluate.metrics{function}`"
        for source, text in texts
        for name, function in FORMER_METRICS.findall(text)
    ]


def problems(file: StudyFile) -> list[str]:
    """What is wrong with a study's suites: code that may not run, judged tasks without a judge, a judge that is not there."""
    found = []
    for name, suite in file.suites.items():
        kinds = {}
        for benchmark in suite.benchmarks:
            entry = file.benchmarks[benchmark]
            try:
                config, kinds[benchmark] = task_file(entry.task), judged(entry.task)
            except (OSError, yaml.YAMLError, AttributeError) as error:
                found.append(f"benchmarks.{benchmark}.task: {entry.task} is no lm-eval task file: {' '.join(str(error).split())}")
                continue
            found += former_names(entry.task)
            if config.get("unsafe_code") and not file.allow_code_execution:
                found.append(
                    f"allow_code_execution: {benchmark} runs code that models write; set it to true to have that run in the sandbox, or leave {benchmark} out"
                )
            if kinds[benchmark] is not None and kinds[benchmark] not in JUDGED:
                found.append(f"{entry.task}: metadata.judged must be one of {', '.join(JUDGED)}, not {kinds[benchmark]!r}")
        wrong = [benchmark for benchmark, kind in kinds.items() if (kind is not None) != (suite.judge is not None)]
        if wrong and suite.judge:
            found.append(f"suites.{name}.benchmarks: {wrong[0]!r} needs no judge; put it into a suite without one")
        elif wrong:
            found.append(f"suites.{name}: {wrong[0]!r} is judged; give the suite a `judge`, and let it hold judged benchmarks only")
        if suite.judge and not suite.judge.url and suite.judge.model not in file.models:
            found.append(
                f"suites.{name}.judge.model: without `url` it must be one of the models ({', '.join(file.models)}), not {suite.judge.model!r}"
            )
        if suite.judge and suite.backend != "hf":
            found.append(f"suites.{name}.backend: judged answers are generated with hf; leave it out")
    return found
