"""The source files of jobs, found by following imports: an edit of one of them rebuilds what uses it."""

import pytest

from helpers.imports import MODULES, imported, reached
from sft_atlas.core import sources


@pytest.mark.parametrize("module", MODULES)
def test_the_imports_of_a_module_are_those_that_python_finds(module):
    """The expression for imports knows the formatter's way to write them; Python's parser knows every way."""
    package = {module.rpartition(".")[0]} - {""}
    assert set(sources.imports(module)) | package == imported(module) | package


def test_the_closure_of_a_module_has_all_that_it_reaches_and_their_packages():
    assert sources.closure("sft_atlas.analyse.analyse_map") == reached("sft_atlas.analyse.analyse_map")
    assert "sft_atlas.core.job" not in reached("sft_atlas.analyse.analyse_map"), "how jobs are started decides no result"


def test_imports_of_files_outside_the_package_count(tmp_path):
    test = tmp_path / "test_weights.py"
    test.write_text("from sft_atlas.stats import permanova\n")
    more = {*sources.sources("plan", files=[str(test)])} - {*sources.sources("plan")}
    assert "workflow_scripts/sft_atlas/stats/permanova.py" in more


def test_how_users_read_results_decides_no_figure():
    found = sources.sources("plot", "sft_atlas.report.figures.gains")
    assert not {"workflow_scripts/sft_atlas/tables/results.py", "workflow_scripts/sft_atlas/tables/documented.py"} & {*found}


def test_only_these_modules_import_others_by_a_computed_name():
    """Such imports are invisible: the rule `plot` names the figure. `load`, the door, the warm server and checks of task files decide no result."""
    computed = {module for module, path in MODULES.items() if "import_module(" in path.read_text(encoding="utf-8")}
    assert computed == {"sft_atlas", "sft_atlas.core.job", "sft_atlas.core.warm", "sft_atlas.evaluate.item_checks", "sft_atlas.report.plot"}
