"""Scores: the same as by hand, whatever the batch size; and checkpoints as they are loaded for scoring."""

import json
import math
import statistics

import polars as pl
import pytest
import torch
from lm_eval.api.model import LM
from peft import LoraConfig, PeftModel, get_peft_model

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import evaluate as evaluate_script
from sft_atlas.evaluate import lm_eval_runner, tasks
from sft_atlas.evaluate import scores as summaries
from sft_atlas.models.base_model import ModelFolder, is_adapter, load_model, load_tokenizer
from sft_atlas.models.prompt_template import fingerprint, require_trained_with
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.schema import Template

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


def score(model, tokenizer, benchmarks, batch_size, max_length):
    adapter = lm_eval_runner.transformers_adapter(model, tokenizer, batch_size, max_length)
    return lm_eval_runner.score(adapter, tokenizer, benchmarks, TEMPLATE, 0)


# ---------------------------------------------------------------- by hand


@pytest.fixture(scope="module")
def base(tiny_base):
    return ModelFolder.read(tiny_base)


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_tokenizer(base)


@pytest.fixture(scope="module")
def model(base):
    return load_model(base)


def greedy(model, tokenizer, prompt, steps):
    """The answer up to the end of the line, one token after another, nothing padded or cached."""
    ids, new = tokenizer(prompt)["input_ids"], []
    while len(new) < steps and "\n" not in tokenizer.decode(new):
        with torch.no_grad():
            new.append(model(torch.tensor([ids + new])).logits[0, -1].argmax().item())
        if new[-1] == tokenizer.eos_token_id:
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


@pytest.fixture(scope="module")
def scored(model, tokenizer, benchmarks):
    return {size: score(model, tokenizer, benchmarks, size, 256) for size in (1, 4)}


@pytest.mark.parametrize("batch_size", [1, 4])
def test_generated_answers_are_those_of_a_loop_by_hand(scored, by_hand, batch_size):
    samples = scored[batch_size][1].filter(benchmark="short")
    assert any(output.strip() for output in by_hand[0])
    assert samples["output"].to_list() == by_hand[0]
    assert samples["extracted"].to_list() == [output.strip() for output in by_hand[0]]
    assert samples["score"].to_list() == [1.0, 0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_choices_are_scored_with_the_likelihoods_of_a_loop_by_hand(scored, by_hand, batch_size):
    samples = scored[batch_size][1].filter(benchmark="pick")
    for output, extracted, options, expected in zip(samples["output"], samples["extracted"], *by_hand[1:], strict=True):
        assert list(json.loads(output)) == [" " + option for option in options]
        assert list(json.loads(output).values()) == pytest.approx(expected, abs=1e-4)
        assert extracted == options[expected.index(max(expected))]
    assert samples["score"].to_list() == [1.0, 0.0, 1.0, 0.0, 1.0]


def test_the_batch_size_changes_no_score(scored):
    assert scored[1][0].equals(scored[4][0])


def test_samples_are_complete_and_in_the_order_of_the_items(scored):
    samples = scored[4][1]
    assert samples.columns == list(summaries.SAMPLES)
    assert samples["item"].to_list() == [0, 1, 2, 3, 4] * 2
    assert samples["prompt"].to_list() == [prompt_of(text) for text in INSTRUCTIONS] * 2
    assert samples.filter(benchmark="short")["target"][1] == "something else"
    assert samples.drop("cluster").filter(benchmark="short").null_count().sum_horizontal().item() == 0
    assert samples["cluster"].null_count() == samples.height


def test_a_score_is_the_mean_with_its_standard_error(scored):
    row = scored[4][0].row(0, named=True)
    spread = statistics.stdev([1, 0, 1, 0, 1]) / math.sqrt(5)
    main = {"benchmark": "short", "metric": "exact_match", "score": 0.6, "stderr": pytest.approx(spread), "n": 5, "backend": "hf"}
    assert {key: row[key] for key in main} == main
    counts = {"scale": 1.0, "parsed": 1.0, "n_parsed": 5, "n_missing": 0, "n_clusters": 5, "shots": 0, "n_fewer_shots": 0}
    assert {key: row[key] for key in counts} == counts
    assert scored[4][0].row(1, named=True)["metric"] == "acc"


def item(score, cluster=None, **more):
    known = {"benchmark": "quiz", "strict": score, "parsed": 1.0, "formed": 1.0, "truncated": False, "shots": 0}
    return known | {"score": score, "cluster": cluster} | more


def test_one_item_has_no_standard_error():
    found = summaries.score_row([item(1.0)], "acc", "hf", 0)
    assert (found["score"], found["n"]) == (1.0, 1)
    assert math.isnan(found["stderr"])


def test_items_that_share_a_passage_are_one_cluster():
    """Twice the same items in clusters of two: no more information than once, by hand sqrt(G / (G - 1)) * sqrt(sum of squares) / n."""
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    doubled = [item(value, cluster=str(i)) for i, value in enumerate(values) for _ in range(2)]
    found = summaries.score_row(doubled, "acc", "hf", 0)
    assert found["stderr"] == pytest.approx(summaries.score_row([item(value) for value in values], "acc", "hf", 0)["stderr"])
    assert (found["n"], found["n_clusters"]) == (12, 6)
    assert found["stderr"] == pytest.approx(statistics.stdev(values) / math.sqrt(6))


def test_what_is_not_known_is_null_and_missing_is_not_zero():
    rows = [item(1.0), item(None, parsed=None, truncated=None), item(0.0, parsed=0.0)]
    found = summaries.score_row(rows, "acc", "hf", 0)
    assert (found["score"], found["n"], found["n_missing"], found["n_parsed"], found["n_truncated"]) == (0.5, 2, 1, 1, 0)
    assert summaries.score_row([item(None, truncated=None)], "acc", "hf", 0)["score"] is None


def test_the_script_writes_scores_and_samples_with_their_keys(tiny_base, benchmarks, tmp_path):
    scores, samples = tmp_path / "scores/tasks.parquet", tmp_path / "samples/tasks.parquet"
    words = [
        "--base",
        tiny_base,
        "--model",
        "tiny",
        "--dataset",
        "base",
        "--recipe",
        "base",
        "--epoch",
        0,
        "--suite",
        tmp_path / "tasks.json",
    ]
    tasks.Suite("tasks", benchmarks).write(tmp_path / "tasks.json")
    words += ["--template", json.dumps(TEMPLATE), "--max-length", 256, "--output-scores", scores, "--output-samples", samples]
    evaluate_script.main(evaluate_script.parser().parse_args(list(map(str, words))))
    keys = {"model": "tiny", "dataset": "base", "recipe": "base", "epoch": 0, "suite": "tasks"}
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


# ---------------------------------------------------------------- what is refused


def test_a_task_with_another_prompt_than_the_study_is_an_error_that_names_the_file(tmp_path):
    listed = files(tmp_path, "quiz", "generate.yaml", [{"instruction": "x", "answer": "y"}])
    with pytest.raises(AtlasError) as caught:
        tasks.task_config(listed, {"prompt": "Q: {instruction}\nA:", "response": " {response}"})
    assert str(caught.value).startswith(f"{TASKS / 'generate.yaml'}: doc_to_text and target_delimiter are ('###Question:")
    assert r"the study's template means ('Q: {{instruction}}\nA:', ' ')" in str(caught.value)
    assert "metadata: {template: own}" in str(caught.value)


def test_a_response_that_starts_otherwise_is_a_mismatch_too(tmp_path):
    listed = files(tmp_path, "quiz", "choice.yaml", [{"instruction": "x", "choices": ["y"], "label": 0}])
    with pytest.raises(AtlasError, match=r"choice\.yaml: doc_to_text and target_delimiter"):
        tasks.task_config(listed, {**TEMPLATE, "response": "\n{response}"})


def test_a_checkpoint_trained_with_another_template_is_not_scored(tmp_path):
    weights = tmp_path / "run/epoch-1/weights"
    weights.mkdir(parents=True)
    with pytest.raises(AtlasError, match=r"train\.json does not say with which template"):
        require_trained_with(TEMPLATE, weights)
    (tmp_path / "run/train.json").write_text(json.dumps({"template": {**TEMPLATE, "prompt": "Q: {instruction}\nA:"}}))
    with pytest.raises(AtlasError, match=r"weights was trained with the template .*Q: .*, this study scores with .*###Question"):
        require_trained_with(TEMPLATE, weights)
    (tmp_path / "run/train.json").write_text(json.dumps({"template": TEMPLATE}))
    assert require_trained_with(TEMPLATE, weights) == fingerprint(TEMPLATE)


def own_task(tmp_path, extra):
    task = tmp_path / "own.yaml"
    task.write_text('output_type: generate_until\ndoc_to_text: "{{instruction}}"\ndoc_to_target: answer\n' + extra)
    (tmp_path / "items.jsonl").write_text('{"instruction": "x", "answer": "y"}\n')
    return tasks.BenchmarkFiles("quiz", task, tmp_path / "items.jsonl")


def test_a_task_may_state_a_prompt_of_its_own(tmp_path):
    config = tasks.task_config(own_task(tmp_path, "metadata: {template: own}\nmetric_list: [{metric: exact_match}]\n"), TEMPLATE)
    assert (config["task"], config["doc_to_text"]) == ("quiz", "{{instruction}}")


def test_a_task_without_a_metric_is_an_error(tmp_path):
    with pytest.raises(AtlasError, match=r"own\.yaml: metric_list is missing"):
        tasks.task_config(own_task(tmp_path, "metadata: {template: own}\n"), TEMPLATE)


@pytest.mark.parametrize(("task", "room"), [("generate.yaml", STEPS), ("choice.yaml", 0)])
def test_a_prompt_that_leaves_no_room_for_the_answer_is_an_error(tmp_path, tokenizer, task, room):
    items = [{"instruction": text, "answer": "x", "choices": ["x", "much longer"], "label": 0} for text in ("short", "long " * 9)]
    listed = [files(tmp_path, "quiz", task, items)]
    longest = prompt_of(items[1]["instruction"]) + ("" if room else " much longer")
    needed = len(tokenizer(longest)["input_ids"]) + room
    answers = {prompt_of(item["instruction"]): " x" for item in items}
    assert lm_eval_runner.score(Oracle(answers, needed), tokenizer, listed, TEMPLATE, 0)[0]["score"].item() == 1.0
    with pytest.raises(
        AtlasError, match=rf"quiz: 1 prompts with their answers are longer than {needed - 1} tokens, the first is item 1; raise max_length"
    ):
        lm_eval_runner.score(Oracle(answers, needed - 1), tokenizer, listed, TEMPLATE, 0)


def test_the_models_own_length_limits_a_prompt(model, tokenizer, tmp_path):
    listed = [files(tmp_path, "quiz", "choice.yaml", [{"instruction": "one two " * 150, "choices": ["x", "y"], "label": 0}])]
    with pytest.raises(AtlasError, match="quiz: 1 prompts with their answers are longer than 256 tokens"):
        score(model, tokenizer, listed, 1, 100_000)


# ---------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """A LoRA adapter with random factors, and the logits of base and adapter unmerged."""
    folder, ids = tmp_path_factory.mktemp("adapter"), torch.arange(3, 40)[None]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        settings = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
        tuned = get_peft_model(load_model(base), settings)
    tuned.save_pretrained(folder)
    unmerged = PeftModel.from_pretrained(load_model(base), folder).eval()
    with torch.no_grad():
        return folder, ids, unmerged(ids).logits


def test_an_adapter_merged_for_scoring_gives_the_logits_of_the_unmerged_one(base, model, adapter):
    folder, ids, expected = adapter
    assert is_adapter(folder)
    merged = load_model(base, folder)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    with torch.no_grad():
        assert (merged(ids).logits - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (model(ids).logits - expected).abs().max() > 0.1


def test_the_difference_that_merging_makes_is_measured(base, adapter):
    folder, _, _ = adapter
    exact, rounded = {}, {}
    load_model(base, folder, facts=exact)
    load_model(base, folder, dtype="bfloat16", facts=rounded)
    assert 0 <= exact["merge_logit_difference"] < 1e-4 and exact["merge_and_cast_logit_difference"] < 1e-4
    assert rounded["merge_logit_difference"] == exact["merge_logit_difference"]
    assert 1e-3 < rounded["merge_and_cast_logit_difference"] < 1
    facts = {}
    load_model(base, facts=facts)
    assert facts == {}


def test_an_adapter_is_merged_in_float32_whatever_the_type_of_the_base(base, adapter):
    folder, _, _ = adapter
    exact, found = (dict(load_model(base, folder, dtype=kind).named_parameters()) for kind in ("float32", "bfloat16"))
    assert all(torch.equal(found[name], exact[name].to(torch.bfloat16)) for name in exact)


def test_full_weights_replace_those_of_the_base(base, model, tmp_path):
    changed = load_model(base)
    with torch.no_grad():
        changed.lm_head.weight.zero_()
    changed.save_pretrained(tmp_path)
    loaded = load_model(base, tmp_path)
    assert not is_adapter(tmp_path)
    assert loaded.lm_head.weight.abs().max() == 0
    assert torch.equal(loaded.model.embed_tokens.weight, model.model.embed_tokens.weight)
    assert not loaded.training


def test_weights_that_are_gone_are_an_error_with_the_way_out(tmp_path):
    manifest = tmp_path / "model.json"
    manifest.write_text(json.dumps({"name": "gone", "path": str(tmp_path / "gone"), "dtype": "float32", "trust_remote_code": False}))
    with pytest.raises(AtlasError, match=r"there is no config\.json; delete .*model\.json and run again"):
        ModelFolder.read(manifest)


@pytest.mark.parametrize("missing", ["pad_token", "eos_token"])
def test_a_tokenizer_without_pad_uses_eos_and_without_eos_is_refused(tmp_path, base, missing):
    tokenizer = load_tokenizer(base)
    setattr(tokenizer, missing, None)
    tokenizer.save_pretrained(tmp_path)
    bare = ModelFolder("bare", tmp_path, "float32", False)
    if missing == "pad_token":
        assert load_tokenizer(bare).pad_token_id == tokenizer.eos_token_id
    else:
        with pytest.raises(AtlasError, match=r"the tokenizer of bare in .* has no EOS token"):
            load_tokenizer(bare)
