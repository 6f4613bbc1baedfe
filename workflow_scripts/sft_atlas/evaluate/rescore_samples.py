"""Score the stored answers of one checkpoint and suite again, without a model; replaces scores and samples."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table, write_table
from sft_atlas.core.log import LOG
from sft_atlas.evaluate.scoring_job import LOADED, add_suite, with_keys, write_results
from sft_atlas.evaluate.tasks import ITEM, MISSING, BenchmarkFiles, SuiteFile, task_config
from sft_atlas.models.arguments import CHECKPOINT

FROM_GENERATION = ("prompt", "truncated", "shots")  # columns of samples that scoring does not change
COUNTS_FROM_GENERATION = ("n_truncated", "shots", "n_fewer_shots")  # likewise of scores


def main(args: argparse.Namespace) -> None:
    """Replace scores and samples, and write a table of the scores before and after."""
    import polars as pl

    suite, keys = SuiteFile.read(args.suite), (*CHECKPOINT, "suite")
    old_samples, old_scores = (read_table(path).drop(keys) for path in (args.samples, args.scores))
    record = read_json(args.scores.with_suffix(".json"))
    scores, samples, changes = rescore(old_samples, old_scores, suite.benchmarks, args.seed, args.allow_code_execution)
    args.output_scores, args.output_samples = args.scores, args.samples
    facts = ("settings", "inputs", "versions", "code", "weights", *LOADED)
    generated = record.get("generated") or {name: record.get(name) for name in facts}
    write_results(args, scores, samples, generated=generated, backend=record["backend"], template_sha256=record.get("template_sha256"))
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

    # The prompts are those of the samples: the template was checked when the model answered.
    configs = []
    for file in benchmarks:
        unanswered = samples.filter(pl.col("output").is_null(), benchmark=file.name).select("item", "missing").iter_rows()
        configs.append(task_config(BenchmarkFiles(file.name, file.task, file.items), None, left_out=dict(unanswered)))
    for benchmark, config in zip(benchmarks, configs, strict=True):
        count, stored = len(config["custom_dataset"]()["test"]) + len(config[MISSING]), samples.filter(benchmark=benchmark.name).height
        if count != stored:
            raise AtlasError(f"{benchmark.items} has {count} items, its samples {stored}: the items changed; score the checkpoint again")
    new_scores, new_samples = run(stored_answers(samples), configs, seed, allow_code, scores["backend"][0])
    keys = ["benchmark", "item"]
    new_samples = _with_columns_of(new_samples, samples, keys, FROM_GENERATION)
    new_scores = _with_columns_of(new_scores, scores, ["benchmark"], COUNTS_FROM_GENERATION)
    both = samples.select(*keys, before="score").join(new_samples.select(*keys, "score"), on=keys)
    changed = both.group_by("benchmark").agg((pl.col("before") != pl.col("score")).sum().alias("items_changed"))
    changes = scores.select("benchmark", "metric", "n", "backend", score_before="score")
    for table in (new_scores.select("benchmark", "score"), changed):
        changes = changes.join(table, on="benchmark", maintain_order="left")
    return new_scores, new_samples, changes


def _with_columns_of(new, old, keys: list[str], columns: tuple[str, ...]):
    """``new`` with the values of ``old`` in some columns."""
    return new.drop(columns).join(old.select(*keys, *columns), on=keys, how="left", maintain_order="left").select(new.columns)


def stored_answers(samples):
    """An lm-eval model that gives the answers of a samples table, so that lm-eval scores them as it scored the model's."""
    from lm_eval.api.model import LM

    class StoredAnswers(LM):
        def __init__(self):
            super().__init__()
            self.outputs = {(name, item): output for name, item, output in samples.select("benchmark", "item", "output").iter_rows()}

        def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
            return [self.outputs[request.task_name, request.doc[ITEM]] for request in requests]

        def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            stored = {key: json.loads(self.outputs[key]) for key in {(request.task_name, request.doc[ITEM]) for request in requests}}
            return [_likelihood(stored[request.task_name, request.doc[ITEM]], *request.args[:2]) for request in requests]

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
