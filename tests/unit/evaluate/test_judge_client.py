"""An endpoint that fails in every way, and the memory of what it answered."""

import logging

import pytest

from helpers.judge_server import KEY_VARIABLE
from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate import judge as judging
from sft_atlas.evaluate import judge_client
from sft_atlas.evaluate.judge_client import Memory


def asking(judge):
    return judge_client.Endpoint(judge, wait=0.01).ask


def questions(count):
    return {f"key {i}": ("system", f"question {i}", False, 0) for i in range(count)}


def test_the_endpoint_gets_the_prompt_and_the_settings(server, judge):
    reply = asking(judge)("be fair", "how good is it?", False, 3)
    assert judging.rating(reply) is not None
    body = server.bodies[-1]
    assert body["messages"] == [{"role": "system", "content": "be fair"}, {"role": "user", "content": "how good is it?"}]
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == ("tiny-1", 0.0, 3, 1024)


@pytest.mark.parametrize("fault", [429, 500, 503, "hang", "garbage", "drop"])
def test_a_passing_failure_is_tried_again(server, judge, fault):
    server.faults += [fault, fault]
    assert asking(judge)("s", "u", False, 0).text.startswith("Rating: [[")
    assert len(server.bodies) == 3


def test_too_many_requests_wait_as_long_as_asked(server, judge):
    server.faults.append(429)  # with Retry-After: 0.05
    asking(judge)("s", "u", False, 0)
    assert server.times[-1] - server.times[-2] >= 0.05


def test_a_request_that_never_gets_an_answer_is_unanswered(server, judge):
    server.faults += [503] * judge.retries
    with pytest.raises(judge_client.Unanswered, match="status 503"):
        asking(judge)("s", "u", False, 0)


@pytest.mark.parametrize("fault", [400, 422, "null"])
def test_a_refused_request_is_missing_and_not_asked_again(server, judge, fault):
    server.faults.append(fault)
    reply = asking(judge)("s", "u", False, 0)
    assert reply.text is None and reply.refused
    assert len(server.bodies) == 1
    assert judging.rating(reply) is None


def test_a_wrong_key_ends_the_job_without_showing_it(server, judge, monkeypatch, caplog):
    monkeypatch.setenv(KEY_VARIABLE, "another-key")
    with caplog.at_level(logging.INFO), pytest.raises(AtlasError, match="answers 401 \\(the key is not accepted\\)") as caught:
        asking(judge)("s", "u", False, 0)
    assert "another-key" not in str(caught.value) + caplog.text
    assert "***" in str(caught.value)


def test_the_key_is_never_logged_nor_stored(server, judge, tmp_path, caplog):
    server.faults += [500, 400]  # the server repeats the key in its message
    with caplog.at_level(logging.DEBUG):
        replies, _ = judge_client.ask_all(questions(3), asking(judge), Memory(tmp_path / "state.jsonl"), 1)
    said = caplog.text + (tmp_path / "state.jsonl").read_text() + str(replies)
    assert server.key not in said


def test_an_empty_key_variable_is_an_error_that_names_it(judge, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(AtlasError, match=f"environment variable {KEY_VARIABLE} is empty"):
        judge_client.Endpoint(judge)


def test_requests_keep_the_rate(server, judge):
    limited = judge.model_copy(update={"requests_per_minute": 600, "concurrency": 4})
    server.times.clear()
    ask = asking(limited)
    with judge_client.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: ask("s", f"u{i}", False, 0), range(5)))
    assert max(server.times) - min(server.times) >= 4 * 0.1 * 0.9


def test_an_answered_question_is_not_asked_again(server, judge, tmp_path):
    first, counts = judge_client.ask_all(questions(5), asking(judge), Memory(tmp_path / "state.jsonl"), 3)
    assert counts == {"asked": 5, "kept_before": 0, "unanswered": 0, "refused": 0}
    server.bodies.clear()
    again, counts = judge_client.ask_all(questions(6), asking(judge), Memory(tmp_path / "state.jsonl"), 3)
    assert [body["messages"][-1]["content"] for body in server.bodies] == ["question 5"]
    assert counts["kept_before"] == 5
    assert all(again[key] == first[key] for key in first)


def test_a_job_that_gets_no_answers_fails_and_goes_on_from_there(server, judge, tmp_path):
    impatient = judge.model_copy(update={"retries": 1})
    server.faults += [None, None, 503, 503, 503]
    with pytest.raises(AtlasError, match=r"no answer to 3 of 5 questions \(the last: status 503\); 2 judgements are kept in .*run again"):
        judge_client.ask_all(questions(5), asking(impatient), Memory(tmp_path / "state.jsonl"), 1)
    server.bodies.clear()
    replies, _ = judge_client.ask_all(questions(5), asking(judge), Memory(tmp_path / "state.jsonl"), 1)
    assert len(server.bodies) == 3 and all(reply.text for reply in replies.values())


def test_a_few_time_outs_are_missing_and_asked_for_again_next_time(server, judge, tmp_path):
    impatient = judge.model_copy(update={"retries": 1})
    server.faults += [503]
    replies, counts = judge_client.ask_all(questions(30), asking(impatient), Memory(tmp_path / "state.jsonl"), 1)
    assert counts["unanswered"] == 1 and sum(reply.text is None for reply in replies.values()) == 1
    server.bodies.clear()
    _, counts = judge_client.ask_all(questions(30), asking(judge), Memory(tmp_path / "state.jsonl"), 1)
    assert (counts["asked"], counts["unanswered"]) == (1, 0)


def test_a_line_that_was_cut_off_is_asked_for_again(server, judge, tmp_path):
    path = tmp_path / "state.jsonl"
    judge_client.ask_all(questions(3), asking(judge), Memory(path), 1)
    path.write_bytes(path.read_bytes()[:-20])
    _, counts = judge_client.ask_all(questions(3), asking(judge), Memory(path), 1)
    assert counts["asked"] == 1
    assert len(Memory(path).known) == 3
