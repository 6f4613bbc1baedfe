"""Kinds of benchmarks beside the paper's, configured by YAML alone: what a known answer scores on items of each shape."""

import gzip
import json
import math
from pathlib import Path

import pytest
from lm_eval.api.model import LM

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import lm_eval_runner
from sft_atlas.evaluate.metrics.choice import probability_of_right
from sft_atlas.evaluate.tasks import BenchmarkFiles, task_configs
from sft_atlas.study import task_checks
from sft_atlas.study.schema import Benchmark, Template

DATA = Path("/work/shared/data/bench")
TASKS = ROOT / "config/benchmarks"


class Known(LM):
    """Gives likelihoods and texts that a function makes of each request's arguments."""

    max_length, max_gen_toks = 100_000, 256

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def loglikelihood(self, requests, disable_tqdm=False):
        return [self.answer(*request.args) for request in requests]

    def generate_until(self, requests, disable_tqdm=False):
        return [self.answer(*request.args) for request in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


@pytest.fixture
def benchmark(tmp_path):
    """A function from a task file (a name or YAML) or an entry of the registry, and items, to a benchmark."""

    def made(task, items, entry=None):
        path = TASKS / task
        if "\n" in task:
            path = tmp_path / "task.yaml"
            path.write_text(task)
        if entry:
            path, items = Path(entry.task), [{"task": entry.lm_eval, "doc": item} for item in items]
        (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        return BenchmarkFiles(entry.lm_eval if entry else "shape", path, tmp_path / "items.jsonl", lm_eval=entry and entry.registered)

    return made


def scored(file, answer):
    """The benchmark's row of scores, and its samples."""
    configs = task_configs(file, Template().model_dump())
    scores, samples = lm_eval_runner.run(Known(answer), configs, 0, False, {})
    return scores.row(0, named=True), samples


def truthful_items():
    """TruthfulQA's questions with as many options as they have right and wrong answers, as in MC1 and MC2."""
    file = DATA / "truthfulqa.jsonl.gz"
    if not file.exists():
        pytest.skip("/work/shared/data/bench/truthfulqa.jsonl.gz is not there")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][:40]
    for row in rows:
        right, wrong = ([text.strip() for text in row[f"{kind} Answers"].split(";") if text.strip()] for kind in ("Correct", "Incorrect"))
        yield {"instruction": row["Question"], "answer": right[0], "right": right, "wrong": wrong}


@pytest.mark.parametrize("believes", ["right", "wrong"])
def test_truthfulqa_with_one_right_option_of_any_number(benchmark, believes):
    items = [item | {"choices": [item["right"][0], *item["wrong"]], "label": 0} for item in truthful_items()]
    assert len({len(item["choices"]) for item in items}) > 3
    liked = {f" {item['right'][0]}" for item in items}
    row, _ = scored(
        benchmark("choice.yaml", items), lambda prompt, option: (-1.0 if (option in liked) == (believes == "right") else -9.0, False)
    )
    assert (row["score"], row["n"]) == (1.0 if believes == "right" else 0.0, 40)


def test_truthfulqa_with_several_right_options_is_the_probability_of_them(benchmark):
    """An equal likelihood of all options gives the share of right ones, whatever its size: exp(-2000) alone would be 0."""
    items = [
        item | {"choices": item["right"] + item["wrong"], "labels": [1] * len(item["right"]) + [0] * len(item["wrong"])}
        for item in truthful_items()
    ]
    row, samples = scored(benchmark("choice_mass.yaml", items), lambda prompt, option: (-2000.0, False))
    assert samples["score"].to_list() == pytest.approx([sum(item["labels"]) / len(item["labels"]) for item in items])
    assert row["score"] == pytest.approx(samples["score"].mean())


def test_the_probability_of_right_options_is_lm_evals_mc2():
    likelihoods, labels = [-1.5, -0.5, -3.0, -2.0], [1, 0, 1, 0]
    values = [math.exp(value) for value in likelihoods]  # as truthfulqa/utils.py of lm-eval
    expected = (values[0] + values[2]) / sum(values)
    assert probability_of_right({"labels": labels}, [(value, False) for value in likelihoods])["acc"] == pytest.approx(expected)
    with pytest.raises(AtlasError, match="4 options and the labels"):
        probability_of_right({"labels": [1, 0]}, [(value, False) for value in likelihoods])


def test_several_accepted_answers(benchmark):
    """NaturalQuestions' shape: a list of answers, each of which is right."""
    items = [{"instruction": f"{n}?", "answer": ["14 December 1972 UTC", "December 1972"]} for n in range(3)]
    texts = {"0": " December 1972\n", "1": " 14 December 1972 UTC", "2": " 1972"}
    row, samples = scored(benchmark("generate.yaml", items), lambda prompt, settings: texts[prompt.split("?")[0][-1]])
    assert samples["score"].to_list() == [1.0, 1.0, 0.0] and row["n"] == 3


def test_the_last_word_of_a_text(benchmark):
    """LAMBADA's shape: the text is the prompt, and the answer is right where greedy decoding gives all of it."""
    items = [
        {"text": "She opened the box and took out the ring", "instruction": "x", "answer": "ring"},
        {"text": "They drank their tea", "instruction": "x", "answer": "tea"},
    ]
    row, samples = scored(benchmark("last_word.yaml", items), lambda prompt, word: (-1.0, word == " ring"))
    assert samples["prompt"].to_list() == ["She opened the box and took out the", "They drank their"]
    assert samples["score"].to_list() == [1.0, 0.0] and row["metric"] == "acc"


def test_bbh_by_the_registry_has_its_own_examples_and_filter(benchmark):
    name = "bbh_cot_fewshot_boolean_expressions"
    items = [{"input": "not ( True ) and ( True ) is", "target": "False"}, {"input": "True and not not ( not False ) is", "target": "True"}]
    entry = Benchmark(lm_eval=name, path="items.jsonl")
    row, samples = scored(benchmark("", items, entry), lambda prompt, settings: "not ( True ) is False. So the answer is False.")
    assert samples["score"].to_list() == [1.0, 0.0] and row["metric"] == f"exact_match (lm_eval: {name})" and row["shots"] == 3
    prompt = samples["prompt"][0]
    assert prompt.startswith(
        "Evaluate the result of a random Boolean expression.\n\nQ: not ( ( not not True ) ) is\nA: Let's think step by step.\n"
    )
    assert prompt.count("Q: ") == 4 and prompt.endswith("Q: not ( True ) and ( True ) is\nA: Let's think step by step.\n")


# The first item of google/IFEval, and one of two instructions; kwargs that do not apply are absent in files and null on the hub.
IFEVAL = [
    {
        "key": 1000, "prompt": "Write a 300+ word summary of the wikipedia page \"https://en.wikipedia.org/wiki/Raymond_III,_Count_of_Tripoli\". Do not use any commas and highlight at least 3 sections that has titles in markdown format, for example *highlighted section part 1*, *highlighted section part 2*, *highlighted section part 3*.",
        "instruction_id_list": ["punctuation:no_comma", "detectable_format:number_highlighted_sections", "length_constraints:number_words"],
        "kwargs": [{"num_highlights": None}, {"num_highlights": 3, "relation": None}, {"relation": "at least", "num_words": 300}],
    },
    {
        "key": 1, "prompt": "Write a sentence, all in lowercase, without commas.", "instruction_id_list": ["change_case:english_lowercase", "punctuation:no_comma"],
        "kwargs": [{}, {}],
    },
    {
        "key": 2, "prompt": "Write two sentences with at least two words in capitals.", "instruction_id_list": ["length_constraints:number_sentences", "change_case:capital_word_frequency"],
        "kwargs": [{"relation": "at least", "num_sentences": 2}, {"capital_relation": "at least", "capital_frequency": 2}],
    },
]  # fmt: skip
SUMMARY = "*one* *two* *three* " + "word " * 300
LOWER = "this is a short answer which is written in english for everyone"
CAPITALS = "These are WORDS in CAPITALS. And this is another sentence."


@pytest.fixture
def ifeval(tmp_path, monkeypatch):
    """The entry of the registry, with data of nltk that has no word of any language, made by nltk itself; nothing may be downloaded."""
    import nltk
    from nltk.tokenize.punkt import PunktParameters, save_punkt_params

    folder = tmp_path / "nltk_data/tokenizers/punkt_tab/english"
    folder.mkdir(parents=True)
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "nltk_data"))
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])
    save_punkt_params(PunktParameters(), dir=str(folder))
    monkeypatch.setattr(nltk, "download", lambda name: pytest.fail(f"{name} would be downloaded"))
    task_checks.missing_nltk_data.cache_clear()
    entry = Benchmark(lm_eval="ifeval", path="items.jsonl")
    assert task_checks.problems(entry.task, metric=entry.registered.metric) == []
    yield entry
    task_checks.missing_nltk_data.cache_clear()


@pytest.mark.parametrize(
    ("answers", "scores"),
    [
        ((SUMMARY, LOWER, CAPITALS), [1.0, 1.0, 1.0]),
        ((SUMMARY.replace("word ", "word, ", 1), LOWER.upper(), CAPITALS.lower()), [0.0, 0.0, 0.0]),
        ((SUMMARY[:-40], LOWER.replace(" which", ", which"), CAPITALS.partition(" And")[0]), [0.0, 0.0, 0.0]),
        ((SUMMARY.replace("*two* ", ""), "", CAPITALS), [0.0, 0.0, 1.0]),
    ],
)
def test_ifeval_counts_answers_that_follow_every_instruction(answers, scores, benchmark, ifeval):
    """By the checkers that lm-eval ships."""
    of = {item["prompt"]: answer for item, answer in zip(IFEVAL, answers, strict=True)}
    row, samples = scored(benchmark("", IFEVAL, ifeval), lambda prompt, settings: of[prompt])
    assert samples["score"].to_list() == scores and row["score"] == pytest.approx(sum(scores) / 3)
    assert samples["prompt"].to_list() == [item["prompt"] for item in IFEVAL]
    assert row["metric"] == "prompt_level_strict_acc (lm_eval: ifeval)"


def test_the_language_of_an_answer_is_decided_by_the_seed(benchmark, ifeval):
    """langdetect draws at random: of these words it names several languages in turn."""
    import langdetect

    langdetect.DetectorFactory.seed = None
    words = "menu hotel restaurant radio"
    assert len({langdetect.detect(words) for _ in range(60)}) > 1
    item = {
        "key": 3,
        "prompt": "Answer.",
        "instruction_id_list": ["language:response_language"],
        "kwargs": [{"language": "fr"}],
    }
    found = [scored(benchmark("", [item], ifeval), lambda prompt, settings: words)[0]["score"] for _ in range(12)]
    assert len(set(found)) == 1


def test_data_that_a_task_would_download_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.py").write_text('import nltk\nnltk.download("punkt_nowhere")\n\ndef score(doc, results):\n    return {"acc": 1.0}\n')
    task = tmp_path / "own.yaml"
    task.write_text(
        "doc_to_text: q\ndoc_to_target: a\nprocess_results: !function own.score\nmetric_list: [{metric: acc, aggregation: mean}]\n"
    )
    (problem,) = task_checks.problems(str(task))
    assert (
        "would download punkt_nowhere of nltk when they run" in problem
        and "nltk.downloader -d FOLDER punkt_nowhere" in problem
        and "set NLTK_DATA" in problem
    )
    task_checks.missing_nltk_data.cache_clear()
    (tmp_path / "tokenizers/punkt_nowhere").mkdir(parents=True)
    assert task_checks.problems(str(task)) == []
