"""The source files of a job, found by following its imports. They are inputs of cheap jobs, so that an edit rebuilds what uses it."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

from sft_atlas.core.job import PACKAGE, modules

# The two ways in which the formatter writes an import; a test compares them with what Python's parser finds.
IMPORT = re.compile(r"^ *from (sft_atlas[\w.]*) import (\([^)]*\)|[^\n#]+)", re.MULTILINE)


def sources(rule: str, *more: str, files: Iterable[str] = ()) -> list[str]:
    """Files of the job of ``rule`` and of every module that it imports, directly or not, as paths from the repository's root.

    ``more`` names modules that it imports by a computed name, such as ``sft_atlas.report.figures.gains``, and ``files`` other files that it
    runs: the imports of those in Python count. What every job runs through (``run.py``, ``core/job.py``, ``core/warm.py``) decides no
    result and is not among them, unless a module imports it.
    """
    python = [path for path in map(Path, files) if path.suffix == ".py" and path.exists()]  # a copy of the workflow may have no tests
    imported = {name for path in python for name in _names(path.read_text(encoding="utf-8"))}
    reached = set().union(*(closure(module) for module in (modules()[rule], *more, *imported)))
    return sorted(f"workflow_scripts/{path.relative_to(PACKAGE.parent)}" for path in map(_file, reached) if path.stat().st_size)


@functools.cache
def closure(module: str) -> frozenset[str]:
    """A module and all modules of the package that it imports, directly or not."""
    reached, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += imports(name)
    return frozenset(reached)


@functools.cache
def imports(module: str) -> tuple[str, ...]:
    """Modules of the package that a module imports, also inside functions, and the packages that they are in."""
    package = {module.rpartition(".")[0]} - {""}
    return tuple(sorted(package | _names(_file(module).read_text(encoding="utf-8"))))


def _names(code: str) -> set[str]:
    """Modules of the package that code imports, but not for type checkers alone."""
    code, names = re.sub(r"^if TYPE_CHECKING:\n(?:    .*\n)+", "", code, flags=re.MULTILINE), set()
    for package, imported in IMPORT.findall(code):
        for name in re.findall(r"\w+(?: as \w+)?", imported):
            inner = f"{package}.{name.split()[0]}"
            names.add(inner if _file(inner).exists() else package)
    return names - {"sft_atlas"}  # `from sft_atlas import load` stands in texts for users only


def _file(module: str) -> Path:
    path = PACKAGE.parent / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
