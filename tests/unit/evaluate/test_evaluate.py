"""Scores of a checkpoint: the same as by hand, whatever the batch size; and of an oracle, all or nothing."""

import json
import math
import shutil
import statistics

import polars as pl
import pytest
import torch
from lm_eval.api.model import LM

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import evaluate as evaluate_script
from sft_atlas.evaluate import lm_eval_runner, tasks
from sft_atlas.evaluate import scores as summaries
from sft_atlas.evaluate.engines import hf
from sft_atlas.evaluate.judge_client import Local
from sft_atlas.models.base_model import ModelFolder, load_model
from sft_atlas.models.prompt_template import fingerprint
from sft_atlas.models.tokenization import encode
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.schema import Judge, Template

TEMPLATE = Template().model_dump()
TASKS = ROOT / "config/benchmarks"
STEPS = strict_yaml(TASKS / "generate.yaml")["generation_kwargs"]["max_gen_toks"]
INSTRUCTIONS = [
    "How many apples are left?",
    "Spell the word backward: lemon.",
    "Fill {x} and {{ y }} in {% here %}, please; this one is a good deal longer than the others, so that batches need padding.",
    "Count from 1 to 9.",
    "Name a\u2028colour.",
]


def prompt_of(instruction):
    return f"###Question: {instruction}\n###Answer:"


def files(folder, name, task, items):
    """A benchmark of these items, written as fetch_benchmark writes it."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return tasks.BenchmarkFiles(name, TASKS / task, path)


def score(model, tokenizer, benchmarks, batch_size, max_length, backend="hf"):
    adapter = hf.adapter(backend, model, tokenizer, batch_size, max_length)
    scored_by = {"backend": backend, "backend_version": "1", "dtype": "float32"}
    return lm_eval_runner.score(adapter, tokenizer, benchmarks, TEMPLATE, 0, scored_by=scored_by)


# ---------------------------------------------------------------- by hand


def greedy(model, tokenizer, prompt, steps, ends=(2,)):
    """The answer up to the end of the line or a token of ``ends``, one token after another, nothing padded or cached."""
    ids, new = tokenizer(prompt)["input_ids"], []
    while len(new) < steps and "\n" not in tokenizer.decode(new):
        with torch.no_grad():
            new.append(model(torch.tensor([ids + new])).logits[0, -1].argmax().item())
        if new[-1] in ends:
            new.pop()
            break
    return tokenizer.decode(new, skip_special_tokens=True).split("\n")[0]


def log_likelihood(model, tokenizer, prompt, text):
    """Sum of the log-probabilities of the tokens of ``text`` after ``prompt``."""
    start, ids = len(tokenizer(prompt)["input_ids"]), tokenizer(prompt + text)["input_ids"]
    total = 0.0
    for position in range(start, len(ids)):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:position]])).logits[0, -1].double()
        total += (logits[ids[position]] - logits.logsumexp(-1)).item()
    return total


@pytest.fixture(scope="module")
def by_hand(model, tokenizer):
    """Answers and option likelihoods of the tiny model, computed without lm-eval."""
    options = [
        ["There are 12 apples.", "no"],
        ["nomel", "lemon", "melon"],
        ["x", "y"],
        ["1 2 3", "9 8 7 6"],
        ["red", "the quick brown fox"],
    ]
    outputs = [greedy(model, tokenizer, prompt_of(text), STEPS) for text in INSTRUCTIONS]
    likelihoods = [
        [log_likelihood(model, tokenizer, prompt_of(text), " " + option) for option in row]
        for text, row in zip(INSTRUCTIONS, options, strict=True)
    ]
    return outputs, options, likelihoods


@pytest.fixture(scope="module")
def benchmarks(by_hand, tmp_path_factory):
    """Two benchmarks of which the tiny model gets items 0, 2, 4 right and 1, 3 wrong, by the computation by hand."""
    outputs, options, likelihoods = by_hand
    folder = tmp_path_factory.mktemp("items")
    short, choice = [], []
    for i, instruction in enumerate(INSTRUCTIONS):
        best = likelihoods[i].index(max(likelihoods[i]))
        label = best if i % 2 == 0 else (best + 1) % len(options[i])
        short.append({"instruction": instruction, "answer": outputs[i].strip() if i % 2 == 0 else "something else"})
        choice.append({"instruction": instruction, "answer": options[i][label], "choices": options[i], "label": label})
    return [files(folder, "short", "generate.yaml", short), files(folder, "pick", "choice.yaml", choice)]


WAYS = [("hf", 1), ("hf", 4), ("hf-paged", 1), ("hf-paged", 4)]  # engine, and requests per batch


@pytest.fixture(scope="module")
def scored(model, tokenizer, benchmarks):
    return {way: score(model, tokenizer, benchmarks, way[1], 256, way[0]) for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
def test_generated_answers_are_those_of_a_loop_by_hand(scored, by_hand, way):
    samples = scored[way][1].filter(benchmark="short")
    assert any(output.strip() for output in by_hand[0])
    assert samples["output"].to_list() == by_hand[0]
    assert samples["extracted"].to_list() == [output.strip() for output in by_hand[0]]
    assert samples["score"].to_list() == [1.0, 0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("way", WAYS)
def test_choices_are_scored_with_the_likelihoods_of_a_loop_by_hand(scored, by_hand, way):
    samples = scored[way][1].filter(benchmark="pick")
    for output, extracted, options, expected in zip(samples["output"], samples["extracted"], *by_hand[1:], strict=True):
        assert list(json.loads(output)) == [" " + option for option in options]
        assert list(json.loads(output).values()) == pytest.approx(expected, abs=1e-4)
        assert extracted == options[expected.index(max(expected))]
    assert samples["score"].to_list() == [1.0, 0.0, 1.0, 0.0, 1.0]


def test_neither_batch_size_nor_engine_changes_a_score_or_what_is_said_of_an_answer(scored):
    one, *others = [scored[way] for way in WAYS]
    assert [frame[0].drop("backend").equals(one[0].drop("backend")) for frame in others] == [True] * 3
    assert [frame[1].drop("output").equals(one[1].drop("output")) for frame in others] == [True] * 3


def test_samples_are_complete_and_in_the_order_of_the_items(scored):
    samples = scored["hf", 4][1]
    assert samples.columns == list(summaries.SAMPLES)
    assert samples["item"].to_list() == [0, 1, 2, 3, 4] * 2
    assert samples["prompt"].to_list() == [prompt_of(text) for text in INSTRUCTIONS] * 2
    assert samples.filter(benchmark="short")["target"][1] == "something else"
    assert samples.drop("subtask", "cluster", "missing").filter(benchmark="short").null_count().sum_horizontal().item() == 0
    assert samples["cluster"].null_count() == samples["missing"].null_count() == samples.height


def test_a_score_is_the_mean_with_its_standard_error(scored):
    row = scored["hf", 4][0].row(0, named=True)
    spread = statistics.stdev([1, 0, 1, 0, 1]) / math.sqrt(5)
    main = {
        "benchmark": "short",
        "metric": "exact_match",
        "score": 0.6,
        "stderr": pytest.approx(spread),
        "n": 5,
        "backend": "hf",
        "dtype": "float32",
    }
    assert {key: row[key] for key in main} == main
    counts = {"scale": 1.0, "parsed": 1.0, "n_parsed": 5, "n_missing": 0, "n_clusters": 5, "shots": 0, "n_fewer_shots": 0}
    assert {key: row[key] for key in counts} == counts
    assert scored["hf", 4][0].row(1, named=True)["metric"] == "acc"


def test_the_script_writes_scores_and_samples_with_their_keys(run_script, tiny_base, benchmarks, tmp_path):
    scores, samples = tmp_path / "scores/tasks.parquet", tmp_path / "samples/tasks.parquet"
    keys = {"model": "tiny", "dataset": "base", "recipe": "base", "epoch": 0, "suite": "tasks"}
    tasks.SuiteFile("tasks", benchmarks).write(tmp_path / "tasks.json")
    options = keys | {"suite": tmp_path / "tasks.json", "template": json.dumps(TEMPLATE), "max_length": 256}
    run_script(evaluate_script, **options, base=tiny_base, state=tmp_path / "state", output_scores=scores, output_samples=samples)
    assert pl.read_parquet(scores).select(*keys).unique().to_dicts() == [keys]
    assert pl.read_parquet(scores)["score"].to_list() == [0.6, 0.6]
    assert pl.read_parquet(samples).select(*keys).unique().to_dicts() == [keys]
    record = json.loads(scores.with_suffix(".json").read_text())
    assert record["template_sha256"] == fingerprint(TEMPLATE)
    assert sorted(record["inputs"]) == ["base", "pick.items", "pick.task", "short.items", "short.task"]
    assert record["settings"]["template"] == TEMPLATE


# ---------------------------------------------------------------- an oracle


class Oracle(LM):
    """Knows what to say to each prompt: a text to generate, or the option to find likely."""

    max_gen_toks = 256

    def __init__(self, answers, max_length=4096):
        super().__init__()
        self.answers, self.max_length = answers, max_length

    def generate_until(self, requests, disable_tqdm=False):
        return [self.answers[request.args[0]] for request in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        return [(-1.0 if option == self.answers[prompt] else -2.0, False) for prompt, option in (request.args for request in requests)]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise AssertionError("no task asks for it")


SHORT = ["[1, 2]", "['one']", "5", "007", "-3", "$4", "Yes", "{{x}}", "a\\b", 'it\'s "so"', "a\u2028b", "two words"]
OPTIONS = [["a", "b"], ["it's", '"so"'], ["{{x}}", "[1]"], ["1", "0"], ["a\nb", "c\\d"], ["\u2028", "é"], ["yes", "no", "maybe"]]


def generate_items():
    return [({"instruction": f"short {i}", "answer": answer}, f" {answer}", " not that") for i, answer in enumerate(SHORT)]


def choice_items():
    items = []
    for i, options in enumerate(OPTIONS):
        label = i % len(options)
        item = {"instruction": f"question {i}", "answer": options[label], "choices": options, "label": label}
        items.append((item, " " + options[label], " " + options[label - 1]))
    return items


def gsm8k_items():
    said = [
        ("1,234", "so #### 1234"),
        ("1234", "#### 1,234."),
        ("-7", "minus seven\n#### -7"),
        ("5", "2 + 3 = 5\n#### $5"),
        ("0.5", "####0.5\nmore"),
    ]
    return [
        ({"instruction": f"sum {i}", "answer": f"because 2 + 2\n#### {gold}"}, f" {text}", f" {gold} it is, #### 99")
        for i, (gold, text) in enumerate(said)
    ]


@pytest.mark.parametrize(("truth", "expected"), [(True, 1.0), (False, 0.0)], ids=["right", "wrong"])
def test_an_oracle_gets_every_point_and_its_opposite_none(tmp_path, tokenizer, truth, expected):
    kinds = {"generate": generate_items(), "choice": choice_items(), "gsm8k": gsm8k_items()}
    listed = [files(tmp_path, kind, f"{kind}.yaml", [item for item, _, _ in entries]) for kind, entries in kinds.items()]
    told = {"gsm8k": '\nThink step by step and write the final number after "####".'}
    entries = [(item["instruction"] + told.get(kind, ""), right, wrong) for kind, listed in kinds.items() for item, right, wrong in listed]
    oracle = Oracle({prompt_of(instruction): right if truth else wrong for instruction, right, wrong in entries})
    scores, samples = lm_eval_runner.score(oracle, tokenizer, listed, TEMPLATE, 0)
    assert samples.filter(pl.col("score") != expected).select("benchmark", "target", "output", "extracted").to_dicts() == []
    assert scores.select("benchmark", "score", "stderr", "n").rows() == [(kind, expected, 0.0, len(kinds[kind])) for kind in kinds]


# ---------------------------------------------------------------- the base model's generation_config.json

DECODING = {
    "max_new_tokens": 100,
    "min_new_tokens": 40,
    "num_beams": 3,
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
    "suppress_tokens": list(range(3, 200)),
    "forced_eos_token_id": 2,
    "stop_strings": ["e"],
    "do_sample": True,
    "temperature": 3.0,
}


def with_generation_config(base, folder, **settings):
    """The base model in ``folder``, with a generation_config.json of these settings."""
    shutil.copytree(base.path, folder)
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "pad_token_id": 0, "eos_token_id": 2} | settings))
    return ModelFolder("other", folder, base.dtype, False)


@pytest.mark.parametrize(("setting", "backend"), [*((setting, "hf") for setting in DECODING), ("suppress_tokens", "hf-paged")])
def test_decoding_settings_of_the_base_model_change_no_answer(base, tokenizer, benchmarks, by_hand, tmp_path, setting, backend):
    model = load_model(with_generation_config(base, tmp_path / "other", **{setting: DECODING[setting]}))
    _, samples = score(model, tokenizer, benchmarks[:1], 4, 256, backend)
    assert samples["output"].to_list() == by_hand[0]


def test_a_local_judge_takes_no_decoding_setting_of_its_folder(base, tokenizer, tmp_path):
    judges = [base, with_generation_config(base, tmp_path / "other", **DECODING)]
    judge = Judge(model="tiny", max_new_tokens=9)
    plain, other = (Local(judge, load_model(folder), tokenizer).ask("Be fair.", "Which is better?", True, 0) for folder in judges)
    assert other == plain and plain.text


@pytest.mark.parametrize("backend", ["hf", "hf-paged"])
def test_each_eos_of_a_list_ends_an_answer_and_is_no_truncation(base, model, tokenizer, by_hand, benchmarks, tmp_path, backend):
    ends = [2, *range(100, 200)]  # tokens that are not special to the tokenizer
    cut = [greedy(model, tokenizer, prompt_of(text), STEPS, ends) for text in INSTRUCTIONS]
    listed = load_model(with_generation_config(base, tmp_path / "other", eos_token_id=ends))
    _, samples = score(listed, tokenizer, benchmarks[:1], 4, 256, backend)
    assert samples["output"].to_list() == cut != by_hand[0]
    assert samples["truncated"].to_list() == [False] * len(cut)
    assert any(score(model, tokenizer, benchmarks[:1], 4, 256, backend)[1]["truncated"])


# ---------------------------------------------------------------- special tokens that the tokenizer adds itself

POLICIES = {"nothing": "$A", "BOS": "<s> $A", "EOS": "$A </s>", "both": "<s> $A </s>"}


def adding(tokenizer, template):
    """The tokenizer, which now adds the special tokens of ``template``."""
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    changed = deepcopy(tokenizer)
    changed.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
    return changed


@pytest.mark.parametrize("policy", POLICIES)
def test_scored_prompts_have_the_tokens_of_the_training_prefix(model, tokenizer, policy):
    other, texts = (
        adding(tokenizer, POLICIES[policy]),
        [prompt_of(text) for text in INSTRUCTIONS] + ["<s>begins with BOS:", "ends with </s>"],
    )
    start = [1] if policy in ("BOS", "both") else []
    expected = [start + tokenizer(text)["input_ids"] for text in texts]
    prefixes = [(ids[:first], ids[-2:]) for ids, first in (encode(other, text, " 12") for text in texts)]
    assert [prefix for prefix, _ in prefixes] == expected and all(end[1] == 2 != end[0] for _, end in prefixes)
    for adapter in (
        hf.transformers_adapter(model, other, 4, 256),
        hf.adapter("hf-paged", model, other, 4, 256),
    ):
        assert [adapter.tok_encode(text) for text in texts] == adapter.tok_encode(texts) == expected
    ids, mask = hf.transformers_adapter(model, other, 4, 256).tok_batch_encode(texts)
    assert [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)] == expected and mask[:, -1].all()
    assert tasks.LengthLimit(other, 256, 16).lengths(texts) == [len(row) for row in expected]


def test_an_eos_that_the_tokenizer_adds_changes_no_answer_and_no_likelihood(model, tokenizer, benchmarks, scored):
    _, samples = score(model, adding(tokenizer, POLICIES["EOS"]), benchmarks, 4, 256)
    assert samples.equals(scored["hf", 4][1])


# ---------------------------------------------------------------- numbers that are not finite


@pytest.mark.parametrize("backend", ["hf", "hf-paged"])
def test_likelihoods_that_are_not_finite_are_refused(base, tokenizer, benchmarks, backend):
    model = load_model(base)
    model.lm_head.weight.data[5] = math.nan  # after loading, as where activations overflow
    with pytest.raises(
        AtlasError, match=r"tiny: pick: log-likelihoods of 5 of 5 items are not finite, the first is item 0; nothing is scored"
    ):
        score(model, tokenizer, benchmarks[1:], 4, 256, backend)


# ---------------------------------------------------------------- prompts that are too long


@pytest.mark.parametrize(("task", "room"), [("generate.yaml", STEPS), ("choice.yaml", 0)])
def test_an_item_that_leaves_no_room_for_its_answer_is_listed_as_missing(tmp_path, tokenizer, task, room):
    items = [{"instruction": text, "answer": "x", "choices": ["x", "much longer"], "label": 0} for text in ("short", "long " * 9, "last")]
    listed = [files(tmp_path, "quiz", task, items)]
    longest = prompt_of(items[1]["instruction"]) + ("" if room else " much longer")
    needed = len(tokenizer(longest)["input_ids"]) + room
    answers = {prompt_of(item["instruction"]): " x" for item in items}
    scores, samples = lm_eval_runner.score(Oracle(answers, needed), tokenizer, listed, TEMPLATE, 0)
    assert scores.select("score", "n", "n_missing").row(0) == (1.0, 3, 0) and samples["missing"].null_count() == 3
    answers[prompt_of("last")] = " much longer"
    scores, samples = lm_eval_runner.score(Oracle(answers, needed - 1), tokenizer, listed, TEMPLATE, 0)
    assert scores.select("score", "n", "n_missing", "n_fewer_shots").row(0) == (0.5, 2, 1, 0)
    assert samples.select("item", "score").rows() == [(0, 1.0), (1, None), (2, 0.0)]
    assert samples["missing"][1].startswith(f"longer than {needed - 1} tokens with its answer; raise max_length")
    assert samples["output"][1] is None and samples["prompt"][1] == prompt_of(items[1]["instruction"])


def test_a_model_too_short_for_every_item_is_an_error(model, tokenizer, tmp_path):
    listed = [files(tmp_path, "quiz", "choice.yaml", [{"instruction": "one two " * 150, "choices": ["x", "y"], "label": 0}])]
    with pytest.raises(AtlasError, match="quiz: every item is longer than 256 tokens with its answer; raise max_length"):
        score(model, tokenizer, listed, 1, 100_000)


# ---------------------------------------------------------------- answers that cannot be scored


def fails_on(monkeypatch, *answers):
    from sft_atlas.evaluate.metrics import mathematics

    original = mathematics.gsm8k

    def failing(doc, results):
        if doc["answer"] in answers:
            raise ValueError("no number")
        return original(doc, results)

    monkeypatch.setattr(mathematics, "gsm8k", failing)


def test_an_answer_that_cannot_be_scored_is_listed_as_missing(tmp_path, tokenizer, monkeypatch):
    entries = gsm8k_items()
    listed = [files(tmp_path, "gsm8k", "gsm8k.yaml", [item for item, _, _ in entries])]
    told = '\nThink step by step and write the final number after "####".'
    oracle = Oracle({prompt_of(item["instruction"] + told): right for item, right, _ in entries})
    fails_on(monkeypatch, entries[2][0]["answer"])
    scores, samples = lm_eval_runner.score(oracle, tokenizer, listed, TEMPLATE, 0)
    assert scores.select("score", "n", "n_missing").row(0) == (1.0, 4, 1)
    assert samples["missing"][2] == "its answer cannot be scored: ValueError: no number" and samples["score"][2] is None
    assert samples["output"][2] == entries[2][1]
    fails_on(monkeypatch, *(item["answer"] for item, _, _ in entries))
    with pytest.raises(AtlasError, match="gsm8k: no answer can be scored; of item 0: its answer cannot be scored: ValueError: no number"):
        lm_eval_runner.score(oracle, tokenizer, listed, TEMPLATE, 0)
