"""The small study, run to the end once, and copies of it that a test may change."""

import pytest

from helpers.folders import Folder, fresh, small_demo


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
