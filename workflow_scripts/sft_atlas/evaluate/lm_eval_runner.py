"""Score one checkpoint on a suite of benchmarks with lm-eval: one model load, all tasks, item-level samples kept."""

import contextlib
import functools
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG
from sft_atlas.evaluate import sandbox
from sft_atlas.evaluate.engines.engine import Truncation
from sft_atlas.evaluate.scores import samples_frame, score_rows, scores_frame
from sft_atlas.evaluate.tasks import (
    CLUSTER,
    ITEM,
    MISSING,
    NOT_OF_LM_EVAL,
    PART_OF,
    SHOTS,
    SUBTASK,
    BenchmarkFiles,
    LengthLimit,
    metric_name,
    metric_text,
    task_configs,
)

UNPARSED = ("", "[invalid]")  # what is extracted where there is no answer; the second by lm-eval's filters


def score(
    adapter, tokenizer, benchmarks: list[BenchmarkFiles], template: dict, seed: int, max_new_tokens=None, allow_code=False, scored_by=None
):
    """Score an lm-eval model on all benchmarks; returns (scores, samples) as polars frames without the checkpoint's keys.

    scores: one row per benchmark, and one per task of a group, see :func:`sft_atlas.evaluate.scores.score_rows`. samples: one row per item, where ``item`` is the row of the
    benchmark's file, ``output`` the raw answer (or the log-likelihood of each option, as JSON) and ``extracted`` what was compared.
    ``scored_by``: columns backend, backend_version and dtype, which are part of every score's key.
    An item whose question leaves no room for its answer (lm-eval would cut it from the left), or whose answer cannot be scored, has no
    score but a reason in ``missing``. Raises AtlasError where that is every item, and where a task runs code although ``allow_code`` is not set.
    """
    limit = LengthLimit(tokenizer, adapter.max_length, adapter.max_gen_toks)
    configs = [config for benchmark in benchmarks for config in task_configs(benchmark, template, limit, max_new_tokens)]
    return run(adapter, configs, seed, allow_code, scored_by or {})


def answer(adapter, tokenizer, benchmarks: list[BenchmarkFiles], template: dict, seed: int, max_new_tokens=None):
    """Ask a model what :func:`score` would, and score nothing; returns the samples, with scores of 0."""
    limit = LengthLimit(tokenizer, adapter.max_length, adapter.max_gen_toks)
    configs = [config for benchmark in benchmarks for config in task_configs(benchmark, template, limit, max_new_tokens)]
    return run(adapter, [unscored(config) for config in configs], seed, allow_code=True, scored_by={})[1]


def unscored(config: dict) -> dict:
    """A task whose answers are not scored: lm-eval needs scores, and gets 0."""
    return {**config, "process_results": lambda doc, results: {metric_name(config): 0.0}}


def run(adapter, configs: list[dict], seed: int, allow_code: bool, scored_by: Mapping[str, str], known: Mapping | None = None):
    """Let lm-eval run the tasks of :func:`sft_atlas.evaluate.tasks.task_configs`; returns as :func:`score` does.

    ``known``: values of columns of samples that are to be kept, by (benchmark, item).

    One task after another, so that a benchmark's answers do not depend on what else is in its suite and are kept if the job is killed.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    unsafe = [config["task"] for config in configs if config.get("unsafe_code")]
    if unsafe and not allow_code:
        raise AtlasError(f"{unsafe[0]} runs code that the model wrote; set `allow_code_execution: true` to run it in the sandbox")
    lacking = ", ".join(sandbox.require()) if unsafe else None
    scores, samples = [], []
    for name, tasks in groupby(configs, key=lambda config: config.get(PART_OF, config["task"])):
        rows = []
        for config in tasks:
            keys = {"benchmark": name, "subtask": config.get(SUBTASK)}
            rows += [row | keys | (known or {}).get((name, row["item"]), {}) for row in _run_task(adapter, config, seed, allow_code)]
        rows.sort(key=lambda row: row["item"])
        sandboxed = {"sandbox_missing": lacking if config.get("unsafe_code") else None}
        listed = score_rows(rows, metric_text(config), scored_by, **sandboxed)
        scores += listed
        samples += rows
        LOG.info("%s", {key: value for key, value in listed[0].items() if value is not None})
    return scores_frame(scores), samples_frame(samples)


def _run_task(adapter, config: dict, seed: int, allow_code: bool) -> list[dict[str, object]]:
    """The samples of one task, in the order of its items. An item that cannot be scored has no score, and the reason in ``missing``."""
    from lm_eval.evaluator import evaluate as run_tasks
    from lm_eval.tasks import TaskManager
    from transformers import set_seed

    name, metric, failed = config["task"], metric_name(config), {}
    # As lm-eval's simple_evaluate does, without its report on the machine, which runs pip and takes seconds per checkpoint.
    set_seed(seed)
    loaded = TaskManager(include_defaults=False).load([{key: value for key, value in config.items() if key not in NOT_OF_LM_EVAL}])
    if "langdetect" in sys.modules:  # IFEval's checkers name a text's language by chance, else with a seed of its own in each process
        sys.modules["langdetect"].DetectorFactory.seed = seed
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=seed)
        task.process_results = _guarded(task.process_results, failed)
    truncation = getattr(adapter, "truncation", None) or Truncation()
    with templates_compiled_once():
        result = run_tasks(lm=adapter, task_dict=loaded, log_samples=True, bootstrap_iters=0, confirm_run_unsafe_code=allow_code)
    entries = sorted(result["samples"][name], key=lambda entry: entry["doc_id"])  # once for each filter, of which the first counts
    entries = [entry for entry in entries if entry["filter"] == result["samples"][name][0]["filter"]]
    _check_finite(entries, name, adapter)
    if entries and all(entry["doc"][ITEM] in failed for entry in entries):
        raise AtlasError(f"{name}: no answer can be scored; of item {entries[0]['doc'][ITEM]}: {failed[entries[0]['doc'][ITEM]]}")
    task = loaded["tasks"][name]
    rows = [_sample(name, metric, entry, truncation, task, failed.get(entry["doc"][ITEM])) for entry in entries] + config[MISSING]
    missing = [row for row in rows if row["missing"]]
    if missing:
        item, reason = missing[0]["item"], missing[0]["missing"]
        LOG.warning("%s: %d of %d items have no score; item %d: %s", name, len(missing), len(rows), item, reason)
    return sorted(rows, key=lambda row: row["item"])


@contextlib.contextmanager
def templates_compiled_once() -> Iterator[None]:
    """Have lm-eval keep the templates of its tasks, which it compiles anew for every item, several times: more work than scoring the item."""
    from lm_eval.utils import env

    env.from_string = functools.cache(env.from_string)
    try:
        yield
    finally:
        del env.from_string  # the method of its class is behind it


def _guarded(process_results: Callable, failed: dict[int, str]) -> Callable:
    """A task's function that scores an answer, with the reason noted in ``failed`` (item -> reason) where it fails."""

    def guarded(doc: dict, results: list) -> dict:
        try:
            return process_results(doc, results)
        except AtlasError:
            raise
        except Exception as error:  # noqa: BLE001 (a metric may raise anything; the item is listed as missing, with the reason)
            if not failed:
                LOG.exception("item %d: the task's function failed; further failures are listed without a traceback", doc[ITEM])
            failed.setdefault(doc[ITEM], f"its answer cannot be scored: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
            return {}

    return guarded


def _check_finite(entries: list[dict], benchmark: str, adapter) -> None:
    """AtlasError where a log-likelihood is not finite: NaN is never larger, so that the first option would be the answer."""
    answers = {entry["doc"][ITEM]: [response[0] for response in entry["resps"]] for entry in entries}
    broken = [item for item, listed in answers.items() if not all(isinstance(one, str) or math.isfinite(one[0]) for one in listed)]
    if broken:
        checkpoint = getattr(getattr(adapter, "model", None), "name_or_path", "the checkpoint")
        raise AtlasError(
            f"{checkpoint}: {benchmark}: log-likelihoods of {len(broken)} of {len(entries)} items are not finite, the first is item {broken[0]}; "
            "nothing is scored. If its training diverged, lower the learning rate; otherwise score in float32 or bfloat16"
        )


def _chosen(metric: str, likelihoods: list[float], task, doc: dict) -> int:
    """The option that a metric of lm-eval chooses: the first of highest log-likelihood, by `acc_norm` per character, by `acc_bytes` per
    byte of its text."""
    import numpy as np

    lengths = {"acc_norm": len, "acc_bytes": lambda text: len(text.encode())}.get(metric)
    return int(np.argmax(np.array(likelihoods) / ([float(lengths(text)) for text in task.doc_to_choice(doc)] if lengths else 1.0)))


def _sample(name: str, metric: str, entry: dict, truncation: Truncation, task, missing: str | None) -> dict[str, object]:
    """The sample of one item; the answer to a choice task is the option that its metric chooses. ``missing``: why it has no score.

    ``output`` of a choice task is JSON: the log-likelihood of each option (or of the answer after each context, where options are
    contexts). Where the score depends on it, each value is a pair with whether greedy decoding gives that text.
    """
    prompts, options = zip(*entry["arguments"], strict=True)
    responses = entry["resps"]
    if isinstance(responses[0][0], str):
        output = responses[0][0]
        extracted = entry.get("extracted", entry["filtered_resps"][0])
        parsed = entry.get("parsed", float(str(extracted).strip() not in UNPARSED))
        formed = entry.get("formed", parsed)
    else:
        likelihoods = [float(response[0][0]) for response in responses]
        named = options if len(set(prompts)) == 1 else prompts
        extracted = named[_chosen(metric, likelihoods, task, entry["doc"])].strip()
        pairs = len(options) == 1 or metric == "exact_match"
        values = [[value, bool(response[0][1])] if pairs else value for value, response in zip(likelihoods, responses, strict=True)]
        output, parsed, formed = json.dumps(dict(zip(named, values, strict=True)), ensure_ascii=False), None, None
    score = strict = None
    try:
        if not missing:
            score, strict = float(entry[metric]), float(entry.get("strict", entry[metric]))
    except (KeyError, TypeError, ValueError):
        there = ", ".join(key for key, value in entry.items() if isinstance(value, int | float) and key != "doc_id")
        raise AtlasError(
            f"{name}: the task gives item {entry['doc'][ITEM]} no number {metric!r}, its first metric; put one that it gives first ({there})"
        ) from None
    return {
        "benchmark": name, "item": entry["doc"][ITEM], "prompt": prompts[0], "target": str(entry["target"]),
        "output": output, "extracted": str(extracted), "score": score, "strict": strict,
        "parsed": parsed, "formed": formed, "truncated": truncation.of(tuple(entry["arguments"][0])), "shots": entry["doc"][SHOTS], "cluster": entry["doc"][CLUSTER],
        "missing": missing,
    }  # fmt: skip
