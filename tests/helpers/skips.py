"""Reasons for which a test may be skipped in CI. Every other skip fails there: what these machines can run must run."""

import re
from collections.abc import Iterable

LEGITIMATE = {
    r"needs a CUDA GPU": "no machine of CI has one",
    r"\.\./shared|/shared\b": "files that cannot be in the repository",
    r"needs trackio": "trackio 0.43 requires another version of pillow than the pinned one",
    r"only root can become another user": "CI may run as an ordinary user",
    r"only root can mount": "CI may run as an ordinary user",
    r"the user nobody may not read": "Python or the clone may be in a home folder",
    r"Linux": "tests of Linux's features, on other systems",
}


def reports(config) -> list:
    """What was skipped in this session: pytest's reports, of tests and of whole files."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    return terminal.stats.get("skipped", []) if terminal else []


def reason(report) -> str:
    """Why a test was skipped."""
    return str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)


def unexpected(found: Iterable) -> list[str]:
    """Name and reason of every skip whose reason is not listed."""
    return [f"{report.nodeid} was skipped: {why}" for report in found if not re.search("|".join(LEGITIMATE), why := reason(report))]
