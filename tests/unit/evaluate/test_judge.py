"""Judged benchmarks: an endpoint that fails in every way, what is asked, what the judge's words mean, and the scores."""

import json
import logging
import math
import statistics

import numpy as np
import polars as pl
import pytest

from helpers.judge_server import serving
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import generate, judge_client
from sft_atlas.evaluate import judge as judging
from sft_atlas.evaluate.judge_client import Memory, Reply
from sft_atlas.evaluate.tasks import BenchmarkFiles, Suite
from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer
from sft_atlas.study.schema import Judge, Template

KEY = "JUDGE_TEST_KEY"
TASKS = ROOT / "config/benchmarks"
MT = [
    {"instruction": "Write a line.", "answer": "", "turns": ["Write a line.", "Write {another}."], "category": "writing"},
    {
        "instruction": "2+2?",
        "answer": "",
        "turns": ["2+2?", "Twice that?"],
        "category": "math",
        "reference_gpt4": ["4", "8"],
        "reference": ["x", "y"],
    },
    {
        "instruction": "Sort.",
        "answer": "",
        "turns": ["Sort.", "Reverse."],
        "category": "coding",
        "reference_gpt4": None,
        "reference": ["[1]", "[0]"],
    },
]
PAIRS = [{"instruction": f"Do {i}.", "answer": "the baseline " * (i + 1)} for i in range(4)]


@pytest.fixture(scope="module")
def server(tiny_base):
    base = ModelFolder.read(tiny_base)
    with serving(load_model(base), load_tokenizer(base)) as running:
        yield running


@pytest.fixture
def judge(server, monkeypatch):
    monkeypatch.setenv(KEY, server.key)
    server.faults.clear()
    server.bodies.clear()
    return Judge(model="tiny-1", url=server.url, key_variable=KEY, requests_per_minute=60_000, timeout=1, retries=4)


def asking(judge):
    return judge_client.Endpoint(judge, wait=0.01).ask


def questions(count):
    return {f"key {i}": ("system", f"question {i}", False, 0) for i in range(count)}


# ---------------------------------------------------------------- the endpoint


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
    monkeypatch.setenv(KEY, "another-key")
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
    monkeypatch.delenv(KEY)
    with pytest.raises(AtlasError, match=f"environment variable {KEY} is empty"):
        judge_client.Endpoint(judge)


def test_requests_keep_the_rate(server, judge):
    limited = judge.model_copy(update={"requests_per_minute": 600, "concurrency": 4})
    server.times.clear()
    ask = asking(limited)
    with judge_client.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: ask("s", f"u{i}", False, 0), range(5)))
    assert max(server.times) - min(server.times) >= 4 * 0.1 * 0.9


# ---------------------------------------------------------------- memory


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


def test_a_key_tells_judge_prompt_answer_and_repeat_apart():
    judge = Judge(model="a", url="http://x")
    base = judging.Question("b", 0, 1, 0, "s", "u", "answer")
    variants = [
        base,
        base.__class__("b", 0, 1, 1, "s", "u", "answer"),
        base.__class__("b", 0, 1, 0, "s", "v", "answer"),
        base.__class__("b", 0, 1, 0, "s", "u", "other"),
    ]
    keys = {question.key(judge, "a at x") for question in variants}
    keys |= {base.key(judge, "b at x"), base.key(judge.model_copy(update={"temperature": 1.0}), "a at x")}
    assert len(keys) == 6
    assert base.key(judge, "a at x") == base.__class__("elsewhere", 9, 2, 0, "s", "u", "answer").key(judge, "a at x")


# ---------------------------------------------------------------- what is asked, and what is meant


def test_both_turns_are_asked_about_with_references_where_needed():
    answers = {(i, turn): f"answer {i}.{turn} {{question_1}}" for i in range(3) for turn in (1, 2)}
    asked = judging.questions("mt_bench", "mt", MT, answers, 2)
    assert [(q.item, q.part, q.repeat) for q in asked] == [(i, turn, repeat) for i in range(3) for turn in (1, 2) for repeat in (0, 1)]
    by_place = {(q.item, q.part): q.user for q in asked}
    assert "Reference" not in by_place[0, 1] and "Write a line." in by_place[0, 1] and "{another}" not in by_place[0, 1]
    assert "Write {another}." in by_place[0, 2] and by_place[0, 2].index("answer 0.1") < by_place[0, 2].index("answer 0.2 {question_1}")
    assert "[The Start of Reference Answer]\n4\n[The End" in by_place[1, 1]
    assert "### Reference answer:\n4" in by_place[1, 2] and "### Reference answer:\n8" in by_place[1, 2]
    assert "[1]" in by_place[2, 1]  # the authors' reference, where GPT-4 gave none


def test_a_turn_without_an_answer_is_not_asked_about():
    answers = {(0, 1): "a", (0, 2): None, (1, 1): "b", (1, 2): "c"}
    assert [(q.item, q.part) for q in judging.questions("mt_bench", "mt", MT[:2], answers, 1)] == [(0, 1), (1, 1), (1, 2)]


def test_both_orders_are_asked_about():
    asked = judging.questions("alpaca_eval", "ae", PAIRS[:1], {(0, 1): "mine"}, 1)
    first, second = (q.user.index('"mine"') for q in asked), (q.user.index("the baseline") for q in asked)
    assert [a < b for a, b in zip(first, second, strict=True)] == [True, False]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Good. Rating: [[7]]", 7),
        ("[[3]] at first, then [[8.5]]", 8.5),
        ("Rating: [4]", 4),
        ("[[0]]", None),
        ("[[11]]", None),
        ("7", None),
        ("", None),
        ("[[rating]]", None),
    ],
)
def test_a_rating_is_read_or_missing(text, value):
    assert judging.rating(Reply(text, {})) == value


@pytest.mark.parametrize(("text", "first"), [("m", 1.0), ("M", 0.0), (' "m".', 1.0), ("model m", None), ("both", None), (None, None)])
def test_a_preference_is_read_or_missing_and_turns_with_the_order(text, first):
    found = [judging.preference(Reply(text, {}), place) for place in (1, 2)]
    assert found == [first, None if first is None else 1 - first]


def test_a_preference_is_weighted_by_the_probabilities_of_the_first_token():
    reply = Reply("m", {"m": math.log(0.6), " M": math.log(0.2), "x": -9.0})
    assert judging.preference(reply, 1) == pytest.approx(0.75)
    assert judging.preference(reply, 2) == pytest.approx(0.25)
    assert judging.preference(Reply("m", {"m": -0.1}), 1) == 1.0


# ---------------------------------------------------------------- scores


def question(item, part, repeat=0):
    return judging.Question("b", item, part, repeat, "s", "u", "a")


def test_an_item_is_the_mean_of_its_turns_and_missing_when_one_is():
    asked = [question(0, 1), question(0, 2), question(1, 1), question(1, 2)]
    assert judging.scored_items("mt_bench", asked, [8, 5, 9, None]) == {0: (pytest.approx(0.65), None), 1: (None, None)}


def test_repeats_give_the_judges_noise():
    asked = [question(0, part, repeat) for part in (1, 2) for repeat in (0, 1)]
    score, noise = judging.scored_items("mt_bench", asked, [8, 6, 5, 5])[0]
    assert score == pytest.approx(0.6)
    assert noise == pytest.approx(statistics.variance([0.8, 0.6]) / 2 / 4)


def row(item, score):
    return {
        "benchmark": "b",
        "item": item,
        "score": score,
        "strict": None,
        "parsed": None,
        "formed": None,
        "truncated": False,
        "shots": 0,
        "cluster": None,
    }


def test_missing_items_are_counted_and_left_out_of_the_mean():
    rows = [row(0, 0.5), row(1, None), row(2, 0.9)]
    entry = judging.judged_score_row("mt_bench", "rating", rows, [None] * 3, [(1, 1)] * 3, "j", "hf", 0)
    assert (entry["score"], entry["n"], entry["n_missing"], entry["scale"]) == (pytest.approx(0.7), 2, 1, 10.0)
    none = judging.judged_score_row("alpaca_eval", "win_rate", [row(0, None)], [None], [(1, 1)], "j", "hf", 0)
    assert (none["score"], none["n"], none["score_length_controlled"]) == (None, 0, None)


def test_the_interval_holds_the_judges_noise():
    """With a judge that is only noise, the standard error is that of the noise, whatever the number of repeats."""
    rng = np.random.default_rng(0)
    for repeats in (2, 8):
        asked = [question(i, part, r) for i in range(300) for part in (1, 2) for r in range(repeats)]
        found = judging.scored_items("mt_bench", asked, list(5 + rng.normal(0, 1, len(asked)).clip(-4, 5)))
        rows = [row(i, found[i][0]) for i in range(300)]
        entry = judging.judged_score_row("mt_bench", "rating", rows, [found[i][1] for i in range(300)], [(1, 1)] * 300, "j", "hf", 0)
        expected = 0.1 / math.sqrt(2 * repeats * 300)
        assert entry["stderr"] == pytest.approx(expected, rel=0.15)
        assert entry["judge_stderr"] == pytest.approx(expected, rel=0.15)


def test_length_control_takes_the_length_out():
    """Answers that win by their length alone are at 50 % once length is controlled; equal lengths change nothing."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(100, 900, 4000)
    z = lengths - 300.0
    preferred = rng.random(4000) < 1 / (1 + np.exp(-2 * np.tanh(z / z.std())))
    raw = preferred.mean()
    controlled = judging.length_controlled(list(preferred.astype(float)), list(lengths), [300] * 4000)
    assert raw > 0.6 and abs(controlled - 0.5) < 0.03
    assert judging.length_controlled([0.3, 0.5, 0.4, 0.4], [5, 5, 5, 5], [5, 5, 5, 5]) == pytest.approx(0.4, abs=0.01)
    assert judging.length_controlled([1.0] * 20, [5] * 20, [5] * 20) > 0.95


# ---------------------------------------------------------------- the jobs


def words(tmp_path, tiny_base):
    for name, items in (("mt", MT), ("ae", PAIRS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    files = [
        BenchmarkFiles(name, TASKS / f"{task}.yaml", tmp_path / f"{name}.jsonl")
        for name, task in (("mt", "mt_bench"), ("ae", "alpaca_eval"))
    ]
    Suite("judged", files).write(tmp_path / "judged.json")
    place = ["--model", "tiny", "--dataset", "base", "--recipe", "base", "--epoch", "0", "--suite", str(tmp_path / "judged.json")]
    made = [
        "--base",
        str(tiny_base),
        "--template",
        Template().model_dump_json(),
        "--max-length",
        "256",
        "--max-new-tokens",
        "12",
        "--batch-size",
        "2",
    ]
    return place, [*place, *made, "--output", str(tmp_path / "answers.parquet")]


@pytest.fixture(scope="module")
def answered(tmp_path_factory, tiny_base):
    folder = tmp_path_factory.mktemp("answered")
    place, made = words(folder, tiny_base)
    generate.main(generate.parser().parse_args(made))
    return folder, place


def test_answers_have_two_turns_where_an_item_has_them(answered):
    frame = pl.read_parquet(answered[0] / "answers.parquet")
    assert frame.filter(benchmark="mt").select("item", "turn").rows() == [(i, turn) for i in range(3) for turn in (1, 2)]
    assert frame.filter(benchmark="ae")["turn"].to_list() == [1] * 4
    first, second = frame.filter(benchmark="mt", item=0).iter_rows(named=True)
    assert second["prompt"] == f"{first['prompt']} {first['output'].strip()}\n\n###Question: Write {{another}}.\n###Answer:"
    assert frame["truncated"].null_count() == 0


def judged(folder, place, judge, tmp_path, *more):
    out = {name: tmp_path / f"{name}.parquet" for name in ("scores", "samples", "judgements")}
    call = [
        "--answers",
        str(folder / "answers.parquet"),
        "--judge",
        judge.model_dump_json(),
        "--state",
        str(tmp_path / "state/j.jsonl"),
        *more,
    ]
    call += [word for name, path in out.items() for word in (f"--output-{name}", str(path))]
    judging.main(judging.parser().parse_args([*place, *call]))
    return {name: pl.read_parquet(path) for name, path in out.items()}


def test_a_suite_is_judged_and_malformed_judgements_are_missing(server, judge, answered, tmp_path, monkeypatch):
    monkeypatch.setattr(judge_client.Endpoint.__init__, "__defaults__", (0.01,))
    server.faults += [429, "malformed", "hang", 500]  # in the order of arrival; one judgement means nothing
    found = judged(*answered, judge.model_copy(update={"repeats": 2, "concurrency": 1}), tmp_path)
    scores = {row["benchmark"]: row for row in found["scores"].iter_rows(named=True)}
    assert scores["mt"]["n"] == 3 and scores["mt"]["n_missing"] == 0  # the other repeat of that turn counts
    assert scores["mt"]["scale"] == 10 and 0.1 <= scores["mt"]["score"] <= 1
    assert scores["ae"]["n"] == 4 and 0 <= scores["ae"]["score_length_controlled"] <= 1
    assert {row["judge"] for row in scores.values()} == {f"tiny-1 at {server.url}"}
    assert found["judgements"].height == 3 * 2 * 2 + 4 * 2 * 2
    assert found["judgements"]["verdict"].null_count() == 1
    ratings = found["judgements"].filter(benchmark="mt", item=1)["verdict"].drop_nulls()
    assert found["samples"].filter(benchmark="mt", item=1)["score"].item() == pytest.approx(ratings.mean() / 10)
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["judgements"]["mt: malformed"] == 1
    assert server.key not in (tmp_path / "scores.json").read_text()
    server.bodies.clear()
    again = judged(*answered, judge.model_copy(update={"repeats": 2, "concurrency": 1}), tmp_path)
    assert server.bodies == [] and again["scores"].equals(found["scores"])


def test_an_item_whose_only_judgement_is_malformed_has_no_score(server, judge, answered, tmp_path):
    server.faults += ["malformed"]
    found = judged(*answered, judge.model_copy(update={"concurrency": 1}), tmp_path)
    samples = found["samples"].filter(benchmark="mt")
    assert samples["score"].to_list()[0] is None and samples["score"].null_count() == 1
    assert found["scores"].filter(benchmark="mt").select("n", "n_missing").row(0) == (2, 1)


def test_a_local_model_judges_without_network(answered, tiny_base, tmp_path):
    found = judged(*answered, Judge(model="tiny", max_new_tokens=4), tmp_path, "--judge-base", str(tiny_base))
    assert found["scores"]["judge"].unique().item().startswith("tiny (local, ")
    assert found["scores"]["n_missing"].to_list() == [3, 4]  # a random model says nothing that can be read
    assert found["scores"]["score"].null_count() == 2
