"""Problems of an lm-eval task file, found without lm-eval, without its data and before any job: one line each, with file, key and remedy."""

import ast
import functools
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.optional_packages import pip_install
from sft_atlas.study.lm_eval_names import LENGTHS, SCORED, Names, generation_settings, lm_eval_names, package_folder
from sft_atlas.study.messages import nearest
from sft_atlas.study.rendering import compiled
from sft_atlas.study.schema import CHAT
from sft_atlas.study.task_files import OWN_TEMPLATE, Function, judged, metadata, task_file, task_sources, with_first

STRUCTURE = ("tag", "group", "group_alias", "aggregate_metric_list", "task_list", "class", "recipe")  # keys that are no field of a task
UNSUPPORTED = {
    "class": "the task is a Python class, which brings its own data and prompts; write a task file with the same prompt",
    "task_list": "the file describes several tasks; write a file with `include:` and the keys of one of them",
    "use_prompt": "prompts of promptsource are not supported; write the prompt into doc_to_text",
    "doc_to_image": "images are not supported; choose a text benchmark",
    "doc_to_audio": "audio is not supported; choose a text benchmark",
    "recipe": "recipes of unitxt are not supported; write a task file with the same prompt",
}
TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix")
FUNCTIONS = (*TEMPLATES, "process_docs", "process_results")
FORMER_METRICS = re.compile(r"!function\s+(sft_atlas\.scoring(\.\S+))")  # the former name of sft_atlas.evaluate.metrics
# Names under which packages are installed, where they are not those under which they are imported.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "PyYAML", "PIL": "pillow", "antlr4": "antlr4-python3-runtime", "bs4": "beautifulsoup4"}


def problems(path: str, template: dict | None = None, packages: bool = True, metric: str | None = None) -> list[str]:
    """What keeps a task file from being used; nothing where it can be.

    ``template``: the study's, which the prompt must be, unless the file has its own or it is a chat template; None: not compared. ``packages``: whether this Python
    is that of the scoring jobs, so that a package missing here is missing there. ``metric``: of the score, where it is not the first one. Data are not read: see
    :mod:`sft_atlas.study.rendering`.
    """
    try:
        keys = {key: value for key, value in task_file(path).items() if value is not None}
    except AtlasError as error:
        return [str(error)]
    names = lm_eval_names()
    if metric and isinstance(keys.get("metric_list"), list):
        keys["metric_list"] = with_first(keys["metric_list"], "metric", metric)
    if isinstance(keys.get("task"), list):
        members = [member.get("task", member.get("group")) if isinstance(member, dict) else member for member in keys["task"]]
        some = ", ".join([member for member in members if isinstance(member, str)][:4])
        return [f"{path}: task: the file is a group of tasks ({some}...); name the file of one of them"]
    texts = {source: Path(source).read_text(encoding="utf-8") for source in task_sources(path)}
    renamed = [(source, *match) for source, text in texts.items() for match in FORMER_METRICS.findall(text)]
    if renamed:
        return [f"{source}: {former} was renamed; write `!function sft_atlas.evaluate.metrics{name}`" for source, former, name in renamed]
    unsupported = [f"{path}: {key}: {reason}" for key, reason in UNSUPPORTED.items() if keys.get(key)]
    if unsupported:
        return unsupported
    kind = keys.get("output_type", "generate_until")
    place = f" (in a task file of your own with `include: {Path(path).resolve()}`)" if _is_lm_evals(path) else ""
    found = [f"{path}: {line}{place}" for line in (*_fields(keys, names), *_types(keys), *_kind(keys, kind))]
    if found:
        return found
    checks = [_metrics(keys, kind, names, judged(path)), _filters(keys, kind, names), _generation(keys, kind), _jinja(keys)]
    found = [f"{path}: {line}{place}" for check in checks for line in check]
    found += [f"{path}: {line}" for line in _functions(keys, packages)]
    if template is not None and (mismatch := template_mismatch(path, keys, template)):
        found.append(mismatch)
    return found


def template_mismatch(path: str, keys: dict[str, object], template: dict) -> str | None:
    """Why a task's prompt is not the study's template, in which the model is trained; None where it is, or the task has its own on purpose."""
    if metadata(path).get("template") == OWN_TEMPLATE:
        return None
    where = f"in a task file of your own with `include: {Path(path).resolve()}`" if _is_lm_evals(path) else "in the task file"
    own = f"state `metadata: {{template: {OWN_TEMPLATE}}}` {where}"
    if CHAT not in template:  # with a chat template, doc_to_text is the user's turn, whatever it is
        prefix, suffix = template["prompt"].split("{instruction}")
        before, _ = template["response"].split("{response}")
        text, delimiter = keys.get("doc_to_text"), keys.get("target_delimiter", " ")
        fitting = isinstance(text, str) and not isinstance(text, Function) and len(text) >= len(prefix) + len(suffix)
        if not (fitting and text.startswith(prefix) and text.endswith(suffix)) or delimiter != before:
            expected = template["prompt"].replace("{instruction}", "{{instruction}}"), before
            shown = f"!function {text}" if isinstance(text, Function) else text
            return (
                f"{path}: doc_to_text and target_delimiter are {(shown, delimiter)!r}, the study's template means {expected!r}, "
                f"where any text may stand for {{{{instruction}}}}; make them agree, or {own}"
            )
    for key in ("description", "gen_prefix"):
        if keys.get(key):
            return f"{path}: {key}: lm-eval would add it to the prompt, which is then not the study's template; remove it, or {own}"
    return None


def _is_lm_evals(path: str) -> bool:
    """Whether a task file belongs to the installed lm-eval, and should stay as it is."""
    folder = package_folder("lm_eval")
    return folder is not None and folder.resolve() in Path(path).resolve().parents


# ---------------------------------------------------------------- fields and their types


def _fields(keys: dict, names: Names | None) -> Iterator[str]:
    known = (*names.fields, *STRUCTURE) if names else ()
    for key in keys if names else ():
        if key not in known:
            yield f"{key}: not a field of lm-eval's tasks{nearest(key, known)}; correct or remove it"
    shots = keys.get("fewshot_config")
    for key in shots if names and isinstance(shots, dict) else ():
        if key not in names.fewshot_fields:
            yield f"fewshot_config.{key}: not a field of lm-eval's tasks{nearest(key, names.fewshot_fields)}; correct or remove it"


def _types(keys: dict) -> Iterator[str]:
    texts = ("output_type", "target_delimiter", "fewshot_delimiter", "description", "gen_prefix", "doc_to_text")
    kinds = dict.fromkeys(texts, (str, "text")) | dict.fromkeys(("metric_list", "filter_list"), (list, "a list"))
    kinds |= dict.fromkeys(("generation_kwargs", "metadata", "fewshot_config"), (dict, "keys and values"))
    kinds |= {"unsafe_code": (bool, "true or false"), "repeats": (int, "a number")}
    kinds |= {
        "doc_to_choice": ((str, list, dict), "a field, a template or a list"),
        "doc_to_target": ((str, int, list), "a field or a template"),
    }
    kinds |= dict.fromkeys(("process_docs", "process_results", "custom_dataset"), (Function, "a function, as `!function module.name`"))
    for key, (kind, expected) in kinds.items():
        if key in keys and not isinstance(keys[key], kind):
            yield f"{key}: must be {expected}, not {keys[key]!r}"


def _kind(keys: dict, kind: str) -> Iterator[str]:
    if kind == "loglikelihood_rolling":
        yield "output_type: loglikelihood_rolling measures perplexity of texts, not answers; `measure: {perplexity: ...}` in the study does that"
    elif kind not in SCORED:
        yield f"output_type: {kind!r} is not one of {', '.join(SCORED)}{nearest(str(kind), SCORED)}"
    for key in ("doc_to_text", "doc_to_target", *(["doc_to_choice"] if kind == "multiple_choice" else [])):
        if key not in keys:
            yield f"{key}: missing; a task of output_type {kind} needs it"
    if keys.get("repeats", 1) != 1:
        yield f"repeats: {keys['repeats']} answers per item are not supported; remove it, or set it to 1"
    if (keys.get("metadata") or {}).get("template", OWN_TEMPLATE) != OWN_TEMPLATE:
        yield f"metadata.template: must be {OWN_TEMPLATE!r} or left out, not {keys['metadata']['template']!r}"


# ---------------------------------------------------------------- metrics, filters, generation


def _metrics(keys: dict, kind: str, names: Names | None, protocol: str | None) -> Iterator[str]:
    listed = keys.get("metric_list")
    if not listed:
        yield "metric_list is missing; its first metric is the benchmark's score"
    for i, entry in enumerate(listed or []):
        metric = entry.get("metric") if isinstance(entry, dict) else None
        place = f"metric_list[{i}]"
        if not isinstance(metric, str):
            yield f"{place}: must be keys and values with `metric`, not {entry!r}"
        elif protocol is None:
            wrong = list(_metric(f"{place}.metric", metric, kind, names, "process_results" in keys, entry, first=i == 0))
            yield from wrong or _aggregation(f"{place}.aggregation", metric, entry, names, first=i == 0)


def _metric(place: str, metric: str, kind: str, names: Names | None, own_scores: bool, entry: dict, first: bool) -> Iterator[str]:
    if own_scores or names is None:  # the function process_results names its scores as it likes
        return
    scored = SCORED[kind]
    if entry.get("hf_evaluate"):
        yield f"{place}: {metric} would be loaded with hf_evaluate from the hub, as code; remove it, or name a function (`!function`)"
    elif isinstance(metric, Function):
        if kind != "generate_until":
            yield f"{place}: lm-eval calls own metrics of generate_until only; use one of {', '.join(scored)}, or process_results"
    elif metric not in names.metrics:
        yield (
            f"{place}: lm-eval has no metric {metric!r}{nearest(metric, names.metrics)} and would look for code of that name on the hub; "
            f"use one of {', '.join(scored)}, or a function (`!function`)"
        )
    elif metric == "acc_mutual_info":
        yield f"{place}: acc_mutual_info is not supported; use one of {', '.join(scored)}"
    elif first and metric not in scored:
        yield f"{place}: {metric!r} is no score per item of a {kind} task; put one of {', '.join(scored)} first"


def _aggregation(place: str, metric: str, entry: dict, names: Names | None, first: bool) -> Iterator[str]:
    given = entry.get("aggregation")
    known = names.metrics.get(metric) if names and not isinstance(metric, Function) else None
    if given is None and names and known is None:
        yield f"{place}: missing; lm-eval knows none for {metric!r}; write `aggregation: mean`"
    elif given is not None and not isinstance(given, Function) and names and given not in names.aggregations:
        yield f"{place}: lm-eval has no aggregation {given!r}{nearest(str(given), names.aggregations)}; write `mean`"
    elif first and (given or (known.aggregation if known else "mean")) != "mean":
        yield (
            f"{place}: {given or known.aggregation} is not the mean of the items' scores, which a benchmark's score here is; "
            "put a metric with `aggregation: mean` first"
        )


def _filters(keys: dict, kind: str, names: Names | None) -> Iterator[str]:
    registered = _registered_in_modules(keys)
    for i, pipeline in enumerate(keys.get("filter_list", [])):
        place = f"filter_list[{i}]"
        steps = pipeline.get("filter") if isinstance(pipeline, dict) else None
        if not isinstance(steps, list) or not isinstance(pipeline.get("name"), str):
            yield f"{place}: must be `name` and `filter`, a list of steps, not {pipeline!r}"
            continue
        for j, step in enumerate(steps):
            function = step.get("function") if isinstance(step, dict) else None
            if not isinstance(function, str):
                yield f"{place}.filter[{j}]: must be keys and values with `function`, not {step!r}"
            elif names and not isinstance(function, Function) and function not in registered:
                yield from _filter(f"{place}.filter[{j}]", function, step, names)
        last = steps[-1].get("function") if steps and isinstance(steps[-1], dict) else None
        if kind == "generate_until" and "process_results" not in keys and last in ("regex", "remove_whitespace", "lowercase", "uppercase"):
            yield f"{place}: ends with {last}, so that a list would be compared with a text and never be equal; add {{function: take_first}}"


def _filter(place: str, function: str, step: dict, names: Names) -> Iterator[str]:
    if function not in names.filters:
        yield f"{place}.function: lm-eval has no filter {function!r}{nearest(function, names.filters)} (there are {', '.join(names.filters)})"
        return
    known = names.filters[function]
    for key in step if not known.open else ():
        if key not in ("function", *known.settings):
            settings = ", ".join(known.settings) or "none"
            yield f"{place}.{key}: the filter {function} has no such setting{nearest(key, known.settings)} (it has {settings})"
    if function == "custom" and "filter_fn" not in step:
        yield f"{place}.filter_fn: missing; name the function of the filter, as `!function module.name`"
    if "regex_pattern" in step:
        try:
            re.compile(step["regex_pattern"])
        except (re.error, TypeError) as error:
            yield f"{place}.regex_pattern: {step['regex_pattern']!r} is not a regular expression: {error}"


def _generation(keys: dict, kind: str) -> Iterator[str]:
    settings = keys.get("generation_kwargs", {}) if kind == "generate_until" else {}
    known = generation_settings()
    for key, value in settings.items():
        if known and key not in known:
            yield f"generation_kwargs.{key}: not a setting of generation{nearest(str(key), known)}; correct or remove it"
        if key in LENGTHS and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            yield f"generation_kwargs.{key}: must be a number of tokens, not {value!r}"
    until = settings.get("until", [])
    if not all(isinstance(text, str) and text for text in (until if isinstance(until, list) else [until])):
        yield f"generation_kwargs.until: must be texts that end an answer, none empty, not {until!r}"


def _jinja(keys: dict) -> Iterator[str]:
    shots = keys.get("fewshot_config", {})
    templates = {key: keys.get(key) for key in TEMPLATES} | {f"fewshot_config.{key}": shots.get(key) for key in TEMPLATES}
    templates["metadata.cluster"] = (keys.get("metadata") or {}).get("cluster")
    for key, text in templates.items():
        if isinstance(text, str) and not isinstance(text, Function):
            try:
                compiled(text)
            except AtlasError as error:
                yield f"{key}: {error}"


# ---------------------------------------------------------------- functions, their modules and packages


def functions(keys: dict) -> Iterator[tuple[str, Function]]:
    """Key and name of every function that a task names."""
    shots = keys.get("fewshot_config", {})
    values = [(key, keys.get(key)) for key in FUNCTIONS] + [(f"fewshot_config.{key}", value) for key, value in shots.items()]
    for i, entry in enumerate(keys.get("metric_list") or []):
        values += [(f"metric_list[{i}].{key}", value) for key, value in entry.items()] if isinstance(entry, dict) else []
    for i, pipeline in enumerate(keys.get("filter_list") or []):
        for j, step in enumerate(pipeline.get("filter") or []) if isinstance(pipeline, dict) else ():
            values += [(f"filter_list[{i}].filter[{j}].{key}", value) for key, value in step.items()] if isinstance(step, dict) else []
    return ((key, value) for key, value in values if isinstance(value, Function))


def _functions(keys: dict, packages: bool) -> Iterator[str]:
    absent: dict[str, None] = {}
    downloads: dict[str, None] = {}
    for key, function in functions(keys):
        module, _, name = function.rpartition(".")
        file = module_file(function)
        if not module:
            yield f"{key}: `!function {function}` names no module; write `!function module.name`"
        elif file is None:
            if packages or package_folder(module.partition(".")[0]) is not None:
                yield f"{key}: `!function {function}`: there is no {module.replace('.', '/')}.py in {function.folder or '.'}, and no module {module}"
        else:
            try:
                defined = _module(file)
            except (SyntaxError, OSError, UnicodeDecodeError) as error:
                yield f"{key}: {file} is not Python that can be read: {' '.join(str(error).split())}"
                continue
            if defined.names is not None and name not in defined.names:
                yield f"{key}: {file} has no function {name!r}{nearest(name, defined.names)}"
            absent |= dict.fromkeys(missing_packages(file)) if packages else {}
            downloads |= dict.fromkeys(missing_nltk_data(file)) if packages else {}
    if absent:
        yield f"functions of the task import {', '.join(absent)}, not installed here; {pip_install(' '.join(map(requirement, absent)))}"

    for name in [] if absent else downloads:
        yield (
            f"functions of the task would download {name} of nltk when they run, and a job downloads nothing; run "
            f"`python -m nltk.downloader -d FOLDER {name}` once, or unpack {name}.zip of github.com/nltk/nltk_data into FOLDER/tokenizers, and "
            "set NLTK_DATA to FOLDER"
        )


def requirement(package: str) -> str:
    """What to install for a module that cannot be imported, with the version that lm-eval asks for."""
    name = DISTRIBUTIONS.get(package, package)
    try:
        wanted = importlib.metadata.requires("lm_eval") or []
    except importlib.metadata.PackageNotFoundError:
        wanted = []
    asked = (line.partition(";")[0].strip() for line in wanted)
    return next((f"'{line}'" for line in asked if re.match(rf"{re.escape(name)}(?![\w-])", line, re.IGNORECASE) and line != name), name)


def module_file(function: Function) -> Path | None:
    """The file of a function's module, beside the task file or in an installed package; None where there is none."""
    module = function.rpartition(".")[0]
    beside = Path(function.folder, f"{module.replace('.', '/')}.py")
    return beside if module and beside.exists() else _installed(module)


def _installed(module: str) -> Path | None:
    folder = package_folder(module.partition(".")[0]) if module else None
    if folder is None:
        return None
    stem = folder.joinpath(*module.split(".")[1:])
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.exists()), None)


class _Module:
    """Names that a module defines (None: not known, where it computes them), and the modules that it imports when it is imported."""

    def __init__(self, file: Path):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        self.names: set[str] | None = set()
        self.imports: list[tuple[int, str]] = []  # relative level and module
        self._read(tree.body, guarded=False)
        if any(isinstance(node, ast.Name) and node.id == "globals" for node in ast.walk(tree)):
            self.names = None

    def _read(self, body: list[ast.stmt], guarded: bool) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    self._add((alias.asname or alias.name).partition(".")[0])
                if not guarded:
                    modules = [alias.name for alias in node.names]
                    if isinstance(node, ast.ImportFrom):  # what is imported may be a module of the package
                        modules = [node.module or "", *(f"{node.module}.{name}" if node.module else name for name in modules)]
                    self.imports += [(getattr(node, "level", 0), module) for module in modules]
            elif isinstance(node, ast.Try):
                raised = any(isinstance(part, ast.Raise) for handler in node.handlers for part in ast.walk(handler))
                self._read(node.body, guarded or (bool(node.handlers) and not raised))
                for handler in node.handlers:
                    self._read(handler.body, True)
                self._read([*node.orelse, *node.finalbody], guarded)
            elif isinstance(node, ast.If | ast.With | ast.For | ast.While):
                self._read([*node.body, *getattr(node, "orelse", [])], guarded or isinstance(node, ast.If))
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for part in (part for target in targets for part in ast.walk(target)):
                    self._add(part.id if isinstance(part, ast.Name) else "")

    def _add(self, name: str) -> None:
        if name == "*":
            self.names = None
        elif self.names is not None:
            self.names.add(name)


_module: Callable[[Path], _Module] = functools.cache(_Module)


@functools.cache
def missing_packages(file: Path) -> tuple[str, ...]:
    """Packages that a module imports, directly or by way of lm-eval's own task modules, and that are not installed."""
    return _reached(file)[1]


@functools.cache
def missing_nltk_data(file: Path) -> tuple[str, ...]:
    """Tokenizers of nltk that a module, or one of lm-eval's that it imports, downloads where they are not installed, and that are not."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in _reached(file)[0]]
    wanted = dict.fromkeys(name for text in texts for name in re.findall(r"nltk\.download\([\"'](punkt\w*)[\"']", text))
    shared = [f"{folder}/nltk_data" for folder in (sys.prefix, f"{sys.prefix}/share", f"{sys.prefix}/lib")]
    shared += [
        f"{folder}/nltk_data" for folder in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib", os.path.expanduser("~"))
    ]
    folders = [folder for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep) if folder] + shared
    # As nltk finds them: unpacked or as archives.
    return tuple(
        name for name in wanted if not any(os.path.exists(f"{place}/tokenizers/{name}{end}") for place in folders for end in ("", ".zip"))
    )


@functools.cache
def _reached(file: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The module and lm-eval's own task modules that it imports; and the packages that they import and that are not installed."""
    absent, seen, waiting = {}, {}, [file]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen[current] = None
        for level, name in _imports(current):
            if level:
                near = current.parents[level - 1].joinpath(*name.split("."))
                waiting += [path for path in (near.with_suffix(".py"), near / "__init__.py") if path.exists()]
            elif name.startswith("lm_eval.tasks."):
                waiting += [path for path in (_installed(name),) if path]
            elif not _is_installed(name.partition(".")[0]):
                absent[name.partition(".")[0]] = None
    return tuple(seen), tuple(absent)


def _imports(file: Path) -> list[tuple[int, str]]:
    try:
        return _module(file).imports
    except (SyntaxError, OSError, UnicodeDecodeError):
        return []  # reported where a function is looked up in it


@functools.cache
def _is_installed(package: str) -> bool:
    return package in sys.stdlib_module_names or importlib.util.find_spec(package) is not None


def _registered_in_modules(keys: dict) -> set[str]:
    """Filters that the modules of a task's functions register when they are imported."""
    files = {module_file(function) for _, function in functions(keys)} if keys.get("filter_list") else set()
    texts = [file.read_text(encoding="utf-8") for file in files if file]
    return {name for text in texts for name in re.findall(r"register_filter\(\s*[\"']([^\"']+)", text)}
