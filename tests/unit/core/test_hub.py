"""Requests to the model hub: what is tried again, and what is explained at once."""

import pytest

from sft_atlas.core import hub
from sft_atlas.core.errors import AtlasError


class Answers:
    """Fails some times, then answers."""

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "loaded"


def test_a_load_is_tried_again_when_the_network_fails(caplog):
    answers = Answers(ConnectionError("reset"), TimeoutError())
    assert hub.request(answers, "dataset", "a/b", "1", wait=0) == "loaded"
    assert answers.calls == 3
    assert "dataset a/b at 1: ConnectionError; try 2 of 5" in caplog.text


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), ConnectionError(), TimeoutError()], ids=repr)
def test_a_load_that_always_fails_ends_with_advice(error):
    answers = Answers(*[error] * 9)
    with pytest.raises(AtlasError) as caught:
        hub.request(answers, "dataset", "a/b", "1", wait=0)
    assert answers.calls == hub.RETRIES
    assert f"dataset a/b at 1 could not be loaded from the hub after 5 tries: {type(error).__name__}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gated_dataset_is_explained():
    from datasets.exceptions import DatasetNotFoundError

    with pytest.raises(AtlasError, match=r"gated; accept its licence at https://huggingface\.co/datasets/a/b, and set HF_TOKEN"):
        hub.request(Answers(DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub.")), "dataset", "a/b", "1")


def test_a_mistake_of_ours_is_not_tried_again():
    answers = Answers(ValueError("no such split"))
    with pytest.raises(ValueError, match="no such split"):
        hub.request(answers, "dataset", "a/b", "1", wait=0)
    assert answers.calls == 1
