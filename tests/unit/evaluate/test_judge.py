"""Judged benchmarks: what the judge gets to read, what its words mean, and the scores."""

import json
import math
import statistics

import numpy as np
import polars as pl
import pytest

from helpers.judged import MT, PAIRS
from sft_atlas.evaluate import judge as judging
from sft_atlas.evaluate import judge_client
from sft_atlas.evaluate.judge_client import Reply
from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer
from sft_atlas.study.schema import Judge


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


# ---------------------------------------------------------------- questions to the judge, and what their answers mean


def test_both_turns_are_asked_about_with_references_where_needed():
    answers = {(i, turn): f"answer {i}.{turn} {{question_1}}" for i in range(3) for turn in (1, 2)}
    questions = judging.questions("mt_bench", "mt", MT, answers, 2)
    assert [(q.item, q.part, q.repeat) for q in questions] == [(i, turn, repeat) for i in range(3) for turn in (1, 2) for repeat in (0, 1)]
    by_place = {(q.item, q.part): q.user for q in questions}
    assert "Reference" not in by_place[0, 1] and "Write a line." in by_place[0, 1] and "{another}" not in by_place[0, 1]
    assert "Write {another}." in by_place[0, 2] and by_place[0, 2].index("answer 0.1") < by_place[0, 2].index("answer 0.2 {question_1}")
    assert "[The Start of Reference Answer]\n4\n[The End" in by_place[1, 1]
    assert "### Reference answer:\n4" in by_place[1, 2] and "### Reference answer:\n8" in by_place[1, 2]
    assert "[1]" in by_place[2, 1]  # the authors' reference, where GPT-4 gave none


def test_a_turn_without_an_answer_is_not_asked_about():
    answers = {(0, 1): "a", (0, 2): None, (1, 1): "b", (1, 2): "c"}
    assert [(q.item, q.part) for q in judging.questions("mt_bench", "mt", MT[:2], answers, 1)] == [(0, 1), (1, 1), (1, 2)]


def test_both_orders_are_asked_about():
    questions = judging.questions("alpaca_eval", "ae", PAIRS[:1], {(0, 1): "mine"}, 1)
    first, second = (q.user.index('"mine"') for q in questions), (q.user.index("the baseline") for q in questions)
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
    result = [judging.preference(Reply(text, {}), place) for place in (1, 2)]
    assert result == [first, None if first is None else 1 - first]


def test_a_preference_is_weighted_by_the_probabilities_of_the_first_token():
    reply = Reply("m", {"m": math.log(0.6), " M": math.log(0.2), "x": -9.0})
    assert judging.preference(reply, 1) == pytest.approx(0.75)
    assert judging.preference(reply, 2) == pytest.approx(0.25)
    assert judging.preference(Reply("m", {"m": -0.1}), 1) == 1.0


# ---------------------------------------------------------------- scores


def question(item, part, repeat=0):
    return judging.Question("b", item, part, repeat, "s", "u", "a")


def test_an_item_is_the_mean_of_its_turns_and_missing_when_one_is():
    questions = [question(0, 1), question(0, 2), question(1, 1), question(1, 2)]
    assert judging.scored_items("mt_bench", questions, [8, 5, 9, None]) == {0: (pytest.approx(0.65), None), 1: (None, None)}


def test_repeats_give_the_judges_noise():
    questions = [question(0, part, repeat) for part in (1, 2) for repeat in (0, 1)]
    score, noise = judging.scored_items("mt_bench", questions, [8, 6, 5, 5])[0]
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
    entry = judging.judged_score_row("mt_bench", "rating", rows, [None] * 3, [(1, 1)] * 3, "j", {"backend": "hf"}, 0)
    assert (entry["score"], entry["n"], entry["n_missing"], entry["scale"]) == (pytest.approx(0.7), 2, 1, 10.0)
    none = judging.judged_score_row("alpaca_eval", "win_rate", [row(0, None)], [None], [(1, 1)], "j", {"backend": "hf"}, 0)
    assert (none["score"], none["n"], none["score_length_controlled"]) == (None, 0, None)


def test_the_interval_holds_the_judges_noise():
    """With a judge that is only noise, the standard error is that of the noise, whatever the number of repeats."""
    rng = np.random.default_rng(0)
    for repeats in (2, 8):
        questions = [question(i, part, r) for i in range(300) for part in (1, 2) for r in range(repeats)]
        result = judging.scored_items("mt_bench", questions, list(5 + rng.normal(0, 1, len(questions)).clip(-4, 5)))
        rows = [row(i, result[i][0]) for i in range(300)]
        entry = judging.judged_score_row(
            "mt_bench", "rating", rows, [result[i][1] for i in range(300)], [(1, 1)] * 300, "j", {"backend": "hf"}, 0
        )
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


@pytest.fixture
def run_judge(run_script, answered, tmp_path):
    """Judge the answers; gives the tables that the job writes."""
    folder, checkpoint = answered

    def call(judge, **options):
        out = {name: tmp_path / f"{name}.parquet" for name in ("scores", "samples", "judgements")}
        settings = {
            "answers": folder / "answers.parquet",
            "judge": judge.model_dump_json(),
            "state": tmp_path / "state/j.jsonl",
            "former": tmp_path / "state",
        }
        run_script(judging, **checkpoint, **settings, **options, **{f"output_{name}": path for name, path in out.items()})
        return {name: pl.read_parquet(path) for name, path in out.items()}

    return call


def test_a_suite_is_judged_and_malformed_judgements_are_missing(server, judge, run_judge, tmp_path, monkeypatch):
    monkeypatch.setattr(judge_client.Endpoint.__init__, "__defaults__", (0.01,))
    server.faults += [429, "malformed", "hang", 500]  # in the order of arrival; one judgement means nothing
    result = run_judge(judge.model_copy(update={"repeats": 2, "concurrency": 1}))
    scores = {row["benchmark"]: row for row in result["scores"].iter_rows(named=True)}
    assert scores["mt"]["n"] == 3 and scores["mt"]["n_missing"] == 0  # the other repeat of that turn counts
    assert scores["mt"]["scale"] == 10 and 0.1 <= scores["mt"]["score"] <= 1
    assert scores["ae"]["n"] == 4 and 0 <= scores["ae"]["score_length_controlled"] <= 1
    assert {row["judge"] for row in scores.values()} == {f"tiny-1 at {server.url}"}
    assert result["judgements"].height == 3 * 2 * 2 + 4 * 2 * 2
    assert result["judgements"]["verdict"].null_count() == 1
    assert result["judgements"].filter(pl.col("verdict").is_null())["refused"].to_list() == ["no verdict in the text"]
    assert result["judgements"]["refused"].null_count() == result["judgements"].height - 1
    ratings = result["judgements"].filter(benchmark="mt", item=1)["verdict"].drop_nulls()
    assert result["samples"].filter(benchmark="mt", item=1)["score"].item() == pytest.approx(ratings.mean() / 10)
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["judgements"]["mt: malformed"] == 1
    assert server.key not in (tmp_path / "scores.json").read_text()
    server.bodies.clear()
    again = run_judge(judge.model_copy(update={"repeats": 2, "concurrency": 1}))
    assert server.bodies == [] and again["scores"].equals(result["scores"])


def test_an_item_whose_only_judgement_is_malformed_has_no_score(server, judge, run_judge):
    server.faults += ["malformed"]
    result = run_judge(judge.model_copy(update={"concurrency": 1}))
    samples = result["samples"].filter(benchmark="mt")
    assert samples["score"].to_list()[0] is None and samples["score"].null_count() == 1
    assert result["scores"].filter(benchmark="mt").select("n", "n_missing").row(0) == (2, 1)


def test_a_local_model_judges_without_network(run_judge, tiny_base):
    result = run_judge(Judge(model="tiny", max_new_tokens=4), judge_base=tiny_base)
    assert result["scores"]["judge"].unique().item().startswith("tiny (local, ")
    assert result["scores"]["n_missing"].to_list() == [3, 4]  # a random model says nothing that can be read
    assert result["scores"]["score"].null_count() == 2


def test_a_local_judge_whose_odds_are_not_numbers_gives_no_judgement(tiny_base):
    base = ModelFolder.read(tiny_base)
    model = load_model(base)
    model.get_output_embeddings().weight.data.fill_(math.nan)
    reply = judge_client.Local(Judge(model="tiny", max_new_tokens=2), model, load_tokenizer(base)).ask("s", "u", True, 0)
    assert reply == Reply(None, {}, "the judge's log-probabilities are not numbers")
