"""Score stored answers again, without a model: after a change of the scoring, or to check it."""

import json

import polars as pl
from lm_eval.api.model import LM

from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate.lm_eval_runner import run
from sft_atlas.evaluate.tasks import BenchmarkFiles, task_config
from sft_atlas.study.items import read_items

KEPT = ("prompt", "truncated", "shots")  # facts about the generation, which scoring does not change


class Stored(LM):
    """A model that gives the answers of a samples table: lm-eval then does with them what it did with the model's."""

    def __init__(self, samples: pl.DataFrame):
        super().__init__()
        self.outputs = {(name, item): output for name, item, output in samples.select("benchmark", "item", "output").iter_rows()}

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        return [self.outputs[request.task_name, request.doc_id] for request in requests]

    def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        stored = {key: json.loads(self.outputs[key]) for key in {(request.task_name, request.doc_id) for request in requests}}
        return [(stored[request.task_name, request.doc_id][request.args[1]], False) for request in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False):
        raise AtlasError("this kind of task is not stored item by item; score the checkpoint again")


def rescore(samples: pl.DataFrame, scores: pl.DataFrame, benchmarks: list[BenchmarkFiles], seed: int, allow_code: bool):
    """(scores, samples, changes) from the stored answers; ``changes`` has one row per benchmark: score before and now, items changed.

    Raises AtlasError where the items on disk are not those of the samples.
    """
    for benchmark in benchmarks:
        count, stored = len(read_items(benchmark.items)), samples.filter(benchmark=benchmark.name).height
        if count != stored:
            raise AtlasError(
                f"{benchmark.items} has {count} items, the samples of {benchmark.name} {stored}: the items changed; score the checkpoint again"
            )
    backend = scores["backend"][0]
    # The prompts are those of the samples: the template was checked when the model answered.
    configs = [task_config(BenchmarkFiles(file.name, file.task, file.items), None) for file in benchmarks]
    new_scores, new_samples = run(Stored(samples), configs, seed, allow_code, backend)
    keys = ["benchmark", "item"]
    new_samples = (
        new_samples.drop(KEPT).join(samples.select(*keys, *KEPT), on=keys, how="left", maintain_order="left").select(new_samples.columns)
    )
    carried = ["n_truncated", "shots", "n_fewer_shots"]
    new_scores = (
        new_scores.drop(carried)
        .join(scores.select("benchmark", *carried), on="benchmark", maintain_order="left")
        .select(new_scores.columns)
    )
    both = samples.select(*keys, before="score").join(new_samples.select(*keys, "score"), on=keys)
    changed = both.group_by("benchmark").agg((pl.col("before") != pl.col("score")).sum().alias("items_changed"))
    changes = scores.select("benchmark", "metric", "n", "backend", score_before="score").join(
        new_scores.select("benchmark", "score"), on="benchmark", maintain_order="left"
    )
    return new_scores, new_samples, changes.join(changed, on="benchmark", maintain_order="left")
