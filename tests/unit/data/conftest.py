"""A small model hub."""

import pytest

from helpers import hub_server


@pytest.fixture
def small_hub():
    with hub_server.serving() as running:
        yield running
