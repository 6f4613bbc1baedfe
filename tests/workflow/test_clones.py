"""Two clones that share an environment: each runs its own code."""

from helpers.edits import smallest_study
from helpers.folders import fresh


def test_a_clone_runs_its_own_code_whichever_clone_the_environment_is_of(tmp_path):
    clone = fresh(tmp_path / "clone", {})
    clone.write(smallest_study(clone.path))
    for name in ("core/sources.py", "core/warm.py"):
        module = clone.path / "workflow_scripts/sft_atlas" / name
        module.write_text(f"{module.read_text()}\nprint('own {name}')\n")
    printed = clone.run("-n", "--quiet", "rules")
    assert "own core/sources.py" in printed and "own core/warm.py" in printed
