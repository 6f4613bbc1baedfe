"""Every test of training runs with frozen libraries, which takes a quarter of the CPU time."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _frozen(frozen_libraries):
    """Import and freeze them before the first test."""
