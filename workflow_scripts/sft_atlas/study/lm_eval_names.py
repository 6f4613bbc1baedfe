"""What the installed lm-eval knows: fields of task files, metrics, filters and settings of generation. Read from its source files, because
importing it takes seconds and the workflow is parsed often."""

import ast
import functools
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm-eval's names of one setting

# Metrics that lm-eval computes as one number per item, by kind of task; a benchmark's score is their mean.
SCORED = {
    "generate_until": ("exact_match",),
    "multiple_choice": ("acc", "acc_norm", "acc_bytes", "exact_match"),
    "loglikelihood": ("acc",),
}


class Metric(NamedTuple):
    """A metric of lm-eval: how a benchmark's score is made of its items' values, and the kinds of tasks that have it."""

    aggregation: str
    output_types: tuple[str, ...]


class Filter(NamedTuple):
    """A filter of lm-eval: its settings, and whether it takes others too."""

    settings: tuple[str, ...]
    open: bool


class Names(NamedTuple):
    """What the installed lm-eval knows, by kind."""

    fields: tuple[str, ...]
    fewshot_fields: tuple[str, ...]
    metrics: dict[str, Metric]
    aggregations: tuple[str, ...]
    filters: dict[str, Filter]


@functools.cache
def lm_eval_names() -> Names | None:
    """The names of the installed lm-eval; None where there is none, as in the environment of Snakemake when jobs have their own."""
    folder = package_folder("lm_eval")
    if folder is None:
        return None
    classes = {node.name: node for node in _tree(folder / "config/task.py").body if isinstance(node, ast.ClassDef)}
    metrics, aggregations, filters = {}, [], {}
    for _, settings in _registered(folder / "api/metrics.py", "register_metric"):
        kinds = settings.get("output_type", ())
        metrics[settings["metric"]] = Metric(settings.get("aggregation", "mean"), (kinds,) if isinstance(kinds, str) else tuple(kinds))
    for _, settings in _registered(folder / "api/metrics.py", "register_aggregation"):
        aggregations.append(settings[0])
    known: dict[str, Filter] = {}  # by class, for those without an `__init__` of their own
    for path in sorted((folder / "filters").glob("*.py")):
        for node, settings in _registered(path, "register_filter"):
            start = next((part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None)
            bases = [known[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in known]
            if start is None:
                known[node.name] = bases[0] if bases else Filter((), True)
            else:
                known[node.name] = Filter(tuple(argument.arg for argument in start.args.args[1:]), start.args.kwarg is not None)
            filters[settings[0]] = known[node.name]
    return Names(_fields(classes["TaskConfig"]), _fields(classes["FewshotConfig"]), metrics, tuple(aggregations), filters)


@functools.cache
def generation_settings() -> frozenset[str]:
    """Keys that `generation_kwargs` may have; empty where transformers is not installed."""
    folder = package_folder("transformers")
    if folder is None:
        return frozenset()
    text = (folder / "generation/configuration_utils.py").read_text(encoding="utf-8")
    return frozenset(re.findall(r"self\.([a-z]\w*) = kwargs\.pop\(", text)) | {"until", *LENGTHS}


@functools.cache
def package_folder(name: str) -> Path | None:
    """The folder of an installed package, which is not imported; None where it is not installed or no folder."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _fields(node: ast.ClassDef) -> tuple[str, ...]:
    return tuple(part.target.id for part in node.body if isinstance(part, ast.AnnAssign))


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _registered(path: Path, decorator: str) -> list[tuple[ast.AST, dict]]:
    """Definitions with lm-eval's decorator, each with the decorator's arguments by position and name."""
    found = []
    for node in _tree(path).body:
        for call in getattr(node, "decorator_list", ()):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == decorator:
                arguments = dict(enumerate(map(_value, call.args)))
                found.append((node, arguments | {word.arg: _value(word.value) for word in call.keywords}))
    return found


def _value(node: ast.AST) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
