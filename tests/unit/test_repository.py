"""Promises that the repository makes about itself: generated pages, pins, the anatomy of rules, command lines."""

import ast
import importlib
import json
import re
import subprocess
import sys

import pytest

from helpers.waiting import HANG
from sft_atlas.core import job
from sft_atlas.core.provenance import ROOT
from sft_atlas.study import document_config
from sft_atlas.study.paths import Paths
from sft_atlas.study.schema import BenchmarkColumns, Part, Recipe, Source

SOURCES = sorted(path for path in (ROOT / "workflow_scripts").rglob("*.py") if path.stat().st_size)
RULE_FILES = sorted((ROOT / "rules").glob("*.smk"))
HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "lm_eval",
    "datasets",
    "accelerate",
    "sklearn",
    "scipy",
    "matplotlib",
    "reasoning_gym",
    "umap",
    "datasketch",
    "snakemake",
)


def name_of(path):
    return str(path.relative_to(ROOT))


def test_the_folders_of_the_top_level_are_the_agreed_ones():
    agreed = {"benchmarks", "config", "docs", "envs", "profiles", "results", "rules", "slurm", "tests", "workflow_scripts"}
    ended = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        pytest.skip("needs a clone made by git, which lists the files")
    assert {name.split("/")[0] for name in ended.stdout.splitlines() if "/" in name and not name.startswith(".")} == agreed


# ---------------------------------------------------------------- generated pages


@pytest.mark.parametrize("name", ["config/README.md", *document_config.schemas()])
def test_a_generated_page_says_what_the_schema_says(name):
    expected = document_config.documents()[ROOT / name]
    assert (ROOT / name).read_text(encoding="utf-8") == expected, "stale; run python workflow_scripts/run.py document_config"


@pytest.mark.parametrize(
    "part", Part.__subclasses__() + Source.__subclasses__() + [Recipe, BenchmarkColumns], ids=lambda part: part.__name__
)
def test_every_key_of_the_study_file_is_explained(part):
    page = (ROOT / "config/README.md").read_text(encoding="utf-8")
    for key, field in part.model_fields.items():
        assert field.description, f"{part.__name__}.{key} has no description"
        assert f"| `{field.alias or key}` |" in page
        assert f"| {field.description} |" in page


# ---------------------------------------------------------------- rules


def rules():
    """Every rule of the workflow as (file, name, text of its body)."""
    result = []
    for path in RULE_FILES:
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"^( *)rule ?(\w*):\n((?:\1 {4}.*\n|\s*\n)+)", text, re.MULTILINE):
            named = re.search(r'name:\s+f?"([^"]+)"', match[3])
            result.append((path.name, match[2] or named[1], match[3]))
    return result


RULES = rules()
JOBS = [rule for rule in RULES if re.search(r"^ +shell:$", rule[2], re.MULTILINE)]


EVER = {"compare_backends", "pack", "plan", "doctor", "watch"}  # without output, so that they run whenever they are asked for


def test_the_rules_are_found():
    names = {name for _, name, _ in RULES}
    assert {"fetch_model", "train", "train_{recipe}", "evaluate", "collect", "plot"} <= names
    assert len(names) == len(RULES)
    assert sum(len(re.findall(r"^ *rule\b", path.read_text(encoding="utf-8"), re.MULTILINE)) for path in RULE_FILES) == len(RULES)


def test_no_name_is_defined_twice_because_all_files_of_rules_share_one_space():
    names = [
        name
        for path in RULE_FILES
        for name in re.findall(r"^(?:def )?(\w+)(?:\(.*\):| = )", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(names) > 10
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


@pytest.mark.parametrize(("file", "name", "body"), JOBS, ids=[name for _, name, _ in JOBS])
def test_a_job_has_output_log_and_environment(file, name, body):
    directives = re.findall(r"^ +(\w+):", body, re.MULTILINE)
    for directive in ("log", "conda") if name in EVER else ("output", "log", "conda"):
        assert directive in directives, f"{file}: rule {name} has no {directive}"
    assert "--log {log}" in body
    environment = re.search(r'conda:\s+("\.\./envs/\w+\.yaml"|evaluate\.\w*environment)', body)[1]
    assert environment.startswith("evaluate.") or (ROOT / "rules" / environment.strip('"')).exists()


@pytest.mark.parametrize(("file", "name", "body"), JOBS, ids=[name for _, name, _ in JOBS])
def test_a_rules_name_leads_to_its_code_its_test_and_its_log(file, name, body):
    room, rule = file.removesuffix(".smk"), name.removesuffix("_{recipe}")
    assert re.findall(r"workflow_scripts/run\.py (\w+)", body.split("shell:")[1]) == [rule]
    assert job.modules()[rule] == f"sft_atlas.{room}.{rule}"
    test = ROOT / f"tests/unit/{room}/test_{rule}.py"
    assert test.exists(), f"rule {name} has no {name_of(test)}"
    assert re.search(r"^def test_", test.read_text(encoding="utf-8"), re.MULTILINE)
    assert re.search(rf'log:\s+(paths\.(?:checkpoint_)?log\("{rule}"|f"\{{LOGS\}}/{rule}[/.])', body)
    assert Paths("results/demo").log(rule, "x") == f"results/demo/logs/{rule}/x.log"


@pytest.mark.parametrize(("file", "name", "body"), RULES, ids=[name for _, name, _ in RULES])
def test_a_rule_says_what_it_is_for(file, name, body):
    generated = re.match(r"\s+name:\n\s+f?\"[^\"]+\"\n", body)
    assert generated or re.match(r'\s+"""[A-Z].+\."""\n', body), f"{file}: rule {name} has no docstring"


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_a_file_of_rules_opens_with_its_contract(path):
    text = path.read_text(encoding="utf-8")
    head = re.match(r"(#.*\n)+", text)[0]
    assert re.search(r"^# requires ", head, re.MULTILINE)
    assert re.search(r"^# gives ", head, re.MULTILINE) or not re.search(r"^ *rule\b", text, re.MULTILINE)


# ---------------------------------------------------------------- sources


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_says_what_it_does(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def swallows(handler):
    """Whether a handler of everything neither raises nor exits nor shows the traceback."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    if not any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds):
        return False
    calls = {ast.unparse(node.func) for node in ast.walk(handler) if isinstance(node, ast.Call)}
    shown = {"LOG.exception", "traceback.print_exc", "sys.exit", "os._exit", "leave"}  # leave: os._exit, out of reach of what jail.py runs
    shown |= {"self.described", "reason"}  # what a program of the sandbox raised is the answer to its tests, or the verdict
    return not calls & shown and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_error_is_swallowed(path):
    handlers = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ExceptHandler)]
    assert [handler.lineno for handler in handlers if swallows(handler)] == []
    assert [
        handler.lineno
        for handler in handlers
        if all(isinstance(line, ast.Pass | ast.Continue) for line in handler.body) and ast.unparse(handler.type) not in ("psutil.Error",)
    ] == []


@pytest.mark.parametrize(
    "code", ["try: a()\nexcept: pass", "try: a()\nexcept Exception: b()", "try: a()\nexcept (OSError, Exception) as e: print(e)"]
)
def test_a_swallowed_error_is_recognised(code):
    assert swallows(ast.parse(code).body[0].handlers[0])


# ---------------------------------------------------------------- command lines

HELP = """
import contextlib, io, json, sys
from sft_atlas.core import job

answers = {}
for rule in sys.argv[1:]:
    text, code = io.StringIO(), 0
    with contextlib.redirect_stdout(text):
        try:
            job.run(rule, ["--help"])
        except SystemExit as end:
            code = end.code
    answers[rule] = [code, text.getvalue(), [name for name in HEAVY if name in sys.modules]]
print(json.dumps(answers))
"""
JOB_MODULES = {path.stem: path for path in SOURCES if "\ndef main(args" in path.read_text(encoding="utf-8")}


@pytest.fixture(scope="module")
def answers():
    """What every job says to --help, in one process: exit code, text, heavy libraries imported so far."""
    program = f"import sys; sys.path.insert(0, {str(ROOT / 'workflow_scripts')!r}); HEAVY = {HEAVY}\n{HELP}"
    ended = subprocess.run(
        [sys.executable, "-c", program, *JOB_MODULES], capture_output=True, text=True, timeout=HANG, check=True, cwd=ROOT
    )
    return json.loads(ended.stdout)


@pytest.mark.parametrize("rule", JOB_MODULES)
def test_a_job_explains_itself_without_loading_anything_heavy(rule, answers):
    code, text, heavy = answers[rule]
    assert not code
    purpose = ast.get_docstring(ast.parse(JOB_MODULES[rule].read_text(encoding="utf-8")))
    assert "".join(purpose.split()) in "".join(text.split())  # argparse breaks lines, also at hyphens
    assert heavy == []


OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
INSTANCES = dict(re.findall(r"^(\w+) = (\w+Inputs)\(", (ROOT / "rules/common.smk").read_text(encoding="utf-8"), re.MULTILINE))
INPUTS = {
    (node.name, function.name): ast.unparse(function)
    for path in SOURCES
    if path.name == "inputs.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ClassDef)
    for function in node.body
    if isinstance(function, ast.FunctionDef)
}


def options_of(body):
    """Every literal option that a rule gives to its job: in its shell command, and in the functions that its parameters come from."""
    body = re.sub(r"\*\*cluster\.resources\(.*", "", body)  # options of sbatch
    calls = [(INSTANCES[name], method) for name, method in re.findall(r"\b(\w+)\.(\w+)", body) if name in INSTANCES]
    options, seen = set(OPTION.findall(body)), set()
    while calls:
        call = calls.pop()
        if call in INPUTS and call not in seen:
            seen.add(call)
            options |= set(OPTION.findall(INPUTS[call]))
            calls += [(call[0], method) for method in re.findall(r"\bself\.(\w+)\(", INPUTS[call])]
    return options - {"--log", "--config"}  # known to every job; Snakemake's, in an error message


@pytest.mark.parametrize(("file", "name", "body"), JOBS, ids=[name for _, name, _ in JOBS])
def test_a_job_knows_every_option_that_its_rule_gives(file, name, body):
    rule = re.search(r"workflow_scripts/run\.py (\w+)", body)[1]
    known = job.parser(importlib.import_module(job.modules()[rule]))._option_string_actions
    assert sorted(options_of(body) - set(known)) == []


def test_options_are_found_in_rules_and_in_input_functions():
    bodies = {name: body for _, name, body in JOBS}
    assert {"--study", "--learned-at"} <= options_of(bodies["advise"])
    assert {"--suite", "--template", "--allow-code-execution"} <= options_of(bodies["evaluate"])


def test_no_two_jobs_have_the_same_name():
    jobs = [path.stem for path in SOURCES if "\ndef main(args" in path.read_text(encoding="utf-8")]
    assert len(jobs) > 40 and len(set(jobs)) == len(jobs)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_what_a_module_takes_from_another_is_there(path):
    """Merged branches may each be whole and not fit: a function that one removes and the other calls."""
    tree, modules = ast.parse(path.read_text(encoding="utf-8")), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sft_atlas":
            for alias in node.names:
                if (ROOT / "workflow_scripts" / node.module.replace(".", "/") / f"{alias.name}.py").exists():
                    modules[alias.asname or alias.name] = importlib.import_module(f"{node.module}.{alias.name}")
                else:
                    assert hasattr(importlib.import_module(node.module), alias.name), (
                        f"line {node.lineno}: {node.module} has no {alias.name}"
                    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), f"line {node.lineno}: {node.value.id} has no {node.attr}"


def test_no_input_is_ancient():
    # While the job of an ancient file is pending, Snakemake sees no other reason to run what is behind it; see core/job_order.py.
    assert not [path.name for path in RULE_FILES if "ancient(" in path.read_text(encoding="utf-8")]


# ---------------------------------------------------------------- Pythons

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp)


def bound_by(node):
    """Names that the loops of a comprehension bind."""
    return {part.id for loop in node.generators for part in ast.walk(loop.target) if isinstance(part, ast.Name)}


def lost_globals(text):
    """Lines at which CPython 3.12.0 and 3.12.1 lose a global: one comprehension binds its name, another of the same function reads it."""
    tree = ast.parse(text)
    known = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    known |= {
        (part.asname or part.name).split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for part in node.names
    }
    lines = []

    def visit(node, bound, inside, suspects):
        if isinstance(node, (*COMPREHENSIONS, ast.GeneratorExp)):
            bound, inside = bound | bound_by(node), inside or isinstance(node, COMPREHENSIONS)
        if isinstance(node, ast.Name) and inside and isinstance(node.ctx, ast.Load) and node.id in suspects - bound:
            lines.append(node.lineno)
        for child in ast.iter_child_nodes(node):
            visit(child, bound, inside, suspects)

    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            loops = [bound_by(node) for node in ast.walk(function) if isinstance(node, COMPREHENSIONS)]
            own = {part.arg for part in ast.walk(function.args) if isinstance(part, ast.arg)}
            visit(function, set(), False, (known & set().union(*loops)) - own)
    return lines


def test_no_comprehension_hides_a_function_from_another_one():
    found = {name_of(path): lines for path in SOURCES if (lines := lost_globals(path.read_text(encoding="utf-8")))}
    assert found == {}, "CPython 3.12.1 raises UnboundLocalError there; rename the loop variable"


def test_a_hidden_function_is_recognised():
    code = "def row(x): ...\ndef table(a):\n    b = [row for row in a]\n    return [row(c) for c in b]\n"
    assert lost_globals(code) == [4] and lost_globals(code.replace("row for row", "d for d")) == []


# ---------------------------------------------------------------- tests


def test_no_test_has_a_time_limit_of_its_own():
    """Except below a second, where a wait is expected to end without an answer."""
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute | ast.Name):
                name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
                limits = [each.value for each in call.keywords if each.arg in ("timeout", "seconds")] + (
                    call.args if name == "wait" else []
                )
                if name in ("run", "check_output", "wait", "communicate", "until"):
                    found += [f"{name_of(path)}:{call.lineno}" for each in limits if isinstance(each, ast.Constant) and each.value >= 1]
    assert found == [], "use HANG of helpers/waiting.py"


@pytest.mark.parametrize("lane", [("unit", "invariants", "install"), ("workflow",), ("slurm",), ("browser",)], ids="-".join)
def test_no_two_test_files_of_a_lane_have_the_same_name(lane):
    """pytest imports a test file by its name alone, and refuses the second."""
    names = sorted(path.name for folder in lane for path in (ROOT / "tests" / folder).rglob("test_*.py"))
    assert [name for name in names if names.count(name) > 1] == []
