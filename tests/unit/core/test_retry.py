"""Repeated calls: which errors are worth another try, and how long the pauses are."""

import pytest

from sft_atlas.core.retry import retry


class Busy(Exception):
    retry_after = None


def failing(*errors):
    errors = list(errors)

    def call():
        if errors:
            raise errors.pop(0)
        return "answer"

    return call


def run(call, lines, **options):
    options = {"tries": 4, "wait": 0.0, "passes": lambda error: isinstance(error, Busy)} | options
    return retry(call, "the hub", log=lambda text, *values: lines.append(text % values), **options)


def test_a_failure_that_passes_is_logged_and_tried_again():
    lines = []
    assert run(failing(Busy("full"), Busy("down")), lines) == "answer"
    assert lines == ["the hub: full; try 2 of 4 in 0.0 s", "the hub: down; try 3 of 4 in 0.0 s"]


def test_the_last_error_is_raised():
    lines = []
    with pytest.raises(Busy, match="d"):
        run(failing(*map(Busy, "abcde")), lines)
    assert len(lines) == 3


def test_another_error_is_raised_at_once():
    lines = []
    with pytest.raises(KeyError):
        run(failing(KeyError("x")), lines)
    assert lines == []


def test_pauses_double_up_to_the_longest_and_obey_what_the_server_asks_for(monkeypatch):
    pauses = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    polite = Busy("wait")
    polite.retry_after = 5
    run(failing(Busy(), Busy(), Busy(), polite, Busy()), [], tries=6, wait=1, longest=4.5)
    assert pauses == [1, 2, 4, 4.5, 4.5]
