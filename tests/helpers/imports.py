"""What modules of the package import, read from their syntax trees: independent of `sft_atlas.core.sources`."""

import ast
import functools
from pathlib import Path

from sft_atlas.core.provenance import ROOT

SCRIPTS = ROOT / "workflow_scripts"
MODULES = {
    ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SCRIPTS / "sft_atlas").rglob("*.py"))
}


@functools.cache
def imported(module: str) -> frozenset[str]:
    """Modules of the package that a module names in its imports, also inside functions, not for type checkers alone."""
    return frozenset(imported_by(MODULES[module]))


def imported_by(path: Path) -> set[str]:
    """The same for any file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and ast.unparse(guard.test) == "TYPE_CHECKING"
        for node in guard.body
    }
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in skipped:
            names |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and id(node) not in skipped and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names |= {name for name in (inner if inner in MODULES else node.module,) if name in MODULES}
    return names


def with_helpers(*tests: Path) -> set[Path]:
    """Files of tests, and the helpers that they import, directly or not."""
    reached, waiting = set(), list(tests)
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "helpers":
                    names = [alias.name for alias in node.names] if node.module == "helpers" else [node.module.removeprefix("helpers.")]
                    waiting += [ROOT / f"tests/helpers/{name}.py" for name in names]
    return reached


def parents(module: str) -> set[str]:
    """The packages that Python imports before a module: ``a.b.c`` needs ``a`` and ``a.b``."""
    return {".".join(module.split(".")[:depth]) for depth in range(1, module.count(".") + 1)}


def reached(*modules: str) -> set[str]:
    """Modules, all that they import, directly or not, and the packages that these are in."""
    result, waiting = set(), list(modules)
    while waiting:
        name = waiting.pop()
        if name not in result:
            result.add(name)
            waiting += [*imported(name), *parents(name)]
    return result
