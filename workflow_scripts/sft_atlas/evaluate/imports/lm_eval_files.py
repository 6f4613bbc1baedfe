"""lm-eval's own files, `results_*.json` and `samples_*.jsonl`, of its versions from 0.3 on: read, and written again without loss.

Numbers go to the table of scores, items to that of samples, and everything else, as it is, to `documents` and the column `rest`. What has
gone to a table is in no other place, so that files written again have the numbers of the tables.
"""

import copy
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate.imports.found import Found, Score, content, decoded, number, parsed, whole
from sft_atlas.evaluate.scores import samples_frame
from sft_atlas.study.items import prompts_hash

FACTS = ("alias", "name", "sample_len", "sample_count", "samples")  # of a task in `results`, beside its numbers
# Metrics that are not fractions; others may be if a value shows it.
UNBOUNDED = re.compile(r"perplexity|bits_per_byte|^(bleu|chrf|ter|sacrebleu)|_diff$|^loglikelihood")
NAMES = ("peft", "delta", "pretrained", "model", "path", "engine")  # arguments that name a model, in lm-eval's order
PROMPT = (
    "output_type", "dataset_path", "dataset_name", "test_split", "description", "doc_to_text", "doc_to_target", "doc_to_choice", "target_delimiter",
    "fewshot_delimiter", "fewshot_split", "generation_kwargs", "use_prompt", "gen_prefix",
)  # fmt: skip
ITEM_FACTS = (
    "doc_id",
    "doc",
    "target",
    "arguments",
    "resps",
    "filtered_resps",
    "filter",
    "metrics",
    "doc_hash",
    "prompt_hash",
    "target_hash",
)
BATCH = 2000  # samples that are held as Python objects at once


def read(files: list[Path], wanted: dict[str, dict]) -> Found:
    """Everything that the files hold. ``wanted``: by task, which metric and filter are its score (keys of `benchmarks` of an import).

    AtlasError, with file, line and key, for files that lm-eval did not write.
    """
    import polars as pl

    results = [path for path in files if path.suffix == ".json" and path.name.startswith("results")]
    others = {path for path in files if path not in results}
    if not results and len(files) == 1:
        results, others = files, set()
    found, frames, versions = Found([]), [], []
    above = os.path.commonpath([path.absolute().parent.parent for path in results]) if results else ""
    seen: dict[tuple, Score] = {}
    for path in results:
        document = parsed(decoded(content(path), path), path)
        if not isinstance(document, dict) or not isinstance(document.get("results"), dict):
            raise AtlasError(f"{path}: has no key `results` with the scores of tasks, so lm-eval did not write it; name its results*.json")
        rest, own = _numbers(document, path, len(found.documents), found.left_out)
        for score in own:
            key = (score.name, score.task, score.metric)
            first = seen.setdefault(key, score)
            if first is not score and (first.score, first.stderr) != (score.score, score.stderr):
                raise AtlasError(
                    f"{score.where}: {score.score}, but {first.where} of the same checkpoint is {first.score}; name one of the two files as `file`"
                )
            if first is score:
                found.scores.append(score)
            elif score.place:  # the number is in the table once
                put(rest, score)
                found.left_out.append(f"{score.where}: the same score as {first.where}")
        main = main_metrics(own, wanted)
        taken = {task: samples for task in document["results"] if (samples := _samples_of(path, task, others))}
        for task, samples in sorted(taken.items()):
            others.discard(samples)
            of = main.get(task) or Score("", task, "", None, "")  # where no number of a task is a score, its samples are kept all the same
            frame = pl.concat([frame_of(rows) for rows in _batches(samples, task, of, len(found.documents))])
            _check(samples, task, frame, of, own, found.left_out)
            frames.append(frame)
        _templates(own, main, rest, frames, len(found.documents))
        arrays = [task for task, samples in taken.items() if _is_array(samples)]
        names = {task: samples.name for task, samples in taken.items()}
        found.documents.append(
            {"file": path.name, "folder": os.path.relpath(path.absolute().parent, above), "samples": names, "arrays": arrays, "rest": rest}
        )
        versions.append(_version(document))
    found.left_out += [f"{path}: belongs to no results of the import" for path in sorted(others)]
    found.samples = pl.concat(frames) if frames else frame_of([])
    found.version = ", ".join(dict.fromkeys(filter(None, versions))) or None
    return found


# ---------------------------------------------------------------- results_*.json


def model_name(document: dict, path: Path) -> str:
    """What lm-eval calls the model: `model_name`, or in older files the argument that names it, or the file's folder."""
    if isinstance(document.get("model_name"), str) and document["model_name"]:
        return document["model_name"]
    arguments = (document.get("config") or {}).get("model_args")
    if isinstance(arguments, str):
        arguments = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    arguments = arguments if isinstance(arguments, dict) else {}
    return next((str(arguments[name]) for name in NAMES if arguments.get(name)), path.parent.name)


def _version(document: dict) -> str | None:
    if document.get("lm_eval_version"):
        return f"lm_eval {document['lm_eval_version']}"
    return f"lm_eval at {document['git_hash']}" if document.get("git_hash") else None


def _numbers(document: dict, path: Path, index: int, left_out: list[str]) -> tuple[dict, list[Score]]:
    """The document without the numbers that go to the table, and these."""
    rest, scores, name = copy.deepcopy(document), [], model_name(document, path)
    config = document.get("config") if isinstance(document.get("config"), dict) else {}
    groups = document.get("group_subtasks") if isinstance(document.get("group_subtasks"), dict) else {}
    parts = {
        group: _all_parts(groups, group) for group, numbers in document["results"].items() if groups.get(group) and _has_score(numbers)
    }
    group_of = {part: group for group, listed in parts.items() if not any(group in of for of in parts.values()) for part in listed}
    facts = {"backend": config.get("model"), "backend_version": _version(document), "dtype": _dtype(config)}
    for task, numbers in document["results"].items():
        where = f"{path}: results.{task}"
        if not isinstance(numbers, dict):
            raise AtlasError(f"{where} is {str(numbers)[:40]!r}, not the scores of a task")
        for key, value in numbers.items():
            metric, _, filtered = key.partition(",")
            if key in FACTS or metric.endswith("_stderr"):
                continue
            if metric.partition("_")[0] and UNBOUNDED.search(metric):
                left_out.append(f"{where}.{key}: {metric} is no mean of item scores between 0 and 1")
                continue
            score = number(value, f"{where}.{key}")
            if score is None:
                left_out.append(f"{where}.{key}: has no score ({value})")
            elif not 0 <= score <= 1:
                left_out.append(f"{where}.{key}: {value} is no fraction between 0 and 1")
                continue
            error_key = f"{metric}_stderr" + (f",{filtered}" if filtered else "")
            stderr = number(numbers.get(error_key), f"{where}.{error_key}")
            entry = Score(
                name,
                task,
                metric if filtered in ("", "none") else f"{metric},{filtered}",
                score,
                f"{where}.{key}",
                stderr,
                _n(document, task),
                _shots(document, task),
                file=path.name,
                facts=facts | {"group": group_of.get(task)},
                place=(index, task, key),
            )
            for placed, known in ((key, score), (error_key, stderr)):
                if known is not None:
                    del rest["results"][task][placed]
            scores.append(entry)
    return rest, scores


def _dtype(config: dict) -> str | None:
    arguments = config.get("model_args")
    stated = config.get("model_dtype") or (arguments.get("dtype") if isinstance(arguments, dict) else None)
    return str(stated).removeprefix("torch.") if stated else None


def _has_score(numbers: object) -> bool:
    """Whether a group has a score of its own, and is no mere heading."""
    return isinstance(numbers, dict) and any(isinstance(value, int | float) for key, value in numbers.items() if key not in FACTS)


def _all_parts(groups: dict, group: str, above: tuple[str, ...] = ()) -> list[str]:
    """The tasks and groups in a group."""
    listed = groups.get(group) or []
    if group in above or not isinstance(listed, list):
        return []
    return [each for name in listed for each in (str(name), *_all_parts(groups, str(name), (*above, group)))]


def _subtasks(document: dict, task: str, above: tuple[str, ...] = ()) -> list[str]:
    """The tasks of a group, also of groups in it; [] of a task."""
    listed = (document.get("group_subtasks") or {}).get(task) or []
    if task in above or not isinstance(listed, list):
        return []
    return [leaf for name in listed for leaf in (_subtasks(document, str(name), (*above, task)) or [str(name)])]


def _n(document: dict, task: str) -> int | None:
    counts, own = document.get("n-samples") or {}, _subtasks(document, task)
    parts = [whole((counts.get(name) or {}).get("effective")) for name in own or [task]]
    if all(part is not None for part in parts):
        return sum(parts)
    return whole(document["results"][task].get("sample_len"))


def _shots(document: dict, task: str) -> int | None:
    stated = [(document.get("n-shot") or {}).get(name) for name in (task, *_subtasks(document, task))]
    known = {whole(value) for value in stated} - {None}
    if not known and isinstance(document.get("config"), dict):
        known = {whole(document["config"].get("num_fewshot"))} - {None}
    return known.pop() if len(known) == 1 else None


def main_metrics(scores: Iterable[Score], wanted: dict[str, dict]) -> dict[str, Score]:
    """By task, the number that is its score: of the metric and filter that are asked for, else the first."""
    chosen: dict[str, Score] = {}
    for score in scores:
        asked = wanted.get(score.task, {})
        metric, _, filtered = score.metric.partition(",")
        if asked.get("metric") in (None, metric) and asked.get("filter") in (None, filtered or "none"):
            chosen.setdefault(score.task, score)
    return chosen


def _templates(scores: list[Score], main: dict[str, Score], document: dict, frames: list, index: int) -> None:
    """What each score's prompts are: the hash of the prompts where there are samples, and of what describes the task."""
    configs = document.get("configs") if isinstance(document.get("configs"), dict) else {}
    around = {key: document.get(key) for key in ("system_instruction_sha", "chat_template_sha", "fewshot_as_multiturn")}
    prompts = {}
    for frame in frames:
        task = frame["task"][0] if frame.height else None
        if task in main and frame["document"][0] == index:
            prompts[task] = scored(frame, main[task].metric)["prompt"].to_list()
    for score in scores:
        tasks = _subtasks(document, score.task) or [score.task]
        parts = []
        for task in tasks:
            config = configs.get(task) if isinstance(configs.get(task), dict) else {}
            metadata = config.get("metadata") if isinstance(config.get("metadata"), dict) else {}
            stated = (document.get("versions") or {}).get(task, metadata.get("version"))
            parts.append([task, stated, {key: config[key] for key in PROMPT if config.get(key)}])
        described = json.dumps([parts, {key: value for key, value in around.items() if value}], sort_keys=True, default=str)
        score.template = f"lm-eval {hashlib.sha256(described.encode()).hexdigest()[:16]}"
        if all(task in prompts for task in tasks):
            score.facts = score.facts | {"items": prompts_hash(prompt for task in tasks for prompt in prompts[task])}


# ---------------------------------------------------------------- samples_*.jsonl


def frame_of(rows: list[dict]):
    """Samples as a polars frame: the columns of SAMPLES, then where each is from and ``rest``."""
    import polars as pl

    return pl.concat(
        [
            samples_frame(rows),
            pl.DataFrame(
                rows, schema=dict.fromkeys(("task", "filter", "metric", "rest"), pl.String) | dict.fromkeys(("document", "line"), pl.Int64)
            ),
        ],
        how="horizontal",
    )


def _samples_of(results: Path, task: str, others: set[Path]) -> Path | None:
    """The samples of a task beside its results, by the names that lm-eval's versions give them."""
    date = results.stem.partition("_")[2]
    here = {path.name: path for path in others if path.parent == results.parent}
    for name in (f"samples_{task}_{date}.jsonl", f"samples_{task}.jsonl") if date else (f"samples_{task}.jsonl", f"{task}.jsonl"):
        if name in here:
            return here[name]
    old = [path for name, path in here.items() if not date and name.endswith(f"_{task}.jsonl")]
    return old[0] if len(old) == 1 else None


def _is_array(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _lines(path: Path) -> Iterator[tuple[int, object]]:
    """The samples of a file with their lines; line by line, or, where a version before 0.4.3 wrote one list, all at once."""
    if _is_array(path):
        listed = parsed(decoded(content(path), path), path)
        yield from enumerate(listed if isinstance(listed, list) else [listed], 1)
        return
    with open(path, "rb") as stream:
        for line, data in enumerate(stream, 1):
            text = decoded(data, f"{path}, line {line}") if line > 1 else decoded(data, path)
            if text.strip():
                yield line, parsed(text, f"{path}, line {line}")


def _batches(path: Path, task: str, main: Score, document: int) -> Iterator[list[dict]]:
    batch, seen = [], {}
    for line, sample in _lines(path):
        row = _row(sample, f"{path}, line {line}", task, main, document, line)
        first = seen.setdefault((row["item"], row["filter"]), line)
        if first != line:
            raise AtlasError(f"{path}, line {line}: repeats doc_id {row['item']} of line {first}; keep one of them")
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def _row(sample: object, where: str, task: str, main: Score, document: int, line: int) -> dict[str, object]:
    """A sample: its columns, and ``rest``, the JSON of what they do not hold."""
    if not isinstance(sample, dict) or whole(sample.get("doc_id")) is None:
        raise AtlasError(f"{where}: is no sample of lm-eval with a `doc_id`")
    metric = main.metric.partition(",")[0]
    rest = {key: value for key, value in sample.items() if key not in ("doc_id", "arguments")}
    arguments = copy.deepcopy(sample.get("arguments"))
    prompt = _first_prompt(arguments)
    if prompt is not None and _is_of_today(arguments):
        del arguments["gen_args_0"]["arg_0"]
    if "arguments" in sample:
        rest["arguments"] = arguments
    columns: dict[str, object] = {}
    for name in ("target", "filter"):
        if isinstance(sample.get(name), str):
            columns[name] = rest.pop(name)
    value, score, missing = sample.get(metric) if metric else None, None, None
    if isinstance(value, int | float) and math.isfinite(value):
        score = float(value)
        if not isinstance(value, bool):
            rest.pop(metric)
    elif value is not None:
        missing = f"{metric} is {str(value)[:80]}"
    else:
        missing = f"has no {metric}"
    output, extracted = _answer(sample)
    return {
        "benchmark": task, "item": int(sample["doc_id"]), "prompt": prompt, "target": columns.get("target", None if sample.get("target") is None else str(sample["target"])),
        "output": output, "extracted": extracted, "score": score, "strict": None, "parsed": None, "formed": None, "truncated": None, "shots": main.shots,
        "cluster": None, "missing": missing, "task": task, "filter": columns.get("filter"), "metric": metric, "rest": json.dumps(rest, ensure_ascii=False),
        "document": document, "line": line,
    }  # fmt: skip


def _is_of_today(arguments: object) -> bool:
    """Whether arguments are laid out as `{"gen_args_0": {"arg_0": ...}}`."""
    return isinstance(arguments, dict) and isinstance(arguments.get("gen_args_0"), dict)


def _first_prompt(arguments: object) -> str | None:
    """The prompt of an item: `{"gen_args_0": {"arg_0": ...}}`, or in older files a list of lists."""
    first = (
        arguments.get("gen_args_0") if isinstance(arguments, dict) else arguments[0] if isinstance(arguments, list) and arguments else None
    )
    text = first.get("arg_0") if isinstance(first, dict) else first[0] if isinstance(first, list) and first else None
    return text if isinstance(text, str) else None


def _answer(sample: dict) -> tuple[str | None, str | None]:
    """The raw answer (or the log-likelihoods as JSON), and what was extracted of a text."""
    responses, filtered = sample.get("resps"), sample.get("filtered_resps")
    first = responses[0] if isinstance(responses, list) and responses else None
    first = first[0] if isinstance(first, list) and first else first
    extracted = filtered[0] if isinstance(filtered, list) and filtered and isinstance(filtered[0], str) else None
    if isinstance(first, str) and not (isinstance(responses[0], list) and len(responses[0]) == 2 and responses[0][1] in ("True", "False")):
        return first, extracted
    return (None if first is None else json.dumps(responses, ensure_ascii=False)), None


def scored(frame, metric: str):
    """The samples of a score, one for each item: those of its filter, or of the first where samples do not name filters so."""
    import polars as pl

    filtered = metric.partition(",")[2] or "none"
    return (
        frame.filter(pl.col("filter").fill_null("none") == filtered)
        if filtered in set(frame["filter"].fill_null("none"))
        else frame.unique("item", keep="first", maintain_order=True)
    )


def _check(path: Path, task: str, frame, main: Score, scores: list[Score], left_out: list[str]) -> None:
    """AtlasError where samples are fewer than the results count; a line where their mean is not the score."""
    own = scored(frame, main.metric)
    counted = next((score.n for score in scores if score.task == task), None)
    if counted is not None and own.height != counted:
        raise AtlasError(f"{path}: has {own.height:,} items, the results count {counted:,}; it was cut short or edited. Get it again")
    values = own["score"].drop_nulls()
    if main.score is not None and len(values) == own.height and len(values) and abs(values.mean() - main.score) > 1e-6:
        left_out.append(f"{path}: the mean of its items is {values.mean():.6f}, the results say {main.score:.6f}; both are kept")


# ---------------------------------------------------------------- written again


def put(document: dict, score: Score, values: tuple[float | None, float | None] | None = None) -> None:
    """Put a number and its standard error back where they were."""
    _, task, key = score.place
    metric, comma, filtered = key.partition(",")
    value, stderr = values or (score.score, score.stderr)
    for place, known in ((key, value), (f"{metric}_stderr{comma}{filtered}", stderr)):
        if known is not None:
            document["results"][task][place] = known


def restore(document: dict, scores: Iterable[dict]) -> dict:
    """A results file as it was: ``scores`` are the rows of the table that came from it, with ``task``, ``key``, ``score`` and ``stderr``."""
    whole_document = copy.deepcopy(document)
    for row in scores:
        put(whole_document, Score("", "", "", None, "", place=(0, row["task"], row["key"])), (row["score"], row["stderr"]))
    return whole_document


def restore_sample(row: dict) -> dict:
    """A line of a file of samples as it was."""
    sample = json.loads(row["rest"])
    sample.setdefault("doc_id", row["item"])
    if row["prompt"] is not None and _is_of_today(sample.get("arguments")):
        sample["arguments"]["gen_args_0"]["arg_0"] = row["prompt"]
    for name in ("target", "filter"):
        if name not in sample and row[name] is not None:
            sample[name] = row[name]
    if row["metric"] not in sample and row["score"] is not None:
        sample[row["metric"]] = row["score"]
    return sample
