"""From an lm-eval task file and a benchmark's items to finished prompts: template checked, few-shot examples prepended as far as they fit."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import sha256, write_json
from sft_atlas.models.prompt_template import render
from sft_atlas.models.tokenization import prompt_ids
from sft_atlas.study.items import read_items
from sft_atlas.study.task_files import task_sources

PROMPT = "rendered prompt"  # column of an item's prompt
SHOTS = "shots in the prompt"  # column of how many examples stand in it
CLUSTER = "cluster of the item"  # column of what the item shares with others, such as a passage; null where nothing
OWN_TEMPLATE = "own"  # `metadata: {template: own}` in a task file: the task has a prompt of its own on purpose
DELIMITER = "\n\n"  # between examples, as in lm-eval


@dataclass(frozen=True)
class BenchmarkFiles:
    """A benchmark on disk: its lm-eval task file, its items, and the examples that are put before each of them."""

    name: str
    task: Path
    items: Path
    shots: Path | None = None
    by: str | None = None  # field that an item's examples share with it, such as `subject`


@dataclass(frozen=True)
class SuiteFile:
    """The benchmarks of one evaluation job, as a file whose content changes with that of any file behind them.

    Fields of the file: ``name``, ``benchmarks`` (those of ``BenchmarkFiles``) and ``sha256`` (file -> hash).
    """

    name: str
    benchmarks: list[BenchmarkFiles]

    @classmethod
    def read(cls, path: Path) -> "SuiteFile":
        """Read a suite that ``write`` wrote."""
        return TypeAdapter(cls).validate_json(path.read_text(encoding="utf-8"))

    def write(self, path: Path) -> None:
        """Write the suite with the hash of every file behind it, the files that a task file includes too."""
        paths = [file for b in self.benchmarks for file in (*map(Path, task_sources(str(b.task))), b.items, b.shots) if file]
        write_json(path, {**TypeAdapter(SuiteFile).dump_python(self, mode="json"), "sha256": {str(path): sha256(path) for path in paths}})


def task_config(
    benchmark: BenchmarkFiles, template: dict[str, str] | None, limit: "LengthLimit | None" = None, max_new_tokens: int | None = None
) -> dict[str, object]:
    """The lm-eval task as a dictionary that reads the benchmark's own items, with prompts as one column.

    Examples that exceed ``limit`` are left out; without a limit every example is used and no length is checked. Without a template
    prompts are empty, for scoring stored answers. Raises AtlasError where the task's prompt differs from the study's template (the model
    would be scored in a format that it was not trained on), where the task states no metric, and where a question exceeds the limit even
    without examples.
    """
    from datasets import Dataset
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(benchmark.task)
    if not config.get("metric_list"):
        raise AtlasError(f"{benchmark.task}: metric_list is missing; its first metric is the benchmark's score")
    if max_new_tokens and "generation_kwargs" in config:
        settings = config["generation_kwargs"]
        config["generation_kwargs"] = {**settings, "max_gen_toks": min(max_new_tokens, settings.get("max_gen_toks", max_new_tokens))}
    rows = read_items(benchmark.items)
    metadata = {"version": 1.0, **config.pop("metadata", {})}
    own = metadata.get("template") == OWN_TEMPLATE
    if own and benchmark.shots:
        raise AtlasError(f"{benchmark.task}: has a template of its own, in which there is no place for examples; remove `shots`")
    if template is None:
        rows, config["doc_to_text"] = [{**row, PROMPT: ""} for row in rows], PROMPT
    elif not own:
        _check_template(config, benchmark, template)
        # The same text from a column: lm-eval would compile its Jinja template anew for every item.
        prefix, suffix = template["prompt"].split("{instruction}")
        text = config["doc_to_text"]
        question = _jinja(text[len(prefix) : len(text) - len(suffix)], benchmark.task)
        prompts = [render(template, question(row))[0] for row in rows]
        options = [_options(config, row, benchmark.task) for row in rows]
        examples = _examples(config, benchmark, template, question)
        counts = _shot_counts(prompts, options, rows, examples, config, benchmark, limit)
        finished = [_with_examples(prompt, examples(row), count) for row, prompt, count in zip(rows, prompts, counts, strict=True)]
        rows = [{**row, PROMPT: prompt, SHOTS: count} for row, prompt, count in zip(rows, finished, counts, strict=True)]
        config["doc_to_text"] = PROMPT
    # A cluster's name is the hash of what its items share; None where they share nothing.
    shared = _jinja(metadata.get("cluster", ""), benchmark.task)
    clusters = [hashlib.sha256(text.encode()).hexdigest()[:16] if text else None for text in map(shared, rows)]
    rows = [{SHOTS: 0, **row, CLUSTER: cluster} for row, cluster in zip(rows, clusters, strict=True)]
    for key in ("dataset_path", "dataset_name", "dataset_kwargs", "group", "tag", "fewshot_config", "fewshot_split"):
        config.pop(key, None)
    own_data = {"test_split": "test", "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)}}
    return {**config, "task": benchmark.name, "num_fewshot": 0, "metadata": metadata, **own_data}


def _with_examples(prompt: str, examples: list[str], count: int) -> str:
    """The last ``count`` examples and the prompt."""
    return DELIMITER.join([*examples[len(examples) - count :], prompt])


def _check_template(config: dict, benchmark: BenchmarkFiles, template: dict[str, str]) -> None:
    prefix, suffix = template["prompt"].split("{instruction}")
    before, _ = template["response"].split("{response}")
    text, delimiter = config.get("doc_to_text"), config.get("target_delimiter", " ")
    fitting = isinstance(text, str) and len(text) >= len(prefix) + len(suffix) and text.startswith(prefix) and text.endswith(suffix)
    if not fitting or delimiter != before:
        expected = template["prompt"].replace("{instruction}", "{{instruction}}"), before
        raise AtlasError(
            f"{benchmark.task}: doc_to_text and target_delimiter are {(text, delimiter)!r}, the study's template means {expected!r}, "
            f"where any text may stand for {{{{instruction}}}}; make them agree, or state `metadata: {{template: {OWN_TEMPLATE}}}` in the task file"
        )


def _jinja(text: str, where: Path) -> Callable[[dict], str]:
    """A Jinja template, compiled once; a field that an item lacks is an error."""
    import jinja2
    from lm_eval.utils import env

    compiled = env.from_string(text)

    def fill(row: dict) -> str:
        try:
            return compiled.render(**row)
        except (jinja2.UndefinedError, TypeError, ValueError) as error:
            raise AtlasError(f"{where}: {text!r} cannot be filled in: {error}; the item has {', '.join(row)}; see `columns`") from None

    return fill


def _options(config: dict, row: dict, where: Path) -> list[str]:
    """The options of a choice task, each with the delimiter before it."""
    choices = config.get("doc_to_choice")
    if choices is None or config.get("output_type") != "multiple_choice":
        return []
    listed = row.get(choices) if isinstance(choices, str) else choices
    if not isinstance(listed, list):
        raise AtlasError(f"{where}: doc_to_choice must be a list or the name of a field that holds one, not {choices!r}")
    return [config.get("target_delimiter", " ") + option for option in listed]


def _examples(config: dict, benchmark: BenchmarkFiles, template: dict[str, str], question: Callable) -> Callable[[dict], list[str]]:
    """A function from an item to its examples, rendered with their answers."""
    if benchmark.shots is None:
        return lambda row: []
    target = config.get("fewshot_config", {}).get("doc_to_target", config.get("doc_to_target"))

    def answer(row: dict) -> str:
        given = row[target] if target in row else _jinja(str(target), benchmark.task)(row)
        if isinstance(given, int) and not isinstance(given, bool):
            given = _options(config, row, benchmark.task)[given].removeprefix(config.get("target_delimiter", " "))
        return str(given).strip()

    groups: dict[object, list[str]] = {}
    for row in read_items(benchmark.shots):
        groups.setdefault(row[benchmark.by] if benchmark.by else None, []).append("".join(render(template, question(row), answer(row))))

    def chosen(row: dict) -> list[str]:
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
        return [len(ids) for ids in prompt_ids(self.tokenizer, texts)]

    def longest(self, prompts: list[str], options: list[list[str]]) -> list[int]:
        """Tokens of each prompt with its longest option."""
        texts = [prompt + option for prompt, listed in zip(prompts, options, strict=True) for option in listed or [""]]
        counted = iter(self.lengths(texts))
        return [max(next(counted) for _ in listed or [""]) for listed in options]


def _shot_counts(prompts, options, rows, examples, config, benchmark, limit: LengthLimit | None) -> list[int]:
    """How many examples each item keeps: as many as fit, the last ones first, so that the question is never truncated."""
    counts = [len(examples(row)) for row in rows]
    if limit is None:
        return counts
    generated = config.get("generation_kwargs", {}).get("max_gen_toks", limit.default_answer)
    room = 0 if config.get("output_type") == "multiple_choice" else generated
    waiting = list(range(len(rows)))
    too_long = []
    while waiting:
        texts = [_with_examples(prompts[i], examples(rows[i]), counts[i]) for i in waiting]
        lengths = limit.longest(texts, [options[i] for i in waiting])
        over = [i for i, length in zip(waiting, lengths, strict=True) if length + room > limit.max_length]
        too_long += [i for i in over if counts[i] == 0]
        waiting = [i for i in over if counts[i] > 0]
        for i in waiting:
            counts[i] -= 1
    if too_long:
        raise AtlasError(
            f"{benchmark.name}: {len(too_long)} prompts with their answers are longer than {limit.max_length} tokens, the first is item {min(too_long)}; "
            "raise max_length of the suite, lower max_gen_toks of the task, or drop the items"
        )
    return counts
