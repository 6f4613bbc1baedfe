"""Run the training invariants, tests/invariants, on tiny models and write a page with the results."""

import argparse
import tempfile
from pathlib import Path

from sft_atlas.core import markdown
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_text
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import ROOT, record_provenance


class Results:
    """A pytest plugin that collects what happened: ``cases`` has (invariant, case, outcome, message) of each test case, in order.

    The invariant is the first line of the test's docstring, the case its parameters, the outcome passed, failed or skipped.
    """

    def __init__(self):
        self.invariants: dict[str, str] = {}
        self.cases: list[tuple[str, str, str, str]] = []

    def pytest_itemcollected(self, item) -> None:
        self.invariants[item.nodeid] = (item.function.__doc__ or item.originalname).strip().splitlines()[0]

    def pytest_runtest_logreport(self, report) -> None:
        if report.when != "call" and report.passed:
            return  # set-up and tear-down matter only where they fail or skip
        case = report.nodeid.partition("[")[2].removesuffix("]")
        if report.skipped:
            message = report.longrepr[2]
        else:
            message = report.longrepr.reprcrash.message.splitlines()[0] if report.failed else ""
        self.cases.append((self.invariants[report.nodeid], case, report.outcome, message))


def main(args: argparse.Namespace) -> None:
    """Write the page; failures are logged as errors too, and do not fail the job, so that the page shows them."""
    import pytest

    if not args.tests.is_dir():
        raise AtlasError(f"there are no tests in {args.tests}; run this in a clone of the repository")
    results = Results()
    with tempfile.TemporaryDirectory(prefix="sft-atlas-") as scratch:
        options = ["-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"]
        code = pytest.main([*options, f"--basetemp={scratch}/tests", str(args.tests)], plugins=[results])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise AtlasError(f"pytest ended with code {int(code)}; see its output in the log")
    write_text(args.output, page(results.cases, record_provenance(None)))
    for invariant, case, outcome, message in results.cases:
        if outcome == "failed":
            LOG.error("%s [%s] does not hold: %s; see %s", invariant, case, message, args.output)


def page(cases: list[tuple[str, str, str, str]], provenance: dict) -> str:
    """The page as Markdown: a row per invariant with the cases that it was tried on, then failed and skipped cases."""
    count = {outcome: sum(case[2] == outcome for case in cases) for outcome in ("passed", "failed", "skipped")}
    code, machine = provenance["code"], provenance["machine"]
    rows = []
    for invariant in dict.fromkeys(case[0] for case in cases):
        own = [case for case in cases if case[0] == invariant]
        tried = ", ".join(case[1] for case in own if case[1] and case[2] != "skipped") or "one case"
        rows.append((invariant, f"{sum(case[2] == 'passed' for case in own)} of {len(own)}", tried))
    lines = [
        "# Training invariants",
        "",
        f"{'NOT EVERY INVARIANT HOLDS' if count['failed'] else 'Every invariant holds'}: {count['passed']} cases passed, {count['failed']} failed,"
        f" {count['skipped']} were skipped. Tiny random models of the families that the studies train, through the functions that the rule `train` calls.",
        "",
        f"Commit {code['commit']}{' with changes' if code['dirty'] else ''}; {machine['system']}, {machine['processor']}; "
        + ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
        + ".",
        "",
        *markdown.table(("invariant", "holds", "tried on"), rows, pad=False),
    ]
    for outcome in ("failed", "skipped"):
        messages = [f"- {invariant} [{case}]: {message}" for invariant, case, result, message in cases if result == outcome]
        lines += ["", f"## {outcome.capitalize()}", "", *messages] if messages else []
    return "\n".join(lines) + "\n"


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--tests", type=Path, default=ROOT / "tests/invariants", help="folder of tests (default: tests/invariants)")
    p.add_argument("--output", type=Path, required=True, help="the page, Markdown")
