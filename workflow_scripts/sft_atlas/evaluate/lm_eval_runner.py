"""Score one checkpoint on a suite of benchmarks with lm-eval: one model load, all tasks, item-level samples kept."""

import functools
import json
import logging
import math
from collections.abc import Callable, Mapping

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG
from sft_atlas.evaluate.scores import samples_frame, score_row, scores_frame
from sft_atlas.evaluate.tasks import CLUSTER, ITEM, MISSING, SHOTS, BenchmarkFiles, LengthLimit, metric_name, task_config
from sft_atlas.models.base_model import end_ids
from sft_atlas.models.tokenization import prompt_ids

UNPARSED = ("", "[invalid]")  # what is extracted where there is no answer; the second by lm-eval's filters
CPU_BATCH = 8  # `batch_size: auto` where there is no accelerator whose memory could be tried


def transformers_adapter(model, tokenizer, batch_size: int | str, max_length: int):
    """A transformers model as an lm-eval model; ``batch_size`` may be ``auto``. Changes the model's EOS ids to those of :func:`end_ids`."""
    from lm_eval.models.huggingface import HFLM

    longest = getattr(model.config, "max_position_embeddings", max_length)
    model.generation_config.eos_token_id = end_ids(model, tokenizer)
    size = CPU_BATCH if batch_size == "auto" and model.device.type == "cpu" else batch_size
    adapter = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, max_length=min(max_length, longest))
    detect = functools.cache(adapter._detect_batch_size)  # for the longest generation, the same for every task
    adapter._detect_batch_size = lambda requests=None, pos=0: (
        detect() if requests is None else type(adapter)._detect_batch_size(adapter, requests, pos)
    )
    return with_training_tokens(adapter, tokenizer)


def with_training_tokens(adapter, tokenizer):
    """An lm-eval model, changed to tokenise prompts as training does: :func:`~sft_atlas.models.tokenization.prompt_ids`.

    lm-eval leaves the EOS that a tokenizer adds at the end of a prompt, and adds no special token where the text begins with BOS.
    """

    def tok_encode(text, add_special_tokens=None, left_truncate_len=None, **_):
        texts = [text] if isinstance(text, str) else list(text)
        plain = add_special_tokens is False and texts
        listed = tokenizer(texts, add_special_tokens=False)["input_ids"] if plain else prompt_ids(tokenizer, texts)
        listed = [ids[-(left_truncate_len or 0) :] for ids in listed]
        return listed[0] if isinstance(text, str) else listed

    def tok_batch_encode(strings, padding_side="left", left_truncate_len=None, truncation=False):
        listed = tok_encode(strings, left_truncate_len=left_truncate_len)
        padded = tokenizer.pad({"input_ids": listed}, padding_side=padding_side, return_tensors="pt")
        return padded["input_ids"], padded["attention_mask"]

    adapter.tok_encode, adapter.tok_batch_encode = tok_encode, tok_batch_encode
    return adapter


def score(
    adapter, tokenizer, benchmarks: list[BenchmarkFiles], template: dict, seed: int, max_new_tokens=None, allow_code=False, backend="hf"
):
    """Score an lm-eval model on all benchmarks; returns (scores, samples) as polars frames without the checkpoint's keys.

    scores: one row per benchmark, see :func:`sft_atlas.evaluate.scores.score_row`. samples: one row per item, where ``item`` is the row of the
    benchmark's file, ``output`` the raw answer (or the log-likelihood of each option, as JSON) and ``extracted`` what was compared.
    ``backend`` is part of every score's key: scores of different backends are never mixed.
    An item whose question leaves no room for its answer (lm-eval would cut it from the left), or whose answer cannot be scored, has no
    score but a reason in ``missing``. Raises AtlasError where that is every item, and where a task runs code although ``allow_code`` is not set.
    """
    limit = LengthLimit(tokenizer, adapter.max_length, adapter.max_gen_toks)
    configs = [task_config(benchmark, template, limit, max_new_tokens) for benchmark in benchmarks]
    return run(adapter, configs, seed, allow_code, backend)


def run(adapter, configs: list[dict], seed: int, allow_code: bool, backend: str):
    """Let lm-eval run the tasks of :func:`sft_atlas.evaluate.tasks.task_config`; returns as :func:`score` does.

    One task after another, so that a benchmark's answers do not depend on what else is in its suite and are kept if the job is killed.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    unsafe = [config["task"] for config in configs if config.get("unsafe_code")]
    if unsafe and not allow_code:
        raise AtlasError(f"{unsafe[0]} runs code that the model wrote; set `allow_code_execution: true` to run it in the sandbox")
    scores, samples = [], []
    for config in configs:
        rows = _run_task(adapter, config, seed, allow_code)
        scores.append(score_row(rows, metric_name(config), backend, max(row["shots"] for row in rows)))
        samples += rows
        LOG.info("%s", {key: value for key, value in scores[-1].items() if value is not None})
    return scores_frame(scores), samples_frame(samples)


def _run_task(adapter, config: dict, seed: int, allow_code: bool) -> list[dict[str, object]]:
    """The samples of one task, in the order of its items. An item that cannot be scored has no score, and the reason in ``missing``."""
    from lm_eval.evaluator import evaluate as run_tasks
    from lm_eval.tasks import TaskManager
    from transformers import set_seed

    name, metric, failed = config["task"], metric_name(config), {}
    # As lm-eval's simple_evaluate does, without its report on the machine, which runs pip and takes seconds per checkpoint.
    set_seed(seed)
    loaded = TaskManager(include_defaults=False).load([{key: value for key, value in config.items() if key != MISSING}])
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=seed)
        task.process_results = _guarded(task.process_results, failed)
    truncation = getattr(adapter, "truncation", None) or TruncationWatch(adapter)
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


class TruncationWatch:
    """Records which generations of an HFLM were truncated: neither an EOS token nor a stop text was in what the model wrote.

    lm-eval decodes each answer and then reports it to its cache hook; both are watched. An answer is decoded up to its first EOS, whose
    text does not belong to it even where the tokenizer does not call the token special. Other backends do not decode here, so for them
    truncation is unknown.
    """

    def __init__(self, adapter):
        self.truncated: dict[str, bool] = {}
        decode = getattr(adapter, "tok_decode", None)
        if decode is None or not hasattr(adapter, "model"):
            return
        ends = set(end_ids(adapter.model, adapter.tokenizer))
        self.ended, self.text = False, ""

        def tok_decode(tokens, *args, **settings):
            if not isinstance(tokens, list):
                return decode(tokens, *args, **settings)
            length = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
            self.ended, self.text = length < len(tokens), decode(tokens[:length], *args, **settings)
            return self.text

        adapter.tok_decode, adapter.cache_hook = tok_decode, self

    def add_partial(self, kind: str, request, answer) -> None:
        """lm-eval's hook after each answer."""
        if kind == "generate_until":
            self.truncated[self.key(request)] = answer == self.text and not self.ended

    def of(self, entry: dict) -> bool | None:
        """Whether an item's answer was truncated; None where that is unknown."""
        request = entry["arguments"][0]
        return self.truncated.get(self.key(request)) if isinstance(request[-1], Mapping) else None

    @staticmethod
    def key(request: tuple) -> str:
        """The arguments of a request as text."""
        return json.dumps(list(request), sort_keys=True, default=str)


def _chosen(metric: str, likelihoods: list[float], task, doc: dict) -> int:
    """The option that a metric of lm-eval chooses: the first of highest log-likelihood, by `acc_norm` per character, by `acc_bytes` per
    byte of its text."""
    import numpy as np

    lengths = {"acc_norm": len, "acc_bytes": lambda text: len(text.encode())}.get(metric)
    return int(np.argmax(np.array(likelihoods) / ([float(lengths(text)) for text in task.doc_to_choice(doc)] if lengths else 1.0)))


def _sample(name: str, metric: str, entry: dict, truncation: TruncationWatch, task, missing: str | None) -> dict[str, object]:
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
        "parsed": parsed, "formed": formed, "truncated": truncation.of(entry), "shots": entry["doc"][SHOTS], "cluster": entry["doc"][CLUSTER],
        "missing": missing,
    }  # fmt: skip
