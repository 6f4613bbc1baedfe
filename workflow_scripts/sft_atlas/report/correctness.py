"""The page of training invariants: what tests/invariants found, with the versions it was found on."""

import ast
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT

INVARIANTS = ROOT / "tests/invariants"


@dataclass(frozen=True)
class Outcome:
    """One test case: its function as ``file::name``, its parameters (such as a family), and how it ended."""

    test: str
    case: str
    result: str  # passed, failed, skipped
    message: str


def run(folder: Path = INVARIANTS) -> list[Outcome]:
    """Run the tests of a folder in a process of their own; AtlasError where they could not be run at all."""
    if not folder.is_dir():
        raise AtlasError(f"the tests of the invariants should be in {folder}; run this in a clone of the repository")
    with tempfile.TemporaryDirectory(prefix="sft-atlas-") as scratch:
        results = Path(scratch) / "results.xml"
        call = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={results}",
            f"--basetemp={scratch}/tests",
            str(folder),
        ]
        ended = subprocess.run(call, cwd=ROOT)
        if not results.exists() or ended.returncode not in (0, 1):
            raise AtlasError(f"pytest ended with code {ended.returncode}; its output is in the log")
        return read(results)


def read(results: Path) -> list[Outcome]:
    """The outcomes in a JUnit file of pytest."""
    outcomes = []
    for case in ElementTree.parse(results).getroot().iter("testcase"):
        name, _, parameters = case.get("name").partition("[")
        bad = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        result = "passed" if bad is None else "skipped" if bad.tag == "skipped" else "failed"
        message = "" if bad is None else (bad.get("message") or "").splitlines()[0]
        outcomes.append(Outcome(f"{case.get('classname').split('.')[-1]}::{name}", parameters.removesuffix("]"), result, message))
    return outcomes


def statements(files: Iterable[Path]) -> dict[str, str]:
    """The invariant that each test states, the first line of its docstring, by ``file::name``."""
    found = {}
    for path in files:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[f"{path.stem}::{node.name}"] = (ast.get_docstring(node) or node.name).splitlines()[0]
    return found


def page(outcomes: list[Outcome], said: dict[str, str], provenance: dict) -> str:
    """The page as Markdown: a row per invariant with the cases it was tried on, then what failed and what was skipped."""
    grouped = defaultdict(list)
    for outcome in outcomes:
        grouped[outcome.test].append(outcome)
    counts = {result: sum(outcome.result == result for outcome in outcomes) for result in ("passed", "failed", "skipped")}
    code, machine = provenance["code"], provenance["machine"]
    lines = [
        "# Training, checked",
        "",
        f"{'Every invariant holds' if not counts['failed'] else 'NOT EVERY INVARIANT HOLDS'}: {counts['passed']} cases passed, {counts['failed']} failed,"
        f" {counts['skipped']} were skipped. Tiny random models of the families that the studies train, through the functions that the rule `train` calls.",
        "",
        f"Commit {code['commit']}{' with changes' if code['dirty'] else ''}; {machine['system']}, {machine['processor']}; "
        + ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
        + ".",
        "",
        "| invariant | holds | tried on |",
        "|---|---|---|",
    ]
    for test, found in grouped.items():
        held = sum(outcome.result == "passed" for outcome in found)
        tried = ", ".join(outcome.case for outcome in found if outcome.case and outcome.result != "skipped")
        lines.append(f"| {said.get(test, test)} | {held} of {len(found)} | {tried or 'one case'} |")
    for result, title in (("failed", "Failed"), ("skipped", "Skipped")):
        some = [f"- `{outcome.test}[{outcome.case}]`: {outcome.message}" for outcome in outcomes if outcome.result == result]
        lines += ["", f"## {title}", "", *some] if some else []
    return "\n".join(lines) + "\n"
