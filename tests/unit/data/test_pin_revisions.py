"""Branches in a study file are replaced by commits, and nothing else changes."""

import pytest

from helpers.hub_server import COMMIT
from sft_atlas.core.errors import AtlasError
from sft_atlas.data import pin_revisions


@pytest.mark.parametrize(
    "text",
    [
        "m: {hub: a/b, revision: main, dtype: float32}",
        "m:\n  hub: a/b\n  revision: main\n",
        'm: {label: x, hub: "a/b", revision: "main"}',
        "m: {hub: a/b, revision: main}  # main",
    ],
)
def test_a_branch_is_replaced_by_its_commit_and_nothing_else(text):
    assert pin_revisions.pin(text, "a/b", "main", COMMIT) == text.replace("revision: main", f"revision: {COMMIT}").replace(
        'revision: "main"', f'revision: "{COMMIT}"'
    )


def test_another_repository_keeps_its_branch():
    text = "m: {hub: a/b, revision: main}\nn: {hub: a/bc, revision: main}\n"
    assert "a/bc, revision: main" in pin_revisions.pin(text, "a/b", "main", COMMIT)


def test_a_revision_in_another_place_is_an_error_with_the_commit():
    with pytest.raises(AtlasError, match=f"write the commit {COMMIT} there by hand"):
        pin_revisions.pin("m: {revision: main, hub: a/b}", "a/b", "main", COMMIT)
