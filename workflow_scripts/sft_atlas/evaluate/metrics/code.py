"""HumanEval and MBPP: extract the program from an answer and run the benchmark's tests on it in the sandbox."""

import ast
import re
import textwrap

from sft_atlas.evaluate import sandbox
from sft_atlas.evaluate.metrics import FENCE, verdict

START = re.compile(
    r"^(?:from\s+\S+\s+import\b|import\s+\w|def\s+\w+\s*\(|class\s+\w+|@\w|async\s+def\b|[A-Z_][A-Z_0-9]*\s*=[^=])", re.MULTILINE
)


def humaneval(doc: dict, results: list[str]) -> dict[str, float | str]:
    """pass@1 on ``doc['test']``; strict: the output as it is, a whole program or the body that continues ``doc['prompt']``."""
    entry = doc["entry_point"]
    tests = f"{doc['test']}\n\ncheck({entry})\n"
    head = doc["prompt"][: doc["prompt"].rfind(f"def {entry}")]
    program = find_program(results[0], entry, doc["prompt"])
    whole = results[0] if f"def {entry}" in results[0] else doc["prompt"] + results[0]
    return _run_tests("" if program is None else f"{head}\n{program}", f"{head}\n{whole}", tests)


def mbpp(doc: dict, results: list[str]) -> dict[str, float | str]:
    """pass@1 on ``doc['test_list']``; ``doc['answer']`` (the reference) names the function. Strict: the output as it is."""
    defined = re.findall(r"^\s*(?:def|class)\s+(\w+)", doc["answer"], re.MULTILINE)
    name = next((name for name in defined if re.search(rf"\b{name}\s*\(", doc["test_list"][0])), None)
    setup = "\n".join([*(doc.get("test_imports") or []), doc.get("test_setup_code") or ""])
    tests = "\n".join([setup, *doc["test_list"]]) + "\n"
    program = find_program(results[0], name)
    return _run_tests("" if program is None else f"{setup}\n{program}", f"{setup}\n{results[0]}", tests)


def _run_tests(lenient: str, strict: str, tests: str) -> dict[str, float | str]:
    passed = bool(lenient) and sandbox.run(f"{lenient}\n\n{tests}").passed
    formed = _parses(strict)
    strict_passed = formed and (passed if strict.strip() == lenient.strip() else sandbox.run(f"{strict}\n\n{tests}").passed)
    return verdict("pass@1", lenient, passed, formed, strict_passed)


def find_program(output: str, entry: str | None, prompt: str = "") -> str | None:
    """The program in an answer: fenced code (the blocks from the first to the one that defines ``entry``), else the code between prose,
    else, with a ``prompt``, the body that continues it. None where nothing parses as Python."""
    output = re.sub(r"\[/?(?:BEGIN|DONE|PYTHON|CODE)\]", "\n", output.replace("\r\n", "\n").replace("\t", "    "))
    name = re.escape(entry or "")
    defines = re.compile(rf"^\s*(?:async\s+)?(?:def|class)\s+{name}\b|^{name}\s*=", re.MULTILINE) if entry else START
    blocks = [match[1] for match in FENCE.finditer(output)]
    whole = [block for block in blocks if defines.search(block)]
    if whole:
        return _longest(textwrap.dedent(whole[0]))
    if blocks and prompt and (body := _body(blocks[0], prompt)):
        return body
    starts = [match.start() for match in START.finditer(output)]
    if starts and defines.search(output[starts[0] :]) and (program := _longest(output[starts[0] :])) and defines.search(program):
        return program
    return _body(output, prompt) if prompt else None


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
