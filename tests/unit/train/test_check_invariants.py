"""The page of training invariants says which hold, on which cases, and why others failed or were skipped."""

import subprocess
import sys

from sft_atlas.core.provenance import ROOT

TESTS = '''
import pytest

@pytest.mark.parametrize("family", ["llama", "olmo"])
def test_one(family):
    """Losses add up.

    More."""

@pytest.mark.parametrize("family", ["llama", "olmo"])
def test_two(family):
    """Seeds decide."""
    if family == "olmo":
        pytest.skip("no compiler")
    assert 1 == 2, "they do not"
'''


def test_the_page_shows_what_holds_and_what_does_not(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/test_own.py").write_text(TESTS)
    page, log = tmp_path / "page.md", tmp_path / "log"
    call = [
        sys.executable,
        ROOT / "workflow_scripts/run.py",
        "check_invariants",
        "--tests",
        tmp_path / "own",
        "--output",
        page,
        "--log",
        log,
    ]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "NOT EVERY INVARIANT HOLDS: 2 cases passed, 1 failed, 1 were skipped" in text
    assert "| Losses add up. | 2 of 2 | llama, olmo |" in text and "| Seeds decide. | 0 of 2 | llama |" in text
    assert "## Failed\n\n- Seeds decide. [llama]: AssertionError: they do not" in text
    assert "## Skipped\n\n- Seeds decide. [olmo]: Skipped: no compiler" in text
    assert "Seeds decide. [llama] does not hold" in done.stderr
