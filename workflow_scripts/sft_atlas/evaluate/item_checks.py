"""A benchmark's items against its task file before anything is trained: every item rendered, the first ones scored with a made-up answer."""

import importlib
from collections.abc import Callable
from dataclasses import replace

from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate.tasks import ITEM, BenchmarkFiles, example_rows, load_task, metric_name, processed_items
from sft_atlas.study.rendering import TaskRenderer
from sft_atlas.study.task_checks import functions
from sft_atlas.study.task_files import Function, judged, task_file

SCORED = 3  # items that are scored
OURS = "sft_atlas."  # modules whose functions are loaded without lm-eval, which takes seconds


def check_items(benchmark: BenchmarkFiles) -> None:
    """Raise AtlasError where lm-eval could not ask an item of the benchmark, show an example, or score an answer.

    lm-eval is loaded only for a task with functions that are not ours. No generated code runs here.
    """
    for part in benchmark.parts():
        _check_items(part)


def _check_items(benchmark: BenchmarkFiles) -> None:
    keys = {key: value for key, value in task_file(str(benchmark.task)).items() if value is not None}
    if benchmark.lm_eval or any(not name.startswith(OURS) for _, name in functions(keys)):
        keys = load_task(benchmark.task, None, benchmark.lm_eval)
    renderer = TaskRenderer(keys, benchmark.task)
    items = _rows(benchmark, keys)
    for row in items:
        renderer.check(row)
        renderer.fill((keys.get("metadata") or {}).get("cluster", ""), row, "metadata.cluster")
    if benchmark.shots:
        shown = TaskRenderer(keys | {key: value for key, value in (keys.get("fewshot_config") or {}).items() if value}, benchmark.task)
        for row in example_rows(keys, benchmark) if benchmark.lm_eval else _rows(replace(benchmark, items=benchmark.shots), keys):
            shown.check(row)
    results = keys.get("process_results")
    if results and not keys.get("unsafe_code") and not judged(str(benchmark.task)):
        function = _load(results) if isinstance(results, Function) else results
        for row in items[:SCORED]:
            _score(function, row, renderer, metric_name(keys))


def _rows(benchmark: BenchmarkFiles, keys: dict) -> list[dict]:
    rows = benchmark.rows()
    return processed_items(rows, keys["process_docs"], benchmark.task) if rows and keys.get("process_docs") else rows


def _load(function: Function) -> Callable:
    module, _, name = function.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _score(function: Callable, row: dict, renderer: TaskRenderer, metric: str) -> None:
    """AtlasError where `process_results` fails on an item, or gives no number as the benchmark's metric."""
    likelihoods = [(-1.0, True)] * len(renderer.options(row) if renderer.kind == "multiple_choice" else [0])
    results = [str(row.get("answer", ""))] if renderer.kind == "generate_until" else likelihoods
    try:
        scores = function(row, results)
        float(scores[metric])
    except Exception as error:  # noqa: BLE001 (a function of the task's author may raise anything)
        fields = ", ".join(key for key in row if key != ITEM)
        raise AtlasError(
            f"{renderer.where}: process_results gives item {row[ITEM]} no {metric!r}: {type(error).__name__}: {error}; "
            f"the item has {fields}; see `columns`, and put the metric of the score first in metric_list"
        ) from None
