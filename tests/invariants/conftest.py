"""The families of tiny base models as fixtures.

What is tested here is shown on the page of `snakemake correctness`: the first line of a test's docstring is the invariant.
"""

import pytest

from helpers.tiny import FAMILIES, Case, make


@pytest.fixture(scope="session")
def cases(frozen_libraries, tiny_tokenizer, tmp_path_factory):
    """A function from the name of a family to its case."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def case(family: str) -> Case:
        if family not in made:
            made[family] = make(family, root / family, tiny_tokenizer)
        return made[family]

    return case


@pytest.fixture(params=FAMILIES)
def case(request, cases) -> Case:
    """Each family in turn."""
    return cases(request.param)
