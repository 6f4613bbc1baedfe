"""The small study, run to the end once, and copies of it that a test may change."""

import os
import sys

import pytest

from helpers.folders import Folder, fresh, small_demo
from sft_atlas.core import warm


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Folder:
    """The small study, run to the end. Tests must not change it: use `copied`."""
    folder = fresh(tmp_path_factory.mktemp("finished"), small_demo())
    folder.printed = folder.run()
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> Folder:
    """A copy of the finished study that a test may change."""
    return finished.copy(tmp_path / "copy")


@pytest.fixture
def empty(tmp_path) -> Folder:
    """The small study, nothing run."""
    return fresh(tmp_path / "empty", small_demo())


@pytest.fixture
def served(copied, monkeypatch) -> Folder:
    """The copied study as the current directory, with a warm server."""
    monkeypatch.chdir(copied.path)
    monkeypatch.setenv(warm.VARIABLE, "")
    monkeypatch.setenv("PATH", os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    warm.start(".snakemake", ".snakemake/warm.log")
    yield copied
    warm.start.server.kill()
