"""From an lm-eval task file and a benchmark's items to finished prompts: task and template checked, few-shot examples prepended as far as
they fit."""

import functools
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, sha256, write_json
from sft_atlas.core.optional_packages import pip_install
from sft_atlas.evaluate.engines.tokens import kept_ids
from sft_atlas.evaluate.scores import SAMPLES
from sft_atlas.models.prompt_template import render_after, response_prefix
from sft_atlas.study import task_checks
from sft_atlas.study.items import read_items
from sft_atlas.study.lm_eval_names import LENGTHS
from sft_atlas.study.lm_eval_registry import RegistryTask
from sft_atlas.study.rendering import TaskRenderer
from sft_atlas.study.schema import Template
from sft_atlas.study.task_files import OWN_TEMPLATE, judged, task_sources, with_first

PROMPT = "rendered prompt"  # column of an item's prompt
TARGET = "right answer"  # column of what an answer is compared with
SHOTS = "shots in the prompt"  # column of how many examples stand in it
CLUSTER = "cluster of the item"  # column of what the item shares with others, such as a passage; null where nothing
MISSING = "missing items"  # key of a task's dictionary: samples of the items that are left out, each with its reason
PART_OF = "benchmark of the task"  # key of a task's dictionary: the benchmark whose items, or some of them, it has
SUBTASK = "task of the group"  # key of a task's dictionary: its name where the benchmark is a group, else None
NOT_OF_LM_EVAL = (MISSING, PART_OF, SUBTASK)
FEWSHOT_SEED = 1234  # of lm-eval's command line
ITEM = "row of the item"  # column of the item's row in its file, from 0
# Keys of a task file that say where lm-eval would get its data and how it would group tasks: here the study says it.
REPLACED = (
    "dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split", "fewshot_split", "fewshot_config", "process_docs",
    "should_decontaminate", "doc_to_decontamination_query", *task_checks.STRUCTURE,
)  # fmt: skip


@dataclass(frozen=True)
class BenchmarkFiles:
    """A benchmark on disk: its lm-eval task file, its items, and the examples that are put before each of them."""

    name: str
    task: Path
    items: Path
    shots: Path | None = None
    by: str | None = None  # field that an item's examples share with it, such as `subject`
    max_new_tokens: int | None = None  # longest answer, in place of the task file's
    lm_eval: RegistryTask | None = None  # what it is in lm-eval's registry: asked with lm-eval's own prompts

    def parts(self) -> list["BenchmarkFiles"]:
        """The benchmark itself; of a group of lm-eval's registry each task, under its own name."""
        if self.lm_eval is None:
            return [self]
        return [replace(self, name=name, task=Path(file)) for name, file in self.lm_eval.tasks.items()]

    def rows(self) -> list[dict]:
        """The items, each with ITEM; of a task of the registry the rows of its own data."""
        if self.lm_eval is None:
            return [{**row, ITEM: number} for number, row in enumerate(read_items(self.items))]
        return [dict(row) for row in _rows_by_task(self.items, self.items.stat().st_mtime_ns).get(self.name, [])]

    def examples(self) -> list[dict]:
        """Rows of a task of the registry from which lm-eval draws its examples; [] where they stand in the task file, or there are none."""
        rows = _rows_by_task(self.shots, self.shots.stat().st_mtime_ns).get(self.name, []) if self.shots else []
        return [{key: value for key, value in row.items() if key != ITEM} for row in rows]


@functools.lru_cache(maxsize=4)
def _rows_by_task(path: Path, changed: int) -> dict[str, list[dict]]:
    """Rows of a benchmark of the registry by task, each with ITEM; a group has up to hundreds of tasks in one file."""
    found: dict[str, list[dict]] = {}
    for number, row in enumerate(read_items(path)):
        found.setdefault(row["task"], []).append({**row["doc"], ITEM: number})
    return found


@dataclass(frozen=True)
class SuiteFile:
    """The benchmarks of one evaluation job, as a file whose content changes with that of any file behind them.

    Fields of the file: ``name``, ``benchmarks`` (those of ``BenchmarkFiles``) and ``sha256`` (file -> hash).
    """

    name: str
    benchmarks: list[BenchmarkFiles]

    @classmethod
    def read(cls, path: Path) -> "SuiteFile":
        """Read a suite that ``write`` wrote. AtlasError where a file behind it is not the one that was checked then."""
        entry = read_json(path)
        for file, digest in entry.pop("sha256", {}).items():
            if not Path(file).is_file() or sha256(Path(file)) != digest:
                raise AtlasError(
                    f"{file} is missing, damaged, or was changed after {path} was made; restore it, or if the change is meant, delete {path} and run again"
                )
        return TypeAdapter(cls).validate_python(entry)

    def write(self, path: Path) -> None:
        """Write the suite with the hash of every file behind it, the files that a task file includes too."""
        tasks = [task for benchmark in self.benchmarks for part in benchmark.parts() for task in task_sources(str(part.task))]
        paths = [*map(Path, tasks), *(file for b in self.benchmarks for file in (b.items, b.shots) if file)]
        content = TypeAdapter(SuiteFile).dump_python(self, mode="json")
        for entry in content["benchmarks"]:  # a key that is not used makes no other suite
            for key in ("max_new_tokens", "lm_eval"):
                if entry[key] is None:
                    del entry[key]
            if "lm_eval" in entry and entry["lm_eval"]["shots"] is None:
                del entry["lm_eval"]["shots"]
        write_json(path, {**content, "sha256": {str(path): sha256(path) for path in paths}})


def task_configs(benchmark: BenchmarkFiles, template: dict | None, *args, **settings) -> list[dict[str, object]]:
    """:func:`task_config` of a benchmark, or of each task of a group that has an item, with PART_OF and SUBTASK."""
    parts = [part for part in benchmark.parts() if benchmark.lm_eval is None or part.rows()]
    grouped = benchmark.lm_eval is not None and benchmark.lm_eval.group
    return [
        task_config(part, template, *args, **settings) | {PART_OF: benchmark.name, SUBTASK: part.name if grouped else None}
        for part in parts
    ]


def task_config(
    benchmark: BenchmarkFiles,
    template: dict | None,
    limit: "LengthLimit | None" = None,
    max_new_tokens: int | None = None,
    left_out: Mapping[int, str] | None = None,
) -> dict[str, object]:
    """The lm-eval task as a dictionary that reads the benchmark's own items, with prompts as one column.

    Examples that exceed ``limit`` are left out; without a limit every example is used and no length is checked. An item that exceeds the
    limit even without examples is left out too and listed under MISSING, like the items of ``left_out`` (row -> reason). Without a template
    prompts are empty, for scoring stored answers. Answers of a task without a function of its own are compared without surrounding white
    space, and the answer of a `loglikelihood` task follows the delimiter. Raises AtlasError where the task file has a problem
    (:func:`sft_atlas.study.task_checks.problems`; among them a prompt that differs from the study's template, in which the model was
    trained), where an item cannot be rendered, and where every item exceeds the limit.
    """
    from datasets import Dataset

    registered = benchmark.lm_eval
    config = load_task(benchmark.task, template, registered)
    kind = config.setdefault("output_type", "generate_until")
    if kind == "generate_until":
        config["generation_kwargs"] = _generation_settings(config.get("generation_kwargs") or {}, benchmark.max_new_tokens, max_new_tokens)
    metadata = {"version": 1.0, **config.pop("metadata", {})}
    own = registered is not None or metadata.get("template") == OWN_TEMPLATE
    if own and benchmark.shots and not registered:
        raise AtlasError(f"{benchmark.task}: has a template of its own, in which there is no place for examples; remove `shots`")
    rows = benchmark.rows()
    if config.get("process_docs"):
        rows = processed_items(rows, config["process_docs"], benchmark.task)
    if template is not None and not own:
        config["target_delimiter"] = response_prefix(template)
    renderer = TaskRenderer(config, benchmark.task)
    answers = [_answers(renderer, row, own) for row in rows]
    texts = [renderer.text(row) for row in rows] if own else []
    several_contexts = own and not all(isinstance(text, str) for text in texts)  # one of each option, and all the same answer
    if registered and several_contexts and config.get("num_fewshot"):
        raise AtlasError(f"{benchmark.task}: options that are contexts have no place for examples; write a task file with `num_fewshot: 0`")
    if registered and template is not None and not several_contexts:
        texts, examples = _lm_eval_prompts(config, rows, benchmark), config.get("num_fewshot") or 0
        rows = [{**row, SHOTS: examples} for row in rows]
        config["description"] = config["gen_prefix"] = ""  # they are in the prompts
    counts: list[int | None] = [0] * len(rows)
    if several_contexts:
        contexts = [[f"{option}{renderer.delimiter}{renderer.target(row)}" for option in renderer.options(row)] for row in rows]
        counts = _shot_counts(lambda i, count: config.get("description", ""), contexts, rows, counts, config, benchmark, limit)
    elif template is None:
        rows, config["doc_to_text"] = [{**row, PROMPT: ""} for row in rows], PROMPT
    elif own:
        before, after = config.get("description", ""), config.get("gen_prefix", "")  # of lm-eval, around each prompt
        counts = _shot_counts(lambda i, count: f"{before}{texts[i]}{after}", answers, rows, counts, config, benchmark, limit)
        rows, config["doc_to_text"] = [{**row, PROMPT: text} for row, text in zip(rows, texts, strict=True)], PROMPT
    else:
        # The same text from a column: lm-eval would compile its Jinja template anew for every item.
        inner = _inner(config["doc_to_text"], template)

        def question(row: dict) -> str:
            text = renderer.text(row) if inner is None else renderer.fill(inner, row, "doc_to_text")
            if not isinstance(text, str):
                raise AtlasError(
                    f"{benchmark.task}: doc_to_text gives a number, not a question; state `metadata: {{template: {OWN_TEMPLATE}}}` there"
                )
            return text

        questions, examples = [question(row) for row in rows], list(map(_examples(config, benchmark, question), rows))

        def prompt(i: int, count: int) -> str:
            """The prompt of item ``i`` after the last ``count`` of its examples."""
            return render_after(template, examples[i][len(examples[i]) - count :], questions[i])

        counts = _shot_counts(prompt, answers, rows, [len(listed) for listed in examples], config, benchmark, limit)
        finished = [prompt(i, count or 0) for i, count in enumerate(counts)]
        rows = [{**row, PROMPT: prompt, SHOTS: count or 0} for row, prompt, count in zip(rows, finished, counts, strict=True)]
        config["doc_to_text"] = PROMPT
    # A cluster's name is the hash of what its items share; None where they share nothing.
    shared = [renderer.fill(metadata.get("cluster", ""), row, "metadata.cluster") for row in rows]
    clusters = [hashlib.sha256(text.encode()).hexdigest()[:16] if text else None for text in shared]
    rows = [{SHOTS: 0, **row, CLUSTER: cluster} for row, cluster in zip(rows, clusters, strict=True)]
    if kind == "loglikelihood":
        rows, config["doc_to_target"] = [{**row, TARGET: answer[0]} for row, answer in zip(rows, answers, strict=True)], TARGET
    elif kind == "generate_until" and not registered and not config.get("process_results") and not judged(str(benchmark.task)):
        rows = _compare_stripped(config, rows, renderer)
    for key in REPLACED:
        config.pop(key, None)
    reasons = dict(left_out or {})
    too_long = (
        f"longer than {limit and limit.max_length} tokens with its answer; raise max_length of the suite, or lower max_gen_toks of the task"
    )
    reasons |= {row[ITEM]: too_long for row, count in zip(rows, counts, strict=True) if count is None}
    missing = [_missing(benchmark.name, row, renderer, reasons[row[ITEM]]) for row in rows if row[ITEM] in reasons]
    rows = [row for row in rows if row[ITEM] not in reasons]
    try:
        data = Dataset.from_list(rows)
    except (ValueError, TypeError) as error:  # pyarrow's errors are such
        reason = str(error).split("\n")[0]
        raise AtlasError(f"{benchmark.items}: a field has values of different kinds in different items: {reason}; see `columns`") from None
    own_data = {"test_split": "test", "custom_dataset": lambda **_: {"test": data}}
    return {**config, "task": benchmark.name, "num_fewshot": 0, "metadata": metadata, **own_data, MISSING: missing}


def _as_registered(config: dict[str, object], registered: RegistryTask) -> dict[str, object]:
    """A task with the metric and the filter first of which its group is the mean; marked as lm-eval's own."""
    config["metadata"] = {**(config.get("metadata") or {}), "lm_eval": registered.name}
    if registered.shots is not None:
        config["num_fewshot"] = registered.shots
    if config.get("output_type") == "loglikelihood":
        config.pop("target_delimiter", None)  # lm-eval puts none before the text
    for key, name, wanted in (("metric_list", "metric", registered.metric), ("filter_list", "name", registered.filter)):
        listed = config.get(key) or []
        if wanted and listed:
            config[key] = with_first(listed, name, wanted)
            if config[key][0][name] != wanted:
                raise AtlasError(
                    f"{registered.name}: its task {config['task']} has no {name} {wanted!r} in {key}, of which the group is the mean"
                )
    return config


def _lm_eval_prompts(config: dict[str, object], rows: list[dict], benchmark: BenchmarkFiles) -> list[str]:
    """The prompt of each row as lm-eval makes it: description, examples, question, beginning of the answer.

    Examples stand in the task file, or are drawn for each item in turn by the sampler that it names, with the seed of lm-eval's command line.
    """
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    kept = {key: value for key, value in config.items() if key not in REPLACED or key == "fewshot_config"}
    data = {"test": Dataset.from_list(rows)}
    if examples := example_rows(config, benchmark):
        data["examples"] = Dataset.from_list(examples)
        settings = config.get("fewshot_config") or {}
        kept |= {
            "fewshot_split": "examples",
            "fewshot_config": {key: settings[key] for key in settings if key not in ("split", "process_docs")},
        }
    own_data = {"task": benchmark.name, "test_split": "test", "validation_split": None, "custom_dataset": lambda **_: data}
    task = ConfigurableTask(config=kept | own_data)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    shots = config.get("num_fewshot") or 0
    if benchmark.shots and len(examples) < shots:
        raise AtlasError(
            f"{benchmark.shots}: {benchmark.name} has {len(examples)} rows, and {shots} examples are to be drawn; lower shots.count"
        )
    return [task.fewshot_context(row, num_fewshot=shots, gen_prefix=task.doc_to_prefix(row)) for row in task.eval_docs]


def example_rows(config: dict[str, object], benchmark: BenchmarkFiles) -> list[dict]:
    """The rows of :meth:`BenchmarkFiles.examples` as the task's `process_docs` makes them."""
    from datasets import Dataset

    rows, settings = benchmark.examples(), config.get("fewshot_config") or {}
    function = settings["process_docs"] if "process_docs" in settings else config.get("process_docs")
    if not function or not rows:
        return rows
    try:
        return [dict(row) for row in function(Dataset.from_list(rows))]
    except Exception as error:  # noqa: BLE001 (a function of the task's author may raise anything)
        raise AtlasError(
            f"{benchmark.task}: process_docs fails on an example: {type(error).__name__}: {error}; see {benchmark.shots}"
        ) from None


def _missing(benchmark: str, row: dict, renderer: TaskRenderer, reason: str) -> dict[str, object]:
    """The sample of an item that is not scored."""
    known = {"prompt": row.get(PROMPT), "target": str(row.get(TARGET, renderer.target(row))), "cluster": row[CLUSTER]}
    return dict.fromkeys(SAMPLES) | {"benchmark": benchmark, "item": row[ITEM], "shots": row[SHOTS], "missing": reason} | known


def load_task(path: Path, template: dict | None, registered: RegistryTask | None = None) -> dict[str, object]:
    """The keys of a task file, its functions loaded; AtlasError where it has a problem or a function cannot be loaded.

    ``registered``: what it is in lm-eval's registry, whose metric comes first.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    found = task_checks.problems(str(path), None if registered else template, metric=registered and registered.metric)
    if found:
        raise AtlasError(found[0])
    try:
        config = load_yaml(path)
    except Exception as error:  # noqa: BLE001 (importing the module of a task's function runs any code)
        install = f"; {pip_install(task_checks.requirement(error.name))}" if isinstance(error, ModuleNotFoundError) and error.name else ""
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise AtlasError(f"{path}: a module of its functions cannot be imported: {reason}{install}") from None
    config = {key: value for key, value in config.items() if value is not None}
    return _as_registered(config, registered) if registered else config


def metric_name(config: dict[str, object]) -> str:
    """The name of the metric that is the benchmark's score."""
    metric = config["metric_list"][0]["metric"]
    return metric.__name__ if callable(metric) else metric


def metric_text(config: dict[str, object]) -> str:
    """The metric as scores name it: with the registry's task where the prompt is lm-eval's, so that it is never taken for the study's."""
    of_lm_eval = (config.get("metadata") or {}).get("lm_eval")
    return f"{metric_name(config)} (lm_eval: {of_lm_eval})" if of_lm_eval else metric_name(config)


def _generation_settings(settings: dict[str, object], own: int | None, most: int | None) -> dict[str, object]:
    """Settings of generation with the length under one name, `max_gen_toks`: ``own`` or else the task's, and at most ``most``."""
    stated = own or next((settings[name] for name in LENGTHS if settings.get(name)), None)
    lengths = [length for length in (stated, most) if length]
    others = {key: value for key, value in settings.items() if key not in LENGTHS}
    return others | ({"max_gen_toks": min(lengths)} if lengths else {})


def processed_items(rows: list[dict], function: Callable, where: Path) -> list[dict]:
    """The items that a task's `process_docs` makes of the rows, each with ITEM; it may leave some out.

    Raises AtlasError where it fails, and where the row of an item cannot be known.
    """
    from datasets import Dataset

    try:
        made = [dict(item) for item in function(Dataset.from_list(rows))]
        if all(ITEM in item for item in made):
            if len({item[ITEM] for item in made}) < len(made):
                raise AtlasError(
                    f"{where}: process_docs makes several items of one row, which is not supported; prepare a file with one row each"
                )
            return made
        # The rows' numbers are gone. Items in the order of the rows are what it makes of each row alone.
        tried = sorted({0, len(rows) // 2, len(rows) - 1})
        same = len(made) == len(rows) and all([dict(item) for item in function(Dataset.from_list([rows[i]]))] == [made[i]] for i in tried)
    except AtlasError:
        raise
    except Exception as error:  # noqa: BLE001 (a function of the task's author may raise anything)
        fields = ", ".join(key for key in rows[0] if key != ITEM)
        raise AtlasError(f"{where}: process_docs fails: {type(error).__name__}: {error}; the items have {fields}; see `columns`") from None
    if not same:
        raise AtlasError(
            f"{where}: process_docs leaves out or reorders items and drops their other fields; prepare a file of the items, and remove it"
        )
    return [{**item, ITEM: number} for number, item in enumerate(made)]


def _answers(renderer: TaskRenderer, row: dict, own: bool) -> list[str]:
    """What is scored by likelihood after the prompt, delimiter included: every option, or the right answer; [] where text is generated.

    The right answer of a `loglikelihood` task follows the delimiter of the template, or the one that the task states (lm-eval would
    ignore both). An answer that begins with it gets no second one.
    """
    if renderer.kind == "multiple_choice":
        if not renderer.keys.get("process_results"):
            renderer.right_options(row)
        return [renderer.delimiter + option for option in renderer.options(row)]
    renderer.check(row)
    if renderer.kind != "loglikelihood":
        return []
    stated = not own or "target_delimiter" in renderer.keys
    delimiter = renderer.delimiter if stated else ""
    return [delimiter + renderer.target(row).removeprefix(delimiter)]


def _compare_stripped(config: dict[str, object], rows: list[dict], renderer: TaskRenderer) -> list[dict]:
    """The rows with TARGET, and ``config`` changed to compare with it what its filters extract, both without surrounding white space."""
    targets = []
    for row in rows:
        target = renderer.target(row)
        target = "" if target is None else target
        if "doc_to_choice" in renderer.keys and isinstance(target, int):
            target = renderer.options(row)[renderer.right_options(row)[0]]
        targets.append([str(text).strip() for text in target] if isinstance(target, list) else str(target).strip())
        if not targets[-1]:
            raise AtlasError(f"{renderer.where}: doc_to_target gives no answer for item {row[ITEM]}; remove the item, or correct `columns`")
    if any(isinstance(target, list) for target in targets):
        targets = [target if isinstance(target, list) else [target] for target in targets]
    pipelines = config.get("filter_list") or [{"name": "none", "filter": [{"function": "take_first"}]}]
    strip = {"function": "custom", "filter_fn": _strip_answers}
    config["filter_list"] = [{**pipeline, "filter": [*pipeline["filter"], strip]} for pipeline in pipelines]
    config["doc_to_target"] = TARGET
    config.pop("doc_to_choice", None)
    return [{**row, TARGET: target} for row, target in zip(rows, targets, strict=True)]


def _strip_answers(answers, docs) -> list:
    """A filter of lm-eval: answers without surrounding white space."""
    return [answer.strip() if isinstance(answer, str) else answer for answer in answers]


def _inner(text: object, template: dict) -> str | None:
    """The part of doc_to_text that stands for the instruction, a Jinja template.

    With a chat template it is what stands between the two parts of the default template, as in the task files here; None where that is not
    around it, and all of doc_to_text is the instruction.
    """
    prefix, suffix = (Template().prompt if "chat" in template else template["prompt"]).split("{instruction}")
    around = isinstance(text, str) and len(text) >= len(prefix) + len(suffix) and text.startswith(prefix) and text.endswith(suffix)
    return text[len(prefix) : len(text) - len(suffix)] if around else None


def _examples(config: dict, benchmark: BenchmarkFiles, question: Callable) -> Callable[[dict], list[tuple[str, str]]]:
    """A function from an item to its examples: questions with their answers."""
    if benchmark.shots is None:
        return lambda row: []
    shots = [{**row, ITEM: number} for number, row in enumerate(read_items(benchmark.shots))]
    if config.get("process_docs"):
        shots = processed_items(shots, config["process_docs"], benchmark.task)
    shown = TaskRenderer(config | {key: value for key, value in (config.get("fewshot_config") or {}).items() if value}, benchmark.task)

    def answer(row: dict) -> str:
        given = shown.target(row)
        given = given[0] if isinstance(given, list) and given else given
        if isinstance(given, int) and not isinstance(given, bool) and "doc_to_choice" in shown.keys:
            given = shown.options(row)[shown.right_options(row)[0]]
        return str(given).strip()

    groups: dict[object, list[tuple[str, str]]] = {}
    for row in shots:
        groups.setdefault(row[benchmark.by] if benchmark.by else None, []).append((question(row), answer(row)))

    def chosen(row: dict) -> list[tuple[str, str]]:
        key = row[benchmark.by] if benchmark.by else None
        if key not in groups:
            raise AtlasError(f"{benchmark.shots}: no example has {benchmark.by} {key!r}, as items do; correct `shots.by`, or add examples")
        return groups[key]

    return chosen


@dataclass(frozen=True)
class LengthLimit:
    """Room in a model: ``max_length`` tokens of prompt and answer; ``default_answer`` tokens to generate where a task states none."""

    tokenizer: object
    max_length: int
    default_answer: int

    def lengths(self, texts: list[str]) -> list[int]:
        """Tokens of each text, specials included, as the model gets them."""
        return [len(ids) for ids in kept_ids(self.tokenizer, texts)]

    def longest(self, prompts: list[str], options: list[list[str]]) -> list[int]:
        """Tokens of each prompt with its longest option."""
        texts = [prompt + option for prompt, listed in zip(prompts, options, strict=True) for option in listed or [""]]
        counted = iter(self.lengths(texts))
        return [max(next(counted) for _ in listed or [""]) for listed in options]


def _shot_counts(prompt: Callable, options, rows, counts: list[int], config, benchmark, limit: LengthLimit | None) -> list[int | None]:
    """How many of its ``counts`` examples each item keeps: as many as fit, the last ones first, so that the question is never truncated.

    None for an item that does not fit even without examples; AtlasError where that is every item.

    ``prompt``: the text of an item, by its index and a number of examples.
    """
    if limit is None:
        return counts
    generated = config.get("generation_kwargs", {}).get("max_gen_toks", limit.default_answer)
    room = generated if config["output_type"] == "generate_until" else 0
    waiting = list(range(len(rows)))
    too_long = []
    while waiting:
        texts = [prompt(i, counts[i]) for i in waiting]
        lengths = limit.longest(texts, [options[i] for i in waiting])
        over = [i for i, length in zip(waiting, lengths, strict=True) if length + room > limit.max_length]
        too_long += [i for i in over if counts[i] == 0]
        waiting = [i for i in over if counts[i] > 0]
        for i in waiting:
            counts[i] -= 1
    if len(too_long) == len(rows):
        raise AtlasError(
            f"{benchmark.name}: every item is longer than {limit.max_length} tokens with its answer; raise max_length of the suite, or lower "
            "max_gen_toks of the task"
        )
    for i in too_long:
        counts[i] = None
    return counts
