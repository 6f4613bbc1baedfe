"""The source files of jobs, found by following imports: an edit of one of them rebuilds what uses it."""

import pytest

from helpers.imports import MODULES, imported, parents
from sft_atlas.core import sources


@pytest.mark.parametrize("module", MODULES)
def test_the_imports_of_a_module_are_those_that_python_finds(module):
    """The expression for imports knows the formatter's way to write them; Python's parser knows every way."""
    package = {module.rpartition(".")[0]} - {""}
    assert set(sources.imports(module)) | package == imported(module) | package


def test_the_closure_of_a_module_has_all_that_it_reaches_and_their_packages():
    reached, waiting = set(), ["sft_atlas.analyse.analyse_map"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [*imported(name), *parents(name)]
    assert sources.closure("sft_atlas.analyse.analyse_map") == reached
    assert "sft_atlas.core.job" not in reached, "how jobs are started decides no result"


def test_modules_imported_by_a_computed_name_are_named():
    """Such an import is invisible: METRICS in evaluate/inputs.py and FIGURES in report/figures name what they reach."""
    computed = {module for module, path in MODULES.items() if "import_module(" in path.read_text(encoding="utf-8")}
    assert computed == {"sft_atlas.core.job", "sft_atlas.core.warm"} | computed
