"""HumanEval and MBPP: extract the program from an answer and run the benchmark's tests on it in the sandbox."""

import ast
import builtins
import re
import symtable
import sys
import textwrap
from typing import NamedTuple

from sft_atlas.evaluate import sandbox
from sft_atlas.evaluate.metrics import several, verdict, without_thinking

BLOCK = re.compile(r"^([ \t]*)(```|~~~)[ \t]*([\w+.#-]*)[^\n`]*\n(.*?)(?:^[ \t]*\2[ \t]*$|\n?[ \t]*\2|\Z)", re.DOTALL | re.MULTILINE)
PYTHON = ("", "python", "python3", "py", "py3", "ipython", "ipython3", "pycon", "python-repl", "code")
START = re.compile(
    r"^(?:from\s+\S+\s+import\b|import\s+\w|def\s+\w+\s*\(|class\s+\w+|@\w|async\s+def\b|[A-Z_][A-Z_0-9]*\s*=[^=])", re.MULTILINE
)
REJECTED = re.compile(
    r"\b(?:wrong|incorrect|naive|buggy|mistake|broken|fails?|do not|don['’]t|original|previous|错误|誤り|間違)", re.IGNORECASE
)
REPLACED = re.compile(
    r"\b(?:wait|actually|correct(?:ed|ion)?|fix(?:ed|es)?|bug|instead|improved|revised|updated|final|should be|sorry|修正|更正|正确|正しい)",
    re.IGNORECASE,
)
DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
SHOWN = {"print", "input", "exit", "quit", "testmod", "main", "assert_equal", "pprint"}  # calls of a demonstration


class Block(NamedTuple):
    """A fenced block: its code, and the text between the block before it and itself."""

    code: str
    intro: str


class Tests(NamedTuple):
    """Tests as text, and the names that they take from the program."""

    text: str
    names: list[str]


def humaneval(doc: dict, results: list[str]) -> dict[str, float | str]:
    """pass@1 on ``doc['test']``; strict: the output as it is, a whole program or the body that continues ``doc['prompt']``."""
    entry, answer = doc["entry_point"], without_thinking(results[0])
    head = doc["prompt"][: doc["prompt"].rfind(f"def {entry}")]
    tests = _tests(f"{head if _parses(head) else ''}\n{doc['test']}\n\ncheck({entry})\n", [entry])
    program = find_program(answer, entry, doc["prompt"])
    whole = answer if f"def {entry}" in answer else doc["prompt"] + answer
    return _run_tests("" if program is None else f"{head}\n{program}", f"{head}\n{whole}", tests)


def mbpp(doc: dict, results: list[str]) -> dict[str, float | str]:
    """pass@1 on ``doc['test_list']``; ``doc['answer']`` (the reference) names the function. Strict: the output as it is."""
    answer, reference = without_thinking(results[0]), several(doc["answer"])[0]
    defined = re.findall(r"^\s*(?:def|class)\s+(\w+)", reference, re.MULTILINE)
    name = next((name for name in defined if re.search(rf"\b{name}\s*\(", doc["test_list"][0])), None)
    setup = "\n".join([*(doc.get("test_imports") or []), (doc.get("test_setup_code") or "").replace("\r\n", "\n")])
    # Definitions of the set-up are for both; classes are the program's alone, as the tests pass their instances to it.
    statements = _statements(setup)
    shared = "\n".join(text for node, text in statements if isinstance(node, DEFINITION))
    kept = [text for node, text in statements if not isinstance(node, ast.ClassDef)]
    tests = _tests("\n".join([*kept, *doc["test_list"]]) + "\n", defined)
    program = find_program(answer, name)
    return _run_tests("" if program is None else f"{shared}\n{program}", f"{shared}\n{answer}", tests)


def _tests(text: str, entries: list[str]) -> Tests:
    """Tests with the names that they use and do not define: of the program, or modules of the standard library that they never import.
    Built-in functions are those of the program only where they are among ``entries``, the names that a right answer defines."""
    table = symtable.symtable(text, "tests.py", "exec")
    own = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()}
    free = _globals(table) - own - (set(dir(builtins)) - set(entries))
    nodes = ast.walk(ast.parse(text))
    of_modules = {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    modules = sorted((free & of_modules & sys.stdlib_module_names) - set(entries))
    return Tests("".join(f"import {module}\n" for module in modules) + text, sorted(free - set(modules)))


def _globals(table: symtable.SymbolTable) -> set[str]:
    """The global names that a scope and those inside it refer to."""
    names = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module")
    }
    return names.union(*map(_globals, table.get_children()))


def _run_tests(lenient: str, strict: str, tests: Tests) -> dict[str, float | str]:
    passed = bool(lenient) and sandbox.run(lenient, *tests).passed
    formed = _parses(strict)
    strict_passed = formed and passed and (strict.strip() == lenient.strip() or sandbox.run(strict, *tests).passed)
    return verdict("pass@1", lenient, passed, formed, strict_passed)


def find_program(output: str, entry: str | None, prompt: str = "") -> str | None:
    """The program in an answer, without what only demonstrates it (prints, asserts, a main guard). None where nothing parses as Python.

    The whole answer if it is a program; else the fenced block that defines ``entry``, with the definitions of other blocks that it needs;
    else the code between prose; else, with a ``prompt``, the body that continues it. Where several blocks define ``entry``, the first
    counts, unless a later one is introduced as its correction.
    """
    output = re.sub(r"\[/?(?:BEGIN|DONE|PYTHON|CODE)\]", "\n", output.replace("\r\n", "\n").replace("\t", "    ").replace("\u00a0", " "))
    name = re.escape(entry or "")
    defines = re.compile(rf"^[ \t]*(?:async\s+)?(?:def|class)\s+{name}\b|^{name}\s*(?::[^=\n]+)?=(?!=)", re.MULTILINE) if entry else START
    if defines.search(output) and _parses(output):
        return _without_demonstration(output.strip("\n"), entry)
    blocks = _blocks(output)
    defining = [
        (block, code)
        for block in blocks
        if defines.search(block.code) and (code := _longest(_without_prompts(block.code))) and defines.search(code)
    ]
    if defining:
        accepted = [pair for pair in defining if not REJECTED.search(pair[0].intro) or REPLACED.search(pair[0].intro)] or defining
        corrected = [pair for pair in accepted[1:] if REPLACED.search(pair[0].intro)]
        chosen, code = (corrected or accepted[:1])[-1]
        return _without_demonstration(_with_helpers(code, [block.code for block in blocks if block is not chosen], prompt), entry)
    for block in blocks if prompt else []:
        if body := _body(block.code, prompt):
            return _without_demonstration(_with_helpers(body, [other.code for other in blocks if other is not block], prompt), entry)
    starts = [match.start() for match in START.finditer(output)] + [match.start() for match in defines.finditer(output)]
    for start in sorted(starts)[:1] + sorted(match.start() for match in defines.finditer(output)):
        if defines.search(output, start) and (program := _longest(output[start:].lstrip("\n"))) and defines.search(program):
            return _without_demonstration(program, entry)
    body = _body(output, prompt) if prompt else None
    return _without_demonstration(body, entry) if body else None


def _blocks(output: str) -> list[Block]:
    """The fenced blocks that say they are Python or say nothing; all of them where there is no such block."""
    found, end = [], 0
    for match in BLOCK.finditer(output):
        found.append((match[3].lower(), Block(textwrap.dedent(match[4]), "\n".join(output[end : match.start()].strip().split("\n")[-2:]))))
        end = match.end()
    return [block for language, block in found if language in PYTHON] or [block for _, block in found]


def _without_prompts(text: str) -> str:
    """An interactive session's input without its prompts, where every line has one."""
    lines = [line for line in text.split("\n") if line.strip()]
    return "\n".join(line[4:] for line in lines) if lines and all(re.match(r"(?:>>>|\.\.\.)(?: |$)", line) for line in lines) else text


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _longest(text: str) -> str | None:
    """The longest run of whole lines from the start that parses: what follows a program is prose."""
    lines = text.rstrip().split("\n")
    for end in range(len(lines), 0, -1):
        part = "\n".join(lines[:end])
        if _parses(part):
            return part if re.search(r"^\s*(?:async\s+)?(?:def|class)\b|=", part, re.MULTILINE) else None
    return None


def _body(text: str, prompt: str) -> str | None:
    """The function of the prompt completed by a body, indented or not, cut where the text stops being its code."""
    function = prompt[max(prompt.rfind("\ndef ") + 1, 0) :]
    lines = text.strip("\n").rstrip().split("\n")
    flush = [line for line in lines if line.strip()]
    if not flush:
        return None
    if not flush[0].startswith((" ", "\t")):
        # Models often lose the first line's indentation (it is stripped) and keep that of the others.
        others = [len(line) - len(line.lstrip()) for line in flush[1:]]
        lines = [f"    {lines[0]}", *lines[1:]] if others and min(others) >= 4 else ["    " + line for line in lines]
    for end in range(len(lines), 0, -1):
        part = function.rstrip() + "\n" + "\n".join(lines[:end])
        if _parses(part) and re.search(
            r"^    +(?:return|yield|if|for|while|with|raise|pass|[\w, \[\]]+ ?[-+*/]?=)", "\n".join(lines[:end]), re.MULTILINE
        ):
            return part
    return None


def _statements(program: str) -> list[tuple[ast.stmt, str]]:
    """The statements of a program's top level, each with its text, decorators included."""
    lines = program.split("\n")
    result = []
    for node in ast.parse(program).body:
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
        result.append((node, "\n".join(lines[first - 1 : node.end_lineno])))
    return result


def _without_demonstration(program: str, entry: str | None) -> str:
    """A program without the statements of its top level that show or test it: they may fail, wait for input or end the program."""
    if not entry:
        return program
    kept = program.split("\n")
    for node, _ in reversed(_statements(program)):
        definition = isinstance(node, DEFINITION)
        calls = {getattr(call.func, "attr", getattr(call.func, "id", "")) for call in ast.walk(node) if isinstance(call, ast.Call)}
        guard = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        imported = isinstance(node, ast.ImportFrom) and entry in {alias.name for alias in node.names}
        tried = isinstance(node, ast.Expr) and any(name.startswith(("test", "check", "run", "demo", "example")) for name in calls)
        if (not definition and (guard or tried or isinstance(node, ast.Assert) or calls & {*SHOWN, entry})) or imported:
            kept[node.lineno - 1 : node.end_lineno] = (
                [""] if kept[node.lineno - 1][: node.col_offset].strip() == "" else kept[node.lineno - 1 : node.end_lineno]
            )
    remaining = "\n".join(kept)
    return remaining.rstrip() if _parses(remaining) else program


def _with_helpers(program: str, others: list[str], prompt: str) -> str:
    """A program, after the definitions and imports in other blocks that it needs and neither it nor the prompt has."""
    available = {}
    for text in others:
        part = text if _parses(text) else _longest(text)
        for node, source in _statements(part) if part else []:
            for name in _bound(node):
                available.setdefault(name, source)
    head = prompt[: prompt.rfind("\ndef ") + 1] if prompt else ""
    bound = {name for text in (program, head) if _parses(text) for node, _ in _statements(text) for name in _bound(node)} | set(
        dir(builtins)
    )
    needed, waiting = [], [program]
    while waiting:
        for name in sorted(_loaded(waiting.pop()) - bound):
            if name in available:
                bound |= {name}
                waiting.append(available[name])
                needed += [available[name]] if available[name] not in needed else []
    order = {source: place for place, source in enumerate(available.values())}
    return "\n\n".join([*sorted(needed, key=order.get), program])


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement of the top level defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
    return set()


def _loaded(program: str) -> set[str]:
    """The names that a program reads and never binds as parameters or local variables."""
    nodes = list(ast.walk(ast.parse(program)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    local = {node.arg for node in nodes if isinstance(node, ast.arg)} | {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return {name.id for name in names if isinstance(name.ctx, ast.Load)} - local
