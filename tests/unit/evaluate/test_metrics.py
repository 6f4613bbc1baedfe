"""Scoring proven by oracles: right answers 100 %, wrong ones 0 %, realistic styles what a reader would say; on all real items that are here."""

import json
from pathlib import Path

import polars as pl
import pytest

from helpers import speaking, styles
from helpers.sandboxed import WHOLE
from sft_atlas.core.provenance import ROOT
from sft_atlas.data import records
from sft_atlas.data.fetch_benchmark import benchmark_items
from sft_atlas.data.fetch_shots import draw_shots
from sft_atlas.evaluate import lm_eval_runner, sandbox
from sft_atlas.evaluate.engines import hf
from sft_atlas.evaluate.metrics import choice, code, last_boxed, mathematics, open_answers, plain
from sft_atlas.evaluate.rescore_samples import rescore, stored_answers
from sft_atlas.evaluate.tasks import PROMPT, BenchmarkFiles, task_config
from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer
from sft_atlas.study import study
from sft_atlas.study.backends import BACKENDS
from sft_atlas.study.schema import Template

SHARED = ROOT.parent / "shared/data" if (ROOT.parent / "shared/data").exists() else ROOT.parent.parent / "shared/data"
REAL = pytest.mark.skipif(not SHARED.exists(), reason=f"the real test files are not here ({SHARED})")
TEMPLATE = Template().model_dump()
KINDS = {  # benchmark -> (scoring function, metric, styles, what they are filled with, every how many items, share that a reader counts)
    "math": (mathematics.math, "exact_match", styles.MATH, styles.of_math, 7, 1.0),
    "gsm8k": (mathematics.gsm8k, "exact_match", styles.GSM8K, styles.of_gsm8k, 1, 1.0),
    "humaneval": (code.humaneval, "pass@1", styles.HUMANEVAL, styles.of_humaneval, 11, 1.0),
    "mbpp": (code.mbpp, "pass@1", styles.MBPP, styles.of_mbpp, 41, 1.0),
    "boolq": (choice.yes_no, "exact_match", styles.BOOLQ, styles.of_boolq, 1, 1.0),
    "nq-open": (open_answers.lenient_match, "lenient_match", styles.NQ, styles.of_nq, 1, 1.0),
    "truthfulqa": (open_answers.truthful, "bleu_acc", styles.TRUTHFULQA, styles.of_truthfulqa, 5, 0.99),
    "mmlu": (choice.letter, "exact_match", styles.CHOICE_EN, styles.of_choice, 7, 1.0),
    "mmlu-zh": (choice.letter, "exact_match", styles.CHOICE_ZH, styles.of_choice, 7, 1.0),
    "jmmlu": (choice.letter, "exact_match", styles.CHOICE_JA, styles.of_choice, 5, 1.0),
}


@pytest.fixture(scope="module")
def file():
    return study.load(ROOT / "config/benchmarks-smoke.yaml").file


@pytest.fixture(scope="module")
def items(file):
    """All items of a benchmark, read once."""
    kept = {}

    def read(name):
        if name not in kept:
            entry = file.benchmarks[name].model_copy(update={"items": None})
            kept[name] = benchmark_items(records.read_rows(entry, SHARED / entry.path, "benchmark"), entry, name)
        return kept[name]

    return read


def clear(item):
    """Whether a reader can tell the option from its text: no other has it, and it is no letter of the options itself."""
    texts = [plain(str(option)).strip().lower() for option in item.get("choices", [])]
    return len(set(texts)) == len(texts) and not any(
        len(text.strip("：:~.() ")) == 1 and text.strip("：:~.() ") in "abcd" for text in texts
    )


CASES = [(name, style) for name, kind in KINDS.items() for style in kind[2]]


@pytest.mark.slow
@REAL
@pytest.mark.parametrize(("name", "style"), CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)])
def test_a_realistic_style_scores_what_a_reader_would_say(items, name, style):
    score, metric, _, fill, every, share = KINDS[name]
    chosen = [item for item in items(name)[::every] if clear(item)]
    wrong = [item for item in chosen if not score(item, [style.format(**fill(item))])[metric]]
    assert len(wrong) <= (1 - share) * len(chosen), (style.format(**fill(wrong[0])), wrong[0]["answer"])


@REAL
@pytest.mark.parametrize("name", KINDS)
def test_a_wrong_answer_scores_nothing_and_is_parsed(items, name):
    score, metric, _, fill, every, _ = KINDS[name]
    for item in items(name)[::every]:
        said = (
            [fill(item)["w"]]
            if name in ("humaneval", "mbpp", "truthfulqa")
            else [f"{fill(item)['w']}", f"The answer is {fill(item)['w']}."]
        )
        for output in said:
            result = score(item, [str(output)])
            assert result[metric] == result["strict"] == 0, (output, item)
            assert result["parsed"] or name == "mbpp"


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("output", ["", "   \n", "I am sorry, but as a language model I cannot help with this.", "###", "\n\n\n"])
def test_an_output_without_an_answer_is_neither_right_nor_parsed(name, output):
    score, metric = KINDS[name][:2]
    item = {
        "answer": "4 #### 4",
        "label": 1,
        "choices": ["Rome", "Paris", "Oslo", "Bern"],
        "answers": ["Paris"],
        "Correct Answers": "x y",
        "Incorrect Answers": "z",
    }
    item |= {"prompt": "def f(x):\n", "test": "def check(f): assert f(1) == 2", "entry_point": "f", "test_list": ["assert f(1) == 2"]}
    if name in ("boolq", "math", "mbpp"):
        item["answer"] = {"boolq": "true", "math": "\\boxed{4}", "mbpp": "def f(x): return x + 1"}[name]
    result = score(item, [output])
    assert result[metric] == result["strict"] == 0 or (name == "truthfulqa" and "sorry" in output)  # a refusal is no falsehood
    words = (name in ("nq-open", "truthfulqa", "math") and "sorry" in output) or (
        name in ("nq-open", "truthfulqa", "math") and output == "###"
    )
    assert words or (result["parsed"], result["extracted"]) == (0, "")


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("A. Rome\nB. Paris\nC. Oslo\nD. Bern", None), ("A or B", None), ("I think A banana is meant", None), ("It's B, not C. The answer is B", "B"),
        ("The answer is not A. The answer is C.", "C"), ("Paris", "B"), ("Rome and Paris", None), ("b", "B"), ("E", None), ("Ｂ", "B"), ("The capital is Paris, France.", "B"),
        ("**Answer:** (D)", "D"), ("Option C is correct", "C"), ("B\n\n###", "B"), ("Answer: A cat", None),
    ],
)  # fmt: skip
def test_a_letter_is_found_or_not(output, letter):
    assert choice.find_letter(output, ["Rome", "Paris", "Oslo", "Bern"]) == letter


@pytest.mark.parametrize(
    ("output", "result"),
    [("Yes and no", None), ("It is not true.", "no"), ("Maybe", None), ("It could be yes or no", None), ("The answer: No.", "no")],
)
def test_yes_or_no_is_found_or_not(output, result):
    assert choice.find_yes_no(output) == result


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("\\frac{1}{2}", "0.5", True), ("\\dfrac12", "\\frac{1}{2}", True), ("1,000", "1000", True), ("(1,2)", "(1, 2)", True), ("(1,2)", "(2,1)", False), ("x=5", "5", True),
        ("50\\%", "50", True), ("90^\\circ", "90", True), ("\\sqrt{2}", "\\sqrt2", True), ("2", "3", False), ("\\text{Monday}", "Monday", True), ("\\$40", "40", True), ("3/4", "0.75", True),
    ],
)  # fmt: skip
def test_expressions_are_equal_in_value_and_in_form(one, other, equal):
    assert mathematics.same(one, other) is equal


def test_the_last_box_is_found_with_its_braces():
    assert last_boxed("\\boxed{1} then \\boxed{\\frac{a}{b}}.") == "\\frac{a}{b}"
    assert last_boxed("\\boxed{open") is None


def test_the_form_that_was_asked_for_is_counted_apart():
    item = {"answer": "2 + 2 = 4\n#### 4"}
    told = {"four is 4": (1, 0, 0), "#### 4": (1, 1, 1), "#### 5": (0, 0, 1), "nothing": (0, 0, 0)}
    for output, expected in told.items():
        result = mathematics.gsm8k(item, [output])
        assert (result["exact_match"], result["strict"], result["formed"]) == expected, output


@WHOLE
def test_code_that_is_not_the_answers_own_is_not_run(tmp_path):
    """An answer that parses but tries to leave the sandbox fails, and nothing happens outside."""
    item = {"prompt": "def f(x):\n", "test": "def check(f): assert f(1) == 2", "entry_point": "f", "answer": ""}
    target = tmp_path / "written"
    result = code.humaneval(item, [f"    open({str(target)!r}, 'w').write('x')\n    return 2\n"])
    assert result["pass@1"] == 0 and result["parsed"] == 1 and not target.exists()


# ---------------------------------------------------------------- through lm-eval


def answering(answers):
    """An lm-eval model that answers each item from a table, whatever the prompt; of options it finds that answer likely."""

    def loglikelihood(requests, disable_tqdm=False):
        return [(-1.0 if request.args[1].strip() == answers[request.task_name, request.doc_id] else -2.0, False) for request in requests]

    schema = {"benchmark": pl.String, "item": pl.Int64, "output": pl.String}
    model = stored_answers(pl.DataFrame([(*key, output) for key, output in answers.items()], schema, orient="row"))
    model.loglikelihood = loglikelihood
    return model


def right(name, item):
    """The gold answer in the form that the prompt asks for."""
    kind = name.removesuffix("-4shot").removesuffix("-5shot").removesuffix("-likelihood")
    return {
        "humaneval": lambda: item["canonical_solution"], "truthfulqa": lambda: item["answer"], "boolq": lambda: styles.of_boolq(item)["g"],
    }.get(kind, lambda: styles.of_choice(item)["g"] if "label" in item else item["answer"])()  # fmt: skip


def wrong(name, item):
    kind = name.removesuffix("-4shot").removesuffix("-5shot").removesuffix("-likelihood")
    return str(KINDS[kind][3](item)["w"])


@pytest.fixture(scope="module")
def everything(file, items, tmp_path_factory):
    """Every generated and likelihood benchmark of the smoke study with 15 items, examples included, as files."""
    folder = tmp_path_factory.mktemp("items")
    listed = {}
    for name, entry in file.benchmarks.items():
        if name in ("mt-bench", "alpaca-eval"):
            continue
        rows = items(name)[::67][:15] if len(items(name)) > 1000 else items(name)[::11][:15]
        path, shots = folder / f"{name}.jsonl", None
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        if entry.shots:
            source = entry.shot_source()
            pool = benchmark_items(records.read_rows(source, SHARED / source.path, "train"), source, name)
            drawn, _ = draw_shots(pool, entry.shots.count, entry.shots.by, 0, rows, name)
            shots = folder / f"{name}.shots.jsonl"
            shots.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in drawn), encoding="utf-8")
        listed[name] = (BenchmarkFiles(name, Path(entry.task), path, shots, entry.shots.by if entry.shots else None), rows)
    return listed


@pytest.mark.slow
@REAL
@pytest.mark.parametrize(("truth", "score"), [(right, 1.0), (wrong, 0.0)])
def test_through_lm_eval_a_right_oracle_gets_every_point_and_a_wrong_one_none(everything, tiny_base, truth, score):
    answers = {(name, i): truth(name, row) for name, (_, rows) in everything.items() for i, row in enumerate(rows)}
    configs = [task_config(file, TEMPLATE) for file, _ in everything.values()]
    scores, samples = lm_eval_runner.run(answering(answers), configs, 0, True, {"backend": "hf"})
    assert samples.filter(pl.col("score") != score).select("benchmark", "item", "output", "extracted", "target").to_dicts() == []
    assert scores["n"].to_list() == [len(rows) for _, rows in everything.values()]
    if truth is right:  # gold answers have the form that is asked for, but TruthfulQA's short ones and lm-eval's BLEU, and bare numbers
        assert scores.filter(~pl.col("benchmark").is_in(["truthfulqa"]))["score_strict"].min() == 1.0
    again, same, changes = rescore(samples, scores, [file for file, _ in everything.values()], 0, True)
    assert again.equals(scores) and same.equals(samples)
    assert changes["items_changed"].sum() == 0


@WHOLE
def test_scores_say_what_the_sandbox_lacked_and_only_those_of_code(tmp_path, monkeypatch):
    item = {"instruction": "f", "prompt": "def f(x):\n", "test": "def check(f): assert f(1) == 2", "entry_point": "f"}
    files = []
    for name in ("humaneval", "gsm8k"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(item | {"answer": "2"}) + "\n")
        files.append(BenchmarkFiles(name, ROOT / f"config/benchmarks/{name}.yaml", tmp_path / f"{name}.jsonl"))
    answers = {("humaneval", 0): "def f(x):\n    return 2", ("gsm8k", 0): "#### 2"}
    expected = {"humaneval": "", "gsm8k": None}
    for agreed, text in ((sandbox.Agreed("strict", ()), ""), (sandbox.Agreed("best_effort", ("one", "another")), "one, another")):
        monkeypatch.setattr(sandbox, "AGREED", agreed)
        scores, _ = lm_eval_runner.run(answering(answers), [task_config(file, TEMPLATE) for file in files], 0, True, {"backend": "hf"})
        assert dict(scores.select("benchmark", "sandbox_missing").iter_rows()) == expected | {"humaneval": text}
        assert scores["score"].to_list() == [1.0, 1.0]


@REAL
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_style_is_read_alike_whichever_engine_wrote_it(everything, tiny_base, backend):
    chosen = {name: entry for name, entry in everything.items() if name in KINDS and name not in ("humaneval", "mbpp")}
    configs = [task_config(file, TEMPLATE) for file, _ in chosen.values()]
    said, table = {}, {}
    for config, (name, (_, rows)) in zip(configs, chosen.items(), strict=True):
        for i, (row, prompt) in enumerate(zip(rows, config["custom_dataset"]()["test"][PROMPT], strict=True)):
            text = said[prompt] = KINDS[name][2][i % len(KINDS[name][2])].format(**KINDS[name][3](row))
            for stop in config["generation_kwargs"].get("until", []):
                text = text.split(stop)[0]
            table[name, i] = text
    base = ModelFolder.read(tiny_base)
    tokenizer, model = load_tokenizer(base), load_model(base)
    model.config.max_position_embeddings = speaking.LENGTH
    with speaking.speaking(backend, base, model, tokenizer, said) as engine:
        scores, samples = lm_eval_runner.run(engine, configs, 0, False, {})
    expected, told = lm_eval_runner.run(answering(table), configs, 0, False, {})
    assert len(chosen) == 8 and samples.drop("truncated").equals(told.drop("truncated")) and not samples["truncated"].any()
    assert scores["score"].equals(expected["score"]) and scores["score"].min() > 0.7


@REAL
def test_code_runs_only_where_the_study_allows_it(everything):
    configs = [task_config(everything["mbpp"][0], TEMPLATE)]
    with pytest.raises(lm_eval_runner.AtlasError, match="mbpp runs code that the model wrote; set `allow_code_execution: true`"):
        lm_eval_runner.run(answering({}), configs, 0, False, {})


@REAL
def test_the_same_prompt_is_answered_in_text_and_by_likelihood(everything):
    for name in ("boolq", "mmlu", "mmlu-zh", "jmmlu"):
        both = [task_config(everything[kind][0], TEMPLATE)["custom_dataset"]()["test"][PROMPT] for kind in (name, f"{name}-likelihood")]
        assert list(both[0]) == list(both[1])


@REAL
def test_mmlu_items_on_one_passage_share_a_cluster(items, tmp_path):
    rows = [row for row in items("mmlu") if row["subject"] == "high_school_european_history"]
    path = tmp_path / "mmlu.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    clusters = task_config(BenchmarkFiles("mmlu", ROOT / "config/benchmarks/mmlu.yaml", path), TEMPLATE)["custom_dataset"]()["test"][
        "cluster of the item"
    ]
    assert 30 < len(set(clusters)) < 100 < len(rows)


def _score(model, tokenizer, benchmarks, batch_size, backend="hf"):
    adapter = hf.adapter(backend, model, tokenizer, batch_size, 4096)
    return lm_eval_runner.score(adapter, tokenizer, benchmarks, TEMPLATE, 0, max_new_tokens=8)


@REAL
def test_batches_of_one_and_of_many_give_the_same_real_answers(everything, tiny_base):
    """Generated and likelihood scores of a real task do not depend on the batch size."""
    import torch

    base = ModelFolder.read(tiny_base)
    model, tokenizer = load_model(base), load_tokenizer(base)
    model.config.max_position_embeddings = 4096
    torch.set_num_threads(1)
    chosen = [everything[name][0] for name in ("mmlu", "mmlu-likelihood", "nq-open")]
    result = [_score(model, tokenizer, chosen, size) for size in (1, 6, "auto")]
    assert result[0][0].equals(result[1][0]) and result[0][0].equals(result[2][0])
    generated = [frame.filter(pl.col("benchmark") != "mmlu-likelihood") for _, frame in result]
    assert generated[0].equals(generated[1]) and generated[0].equals(generated[2])
    for one, many in zip(*(frame.filter(benchmark="mmlu-likelihood")["output"] for _, frame in result[:2]), strict=True):
        assert list(json.loads(one).values()) == pytest.approx(list(json.loads(many).values()), abs=1e-4)
