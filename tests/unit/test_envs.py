"""Every rule's environment holds what its job imports, so that `snakemake --sdm conda` runs."""

import ast
import functools
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from sft_atlas.core.job import modules
from sft_atlas.core.provenance import ROOT

SCRIPTS = ROOT / "workflow_scripts"
DISTRIBUTIONS = packages_distributions()
RULES = [
    (path, environment[1], rule)
    for path in sorted((ROOT / "rules").glob("*.smk"))
    for body in re.split(r"\n(?= *rule )", path.read_text(encoding="utf-8"))
    if (environment := re.search(r'"\.\./envs/(\w+)\.yaml"', body))
    for rule in sorted(set(re.findall(r"workflow_scripts/run\.py (\w+)", body)))
]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def installed(environment: str) -> frozenset[str]:
    """The distributions of an environment."""
    parts = yaml.safe_load((ROOT / f"envs/{environment}.yaml").read_text(encoding="utf-8"))["dependencies"]
    pins = next(part["pip"] for part in parts if isinstance(part, dict))
    return frozenset(normal(pin.split("==")[0]) for pin in pins)


def source(module: str) -> Path | None:
    base = SCRIPTS / module.replace(".", "/")
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)


def foreign(job: str) -> set[str]:
    """Packages that a job's module imports, also inside its functions, and those that the modules it takes import when they are imported."""
    packages, seen, waiting = set(), set(), [(source(job), True)]
    while waiting:
        path, everywhere = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree) if everywhere else tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{name}" for name in names)]
            waiting += [(ours, False) for name in names if (ours := source(name))]
            packages |= {top for name in names if not source(top := name.split(".")[0])}
    return packages - set(sys.stdlib_module_names)


@pytest.mark.parametrize(("file", "environment", "rule"), RULES, ids=lambda part: getattr(part, "stem", part))
def test_the_environment_of_a_rule_has_what_its_job_imports(file, environment, rule):
    missing = [name for name in foreign(modules()[rule]) if not {*map(normal, DISTRIBUTIONS.get(name, [name]))} & installed(environment)]
    assert not missing, f"envs/{environment}.yaml lacks {missing} for the job {rule} of {file.name}"
