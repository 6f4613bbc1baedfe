"""Every rule's environment holds what its script imports, so that `snakemake --sdm conda` runs."""

import ast
import functools
import re
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from sft_atlas.core.provenance import ROOT

SCRIPTS = ROOT / "workflow_scripts"
DISTRIBUTIONS = packages_distributions()
RULES = [
    (path, environment[1], script)
    for path in sorted((ROOT / "rules").glob("*.smk"))
    for body in re.split(r"\n(?= *rule )", path.read_text(encoding="utf-8"))
    if (environment := re.search(r'"\.\./envs/(\w+)\.yaml"', body))
    for script in sorted(set(re.findall(r"workflow_scripts/run\.py (\w+)", body)))
]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def installed(environment: str) -> frozenset[str]:
    """The distributions that the pins of an environment bring, by what those installed here require."""
    parts = yaml.safe_load((ROOT / f"envs/{environment}.yaml").read_text())["dependencies"]
    pins = next(part["pip"] for part in parts if isinstance(part, dict))
    found, left = set(), [Requirement(pin).name for pin in pins]
    while left:
        name = normal(left.pop())
        if name not in found:
            found.add(name)
            wanted = map(Requirement, (requires(name) or []) if name in KNOWN else [])
            left += [entry.name for entry in wanted if entry.marker is None or entry.marker.evaluate({"extra": ""})]
    return frozenset(found)


KNOWN = {normal(name) for names in DISTRIBUTIONS.values() for name in names}


def source(module: str) -> Path | None:
    base = SCRIPTS / module.replace(".", "/")
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)


def foreign(script: Path) -> set[str]:
    """Packages that a script imports, also inside its functions, and those that the modules it takes import when they are imported."""
    found, seen, left = set(), set(), [(script, True)]
    while left:
        path, everywhere = left.pop()
        if path in seen:
            continue
        seen.add(path)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree) if everywhere else tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{name}" for name in names)]
            left += [(ours, False) for name in names if (ours := source(name))]
            found |= {top for name in names if not source(top := name.split(".")[0])}
    return found - set(sys.stdlib_module_names)


@pytest.mark.parametrize(("rules", "environment", "script"), RULES, ids=lambda part: getattr(part, "stem", part))
def test_the_environment_of_a_rule_has_what_its_script_imports(rules, environment, script):
    missing = [
        name
        for name in foreign(SCRIPTS / (rules()[script].replace(".", "/") + ".py"))
        if not {*map(normal, DISTRIBUTIONS.get(name, [name]))} & installed(environment)
    ]
    assert not missing, f"envs/{environment}.yaml lacks {missing} for {script}.py"
