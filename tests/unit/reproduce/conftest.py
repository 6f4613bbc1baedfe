"""A part of the paper's grid with planted results, and all of its claims."""

import pytest

from helpers import paper_part
from sft_atlas.published import analyse_published, claims
from sft_atlas.reproduce import own_results, reproduce


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """By the size of what is planted (1: effects, 0: none): study, folder of results, what was read, tables, claims."""
    made = {}
    for effect in (1.0, 0.0):
        study, root = paper_part.study(), tmp_path_factory.mktemp("planted")
        paper_part.write(root, study, effect)
        own = own_results.read(study.resolved(), root)
        tables = analyse_published.tables(own.data, names=claims.READ)
        made[effect] = study, root, own, tables, reproduce.own_claims(own, tables)
    return made
