"""Score the stored answers of one checkpoint and suite again, without a model; replaces scores and samples."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table, write_table
from sft_atlas.core.log import LOG
from sft_atlas.evaluate.scores import SCORED_BY
from sft_atlas.evaluate.scoring_job import LOADED, add_suite, sandbox_facts, with_keys, write_results
from sft_atlas.evaluate.tasks import ITEM, MISSING, PART_OF, BenchmarkFiles, SuiteFile, task_configs
from sft_atlas.models.arguments import CHECKPOINT

FROM_GENERATION = ("prompt", "truncated", "shots")  # columns of samples that scoring does not change


def main(args: argparse.Namespace) -> None:
    """Replace scores and samples, and write a table of the scores before and after."""
    import polars as pl

    sandboxed = sandbox_facts(args)
    suite, keys = SuiteFile.read(args.suite), (*CHECKPOINT, "suite")
    old_samples, old_scores = (read_table(path).drop(keys) for path in (args.samples, args.scores))
    record = read_json(args.scores.with_suffix(".json"))
    scores, samples, changes = rescore(old_samples, old_scores, suite.benchmarks, args.seed, args.allow_code_execution)
    args.output_scores, args.output_samples = args.scores, args.samples
    facts = ("settings", "inputs", "versions", "code", "weights", "dtype", *LOADED)
    generated = record.get("generated") or {name: record.get(name) for name in facts}
    scored_by = {name: record.get(name) for name in SCORED_BY}
    same = {**scored_by, "template_sha256": record.get("template_sha256")}
    write_results(args, scores, samples, generated=generated, **same, **sandboxed)
    for row in changes.filter(pl.col("items_changed") > 0).iter_rows(named=True):
        place = f"{args.model}/{suite.name}: {row['benchmark']}"
        LOG.warning("%s %.4f -> %.4f, %d items changed", place, row["score_before"], row["score"], row["items_changed"])
    write_table(args.output, with_keys(args, changes))


def rescore(samples, scores, benchmarks: list[BenchmarkFiles], seed: int, allow_code: bool):
    """(scores, samples, changes) from the stored answers; ``changes`` has one row per benchmark: score before and now, items changed.

    Raises AtlasError where the items on disk are not those of the samples.
    """
    import polars as pl

    from sft_atlas.evaluate.lm_eval_runner import run
    from sft_atlas.study.result_files import without_subtasks

    # The prompts are those of the samples: the template was checked when the model answered.
    configs = []
    for file in benchmarks:
        unanswered = samples.filter(pl.col("output").is_null(), benchmark=file.name).select("item", "missing").iter_rows()
        plain = replace(file, shots=None, by=None, max_new_tokens=None)
        configs += task_configs(plain, None, left_out=dict(unanswered))
    for benchmark in benchmarks:
        parts = [config for config in configs if config[PART_OF] == benchmark.name]
        count = sum(len(config["custom_dataset"]()["test"]) + len(config[MISSING]) for config in parts)
        stored = samples.filter(benchmark=benchmark.name).height
        if count != stored:
            raise AtlasError(f"{benchmark.items} has {count} items, its samples {stored}: the items changed; score the checkpoint again")
    keys = ["benchmark", "item"]
    known = {(row["benchmark"], row["item"]): {name: row[name] for name in FROM_GENERATION} for row in samples.iter_rows(named=True)}
    scored_by = {name: scores[name][0] for name in SCORED_BY if name in scores.columns}
    new_scores, new_samples = run(stored_answers(samples, benchmark_of(benchmarks)), configs, seed, allow_code, scored_by, known)
    both = samples.select(*keys, before="score").join(new_samples.select(*keys, "score"), on=keys)
    changed = both.group_by("benchmark").agg((pl.col("before") != pl.col("score")).sum().alias("items_changed"))
    changes = without_subtasks(scores).select("benchmark", "metric", "n", "backend", score_before="score")
    for table in (without_subtasks(new_scores).select("benchmark", "score"), changed):
        changes = changes.join(table, on="benchmark", maintain_order="left")
    return new_scores, new_samples, changes


def benchmark_of(benchmarks: list[BenchmarkFiles]) -> dict[str, str]:
    """Task of lm-eval -> the benchmark that it is, or is a part of."""
    return {part.name: benchmark.name for benchmark in benchmarks for part in benchmark.parts()}


def stored_answers(samples, benchmarks: Mapping[str, str] | None = None):
    """An lm-eval model that gives the answers of a samples table, so that lm-eval scores them as it scored the model's.

    ``benchmarks``: see :func:`benchmark_of`; default: a task is a benchmark.
    """
    from lm_eval.api.model import LM

    class StoredAnswers(LM):
        def __init__(self):
            super().__init__()
            self.outputs = {(name, item): output for name, item, output in samples.select("benchmark", "item", "output").iter_rows()}

        def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
            return [self.outputs[self.key(request)] for request in requests]

        def key(self, request) -> tuple[str, int]:
            return (benchmarks or {}).get(request.task_name, request.task_name), request.doc[ITEM]

        def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            stored = {key: json.loads(self.outputs[key]) for key in set(map(self.key, requests))}
            return [_likelihood(stored[self.key(request)], *request.args[:2]) for request in requests]

        def loglikelihood_rolling(self, requests, disable_tqdm: bool = False):
            raise AtlasError("this kind of task is not stored item by item; score the checkpoint again")

    return StoredAnswers()


def _likelihood(stored: dict[str, float | list], context: str, answer: str) -> tuple[float, bool]:
    """(log-likelihood, whether greedy decoding gives the answer), as `lm_eval_runner` stored them: by answer or by context."""
    value = stored[answer if answer in stored else context]
    return (value[0], value[1]) if isinstance(value, list) else (value, False)


def add_options(p: argparse.ArgumentParser) -> None:
    add_suite(p)
    p.add_argument("--scores", type=Path, required=True, help="Parquet, replaced")
    p.add_argument("--samples", type=Path, required=True, help="Parquet, replaced")
    p.add_argument("--output", type=Path, required=True, help="Parquet: each score before and now")
