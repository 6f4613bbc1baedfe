"""Prompts with examples, dropped where they do not fit; tasks that are refused; and suites that may not run."""

import dataclasses
import json

import pytest
from lm_eval.api.model import LM

from sft_atlas.core.errors import AtlasError, ConfigError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import lm_eval_runner, rescore_samples
from sft_atlas.evaluate.tasks import MISSING, PROMPT, SHOTS, BenchmarkFiles, LengthLimit, task_config
from sft_atlas.models.base_model import ModelFolder, load_tokenizer
from sft_atlas.models.prompt_template import DELIMITER
from sft_atlas.study import checks, study, task_files
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.schema import StudyFile, Template

TEMPLATE = Template().model_dump()
TASKS = ROOT / "config/benchmarks"


def rows(count, subjects=("x",), start=0):
    return [
        {"instruction": f"question {start + i}", "answer": f"answer {start + i}", "subject": subjects[i % len(subjects)]}
        for i in range(count)
    ]


# ---------------------------------------------------------------- the prompt


@pytest.fixture
def written(tmp_path):
    def write(items, shots=None, by=None, task="nq_open.yaml"):
        for name, listed in (("items", items), ("shots", shots or [])):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
        return BenchmarkFiles("quiz", TASKS / task, tmp_path / "items.jsonl", tmp_path / "shots.jsonl" if shots else None, by)

    return write


def prompts(config):
    result = config["custom_dataset"]()["test"]
    return list(result[PROMPT]), list(result[SHOTS])


def prompt_of(text):
    return f"###Question: Answer the question as briefly as possible.\n{text}?\n###Answer:"


def test_examples_stand_before_the_question_in_the_same_template(written):
    items = [{"instruction": "who?", "answer": "me", "answers": ["me"], "subject": "y"}]
    files = written(items, rows(2, ("y",)) + rows(2, ("z",), start=9), "subject")
    texts, counts = prompts(task_config(files, TEMPLATE))
    assert texts == [DELIMITER.join([prompt_of("question 0") + " answer 0", prompt_of("question 1") + " answer 1", prompt_of("who")])]
    assert counts == [2]


def test_with_a_chat_template_a_question_is_a_users_turn_and_examples_are_turns_before_it(written, tmp_path):
    from helpers.chat import chat_tokenizer
    from sft_atlas.models import prompt_template

    template = prompt_template.read('"chat"', chat_tokenizer("gemma"))
    items = [{"instruction": "who?", "answer": "me", "answers": ["me"]}]

    def turn(question):
        return f"<start_of_turn>user\nAnswer the question as briefly as possible.\n{question}?<end_of_turn>\n<start_of_turn>model\n"

    config = task_config(written(items, rows(1)), template)
    assert prompts(config) == (["<s>" + turn("question 0") + "answer 0<end_of_turn>\n" + turn("who")], [1])
    assert config["target_delimiter"] == ""
    choice = task_config(written([{"instruction": "who?", "choices": ["me", "you"], "label": 0}], task="choice.yaml"), template)
    whole = ["<s><start_of_turn>user\nwho?<end_of_turn>\n<start_of_turn>model\n"]
    assert prompts(choice)[0] == whole
    other = tmp_path / "other.yaml"  # one that was not written for the default template
    other.write_text((TASKS / "choice.yaml").read_text().replace('"###Question: {{instruction}}\\n###Answer:"', "instruction"))
    assert prompts(task_config(BenchmarkFiles("quiz", other, tmp_path / "items.jsonl"), template))[0] == whole
    described = tmp_path / "described.yaml"
    described.write_text(other.read_text() + "description: Think.\n")
    with pytest.raises(AtlasError, match="description: lm-eval would add it to the prompt"):
        task_config(BenchmarkFiles("quiz", described, tmp_path / "items.jsonl"), template)


def test_examples_that_do_not_fit_are_dropped_and_counted_and_the_question_stays_whole(written, tiny_base):
    tokenizer = load_tokenizer(ModelFolder.read(tiny_base))
    items = [{"instruction": "short", "answer": "x"}, {"instruction": "long " * 40, "answer": "x"}]
    files = written(items, rows(3))
    whole = prompts(task_config(files, TEMPLATE))[0]
    tokens = [len(tokenizer(text)["input_ids"]) for text in whole]
    room = strict_yaml_room()
    texts, counts = prompts(task_config(files, TEMPLATE, LengthLimit(tokenizer, max(tokens) + room - 1, 256)))
    assert counts == [3, 2] and texts[0] == whole[0]
    assert texts[1].startswith(prompt_of("question 1")) and texts[1].endswith(prompt_of(("long " * 40).rstrip("? ")))
    bare = len(tokenizer(prompt_of(("long " * 40).rstrip("? ")))["input_ids"])
    assert prompts(task_config(files, TEMPLATE, LengthLimit(tokenizer, bare + room, 256)))[1][1] == 0
    (missing,) = task_config(files, TEMPLATE, LengthLimit(tokenizer, bare + room - 1, 256))[MISSING]
    assert missing["item"] == 1 and missing["missing"].startswith(f"longer than {bare + room - 1} tokens with its answer")


def strict_yaml_room():
    return task_files.task_file(str(TASKS / "nq_open.yaml"))["generation_kwargs"]["max_gen_toks"]


def test_a_field_that_items_lack_is_an_error_that_names_it(written):
    with pytest.raises(AtlasError, match=r"boolq\.yaml: .*'passage' is undefined; the item has instruction, answer"):
        task_config(written([{"instruction": "q", "answer": "true"}], task="boolq.yaml"), TEMPLATE)


@pytest.mark.parametrize("path", sorted(TASKS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_task_file_keeps_the_papers_template_and_names_its_metric(path):
    if path.name in ("scored.yaml", "judge_prompts.yaml"):
        return
    config = task_files.task_file(str(path))
    if config.get("metadata") == {"template": "own"}:
        return
    assert config["doc_to_text"].startswith("###Question: ") and config["doc_to_text"].endswith("\n###Answer:")
    assert config["target_delimiter"] == " " and config["metric_list"][0]["metric"]
    assert config["output_type"] == ("multiple_choice" if "likelihood" in path.name or path.name.startswith("choice") else "generate_until")


def test_a_task_with_another_prompt_than_the_study_is_an_error_that_names_the_file(written):
    files = written([{"instruction": "x", "answer": "y"}], task="generate.yaml")
    with pytest.raises(AtlasError) as caught:
        task_config(files, {"prompt": "Q: {instruction}\nA:", "response": " {response}"})
    assert str(caught.value).startswith(f"{TASKS / 'generate.yaml'}: doc_to_text and target_delimiter are ('###Question:")
    assert r"the study's template means ('Q: {{instruction}}\nA:', ' ')" in str(caught.value)
    assert "metadata: {template: own}" in str(caught.value)


def test_a_response_that_starts_otherwise_is_a_mismatch_too(written):
    files = written([{"instruction": "x", "choices": ["y"], "label": 0}], task="choice.yaml")
    with pytest.raises(AtlasError, match=r"choice\.yaml: doc_to_text and target_delimiter"):
        task_config(files, {**TEMPLATE, "response": "\n{response}"})


def own_task(tmp_path, extra):
    task = tmp_path / "own.yaml"
    task.write_text('output_type: generate_until\ndoc_to_text: "{{instruction}}"\ndoc_to_target: answer\n' + extra)
    (tmp_path / "items.jsonl").write_text('{"instruction": "x", "answer": "y"}\n')
    return BenchmarkFiles("quiz", task, tmp_path / "items.jsonl")


def test_a_task_may_state_a_prompt_of_its_own(tmp_path):
    config = task_config(own_task(tmp_path, "metadata: {template: own}\nmetric_list: [{metric: exact_match}]\n"), TEMPLATE)
    assert config["task"] == "quiz" and prompts(config)[0] == ["x"]


def test_a_task_without_a_metric_is_an_error(tmp_path):
    with pytest.raises(AtlasError, match=r"own\.yaml: metric_list is missing"):
        task_config(own_task(tmp_path, "metadata: {template: own}\n"), TEMPLATE)


# ---------------------------------------------------------------- task files as users of lm-eval write them


class Scripted(LM):
    """A model that writes ``answers`` in turn, and whose greedy continuation of any prompt is ``likely``."""

    def __init__(self, answers=(), likely=()):
        super().__init__()
        self.answers, self.likely, self.asked = iter(answers), set(likely), []

    def generate_until(self, requests, disable_tqdm=False):
        self.asked += [request.args[0] for request in requests]
        return [next(self.answers) for _ in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        self.asked += [request.args for request in requests]
        return [
            (-1.0, True) if "".join(request.args) in self.likely or request.args[1] in self.likely else (-9.0, False)
            for request in requests
        ]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


@pytest.fixture
def benchmark(tmp_path):
    """A function that writes a task file and items, with the functions of its module, and returns the benchmark."""

    def write(task, items, functions=""):
        (tmp_path / "task.yaml").write_text(task)
        (tmp_path / "utils.py").write_text(functions)
        (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        return BenchmarkFiles("quiz", tmp_path / "task.yaml", tmp_path / "quiz.jsonl")

    return write


def scored(model, benchmark, template=TEMPLATE):
    """The benchmark's row of scores and its samples; scoring the stored answers again must give the same score."""
    scores, samples = lm_eval_runner.run(model, [task_config(benchmark, template)], 0, allow_code=False, scored_by={"backend": "hf"})
    again, _, changes = rescore_samples.rescore(samples, scores, [benchmark], 0, allow_code=False)
    assert again["score"].item() == scores["score"].item() and changes["items_changed"].item() == 0
    return scores.row(0, named=True), samples


MEAN = "aggregation: mean, higher_is_better: true"
LAMBADA = """output_type: loglikelihood
doc_to_text: "###Question: {{instruction}}\\n###Answer:"
doc_to_target: %s
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.mark.parametrize("target", ["answer", '" {{answer}}"', "\"{{' ' + answer}}\""])
def test_the_answer_of_a_likelihood_task_follows_the_delimiter_once(benchmark, target):
    items = [{"instruction": f"The cat sat on the {i}", "answer": f"mat{i}"} for i in range(20)]
    row, samples = scored(Scripted(likely=[f" mat{i}" for i in range(20)]), benchmark(LAMBADA % target, items))
    assert (row["score"], row["n"]) == (1.0, 20)
    assert samples["prompt"][0] == "###Question: The cat sat on the 0\n###Answer:" and samples["extracted"][0] == "mat0"


def test_a_task_with_a_prompt_of_its_own_has_the_delimiter_that_it_states_and_no_other(benchmark):
    items = [{"instruction": "The cat sat on the", "answer": "mat"}]
    own = f"output_type: loglikelihood\ndoc_to_text: instruction\nmetadata: {{template: own}}\nmetric_list: [{{metric: acc, {MEAN}}}]\n"
    for lines, target in (
        ('doc_to_target: " {{answer}}"\n', " mat"),
        ('doc_to_target: answer\ntarget_delimiter: " "\n', " mat"),
        ("doc_to_target: answer\n", "mat"),
    ):
        model = Scripted(likely=[target])
        assert scored(model, benchmark(own + lines, items))[0]["score"] == 1.0 and model.asked == [("The cat sat on the", target)]


GENERATED = f"""doc_to_text: "###Question: {{{{instruction}}}}\\n###Answer:"
doc_to_target: answer
generation_kwargs: {{until: ["\\n"], max_new_tokens: 7}}
metric_list: [{{metric: exact_match, {MEAN}}}]
"""


def test_white_space_around_an_answer_is_no_part_of_it_and_an_empty_answer_is_not_parsed(benchmark):
    items = [{"instruction": f"{i}?", "answer": "42"} for i in range(5)]
    row, samples = scored(Scripted([" 42", "42", "42 \n", " ", "4 2"]), benchmark(GENERATED, items))
    assert samples["score"].to_list() == [1.0, 1.0, 1.0, 0.0, 0.0] and row["score"] == 0.6
    assert samples["parsed"].to_list() == [1.0, 1.0, 1.0, 0.0, 1.0] and row["n_parsed"] == 4
    assert samples["extracted"].to_list() == ["42", "42", "42", "", "4 2"] and samples["output"][0] == " 42"


def test_one_of_several_right_answers_counts_and_numbers_are_texts(benchmark):
    items = [{"instruction": "a?", "answer": "x", "aliases": ["x", " y "]}, {"instruction": "b?", "answer": "z", "aliases": ["z"]}]
    assert (
        scored(Scripted([" y", " x"]), benchmark(GENERATED.replace("doc_to_target: answer", "doc_to_target: aliases"), items))[0]["score"]
        == 0.5
    )
    assert scored(Scripted([" 7"]), benchmark(GENERATED, [{"instruction": "a?", "answer": 7}]))[0]["score"] == 1.0


def test_the_shortest_limit_of_the_answer_counts_under_each_of_its_names(benchmark):
    written = benchmark(GENERATED, [{"instruction": "a?", "answer": "x"}])
    for given, expected in ((None, 7), (4, 4), (100, 7)):
        assert task_config(written, TEMPLATE, max_new_tokens=given)["generation_kwargs"] == {"until": ["\n"], "max_gen_toks": expected}
    longer = dataclasses.replace(written, max_new_tokens=20)  # stated in the study for this benchmark
    for given, expected in ((None, 20), (4, 4)):
        assert task_config(longer, TEMPLATE, max_new_tokens=given)["generation_kwargs"]["max_gen_toks"] == expected


ARC = f"""output_type: multiple_choice
doc_to_text: "###Question: {{{{question}}}}\\n###Answer:"
doc_to_choice: "{{{{choices.text}}}}"
doc_to_target: "{{{{choices.label.index(answerKey)}}}}"
training_split: train
validation_split: dev
test_split: held_out
fewshot_split: train
should_decontaminate: true
doc_to_decontamination_query: "{{{{question}}}}"
num_fewshot: 5
metric_list: [{{metric: acc, {MEAN}}}, {{metric: acc_norm, {MEAN}}}]
"""
ARC_ITEMS = [
    {"question": "Sky?", "choices": {"text": ["blue", 'it\'s "red"'], "label": ["A", "B"]}, "answerKey": "A"},
    {"question": "Fire?", "choices": {"text": ["blue", 'it\'s "red"', "hot"], "label": ["1", "2", "3"]}, "answerKey": "3"},
]


@pytest.mark.parametrize("extra", ["", "metadata: {template: own}\n"])
def test_the_idioms_of_lm_evals_own_task_files_work(benchmark, extra):
    row, samples = scored(Scripted(likely=[" blue"]), benchmark(ARC + extra, ARC_ITEMS))
    assert (row["score"], row["n"]) == (0.5, 2) and samples["extracted"].to_list() == ["blue", "blue"]
    assert json.loads(samples["output"][1]) == {" blue": -1.0, ' it\'s "red"': -9.0, " hot": -9.0}


@pytest.mark.parametrize(("metric", "chosen"), [("acc", "x"), ("acc_norm", "many words, all alike"), ("acc_bytes", "答えはこれ")])
def test_the_sample_shows_the_option_that_the_metric_chose(benchmark, metric, chosen):
    """Log-likelihoods -5, -20 and -9 of 1, 21 and 5 characters, of 1, 21 and 15 bytes."""
    options = {" x": -5.0, " many words, all alike": -20.0, " 答えはこれ": -8.0}
    task = f"""output_type: multiple_choice
doc_to_text: "###Question: {{{{instruction}}}}\\n###Answer:"
doc_to_choice: choices
doc_to_target: label
metric_list: [{{metric: {metric}, {MEAN}}}]
"""
    items = [{"instruction": "?", "choices": [text.strip() for text in options], "label": label} for label in range(3)]
    model = Scripted()
    model.loglikelihood = lambda requests, disable_tqdm=False: [(options[request.args[1]], False) for request in requests]
    _, samples = scored(model, benchmark(task, items))
    assert samples["extracted"].to_list() == [chosen] * 3
    assert [row["extracted"] for row in samples.filter(score=1).to_dicts()] == [
        items[row["item"]]["choices"][row["item"]] for row in samples.filter(score=1).to_dicts()
    ]


def test_options_may_be_contexts_of_one_answer(benchmark):
    task = f"""output_type: multiple_choice
doc_to_text: label
doc_to_choice: "{{{{[instruction.replace('_', a), instruction.replace('_', b)]}}}}"
doc_to_target: rest
metadata: {{template: own}}
metric_list: [{{metric: acc, {MEAN}}}]
"""
    items = [{"instruction": "The _ is", "a": "sun", "b": "moon", "rest": "hot", "label": label} for label in (0, 1)]
    row, samples = scored(Scripted(likely=["The sun is hot"]), benchmark(task, items))
    assert row["score"] == 0.5 and json.loads(samples["output"][0]) == {"The sun is": -1.0, "The moon is": -9.0}
    assert samples["extracted"][0] == "The sun is"


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        (2, r"doc_to_target: gives 2, which is no option: the item has 2 options, \['x', 'y'\]; .*label_base"),
        (-1, "gives -1, which is no option"),
        ("1", "gives '1', which is no option"),
        ("z", "gives 'z', which is no option"),
        (None, "gives None, which is no option"),
    ],
)
def test_a_right_option_that_is_none_is_an_error_and_not_a_wrong_answer(benchmark, label, problem):
    task = f"output_type: multiple_choice\ndoc_to_text: instruction\ndoc_to_choice: choices\ndoc_to_target: label\nmetadata: {{template: own}}\nmetric_list: [{{metric: acc, {MEAN}}}]\n"
    with pytest.raises(AtlasError, match=r"task\.yaml: .*" + problem):
        task_config(benchmark(task, [{"instruction": "q", "choices": ["x", "y"], "label": label}]), TEMPLATE)


DOCS = """
def upper(dataset):
    return dataset.map(lambda doc: {"instruction": doc["instruction"].upper()})

def longer(dataset):
    return dataset.filter(lambda doc: len(doc["instruction"]) > 1)

def new(dataset):
    return [{"instruction": doc["instruction"] + "!", "answer": doc["answer"]} for doc in dataset]

def fewer(dataset):
    return [{"instruction": doc["instruction"], "answer": doc["answer"]} for doc in dataset if len(doc["instruction"]) > 1]

def broken(dataset):
    return [{"instruction": doc["goal"]} for doc in dataset]
"""


def test_items_are_what_process_docs_makes_of_them_and_keep_their_rows(benchmark):
    items = [{"instruction": text, "answer": text} for text in ("a", "bb", "c", "dd")]
    for function, asked, rows in (
        ("upper", ["A", "BB", "C", "DD"], [0, 1, 2, 3]),
        ("longer", ["bb", "dd"], [1, 3]),
        ("new", ["a!", "bb!", "c!", "dd!"], [0, 1, 2, 3]),
    ):
        model = Scripted([" bb"] * 4)
        samples = scored(model, benchmark(GENERATED + f"process_docs: !function utils.{function}\n", items, DOCS))[1]
        assert model.asked == [f"###Question: {text}\n###Answer:" for text in asked]
        assert samples["item"].to_list() == rows and samples["score"].to_list() == [float(row == 1) for row in rows]


@pytest.mark.parametrize(
    ("function", "problem"),
    [("fewer", "leaves out or reorders items"), ("broken", r"process_docs fails: KeyError: 'goal'; the items have instruction, answer")],
)
def test_process_docs_that_fails_or_loses_the_rows_is_an_error(benchmark, function, problem):
    items = [{"instruction": text, "answer": text} for text in ("a", "bb", "c", "dd")]
    with pytest.raises(AtlasError, match=rf"task\.yaml: .*{problem}"):
        task_config(benchmark(GENERATED + f"process_docs: !function utils.{function}\n", items, DOCS), TEMPLATE)


def test_a_metric_that_gives_no_number_is_an_error_with_those_that_do(benchmark):
    task = GENERATED + "process_results: !function utils.results\n"
    written = benchmark(task, [{"instruction": "a", "answer": "b"}], 'def results(doc, results):\n    return {"other": 1.0}\n')
    with pytest.raises(AtlasError, match=r"quiz: the task gives item 0 no number 'exact_match', its first metric; .*\(other\)"):
        lm_eval_runner.run(Scripted(["x"]), [task_config(written, TEMPLATE)], 0, allow_code=False, scored_by={"backend": "hf"})


def test_a_metric_may_be_a_function(benchmark):
    task = GENERATED.replace("metric: exact_match", "metric: !function utils.half")
    written = benchmark(task, [{"instruction": "a", "answer": "b"}], "def half(references, predictions):\n    return 0.5\n")
    row, _ = scored(Scripted([" b"]), written)
    assert (row["metric"], row["score"]) == ("half", 0.5)


def test_a_module_that_cannot_be_imported_is_an_error_with_its_reason(benchmark):
    written = benchmark(
        GENERATED + "process_docs: !function utils.f\n", [], "raise OSError('no network')\ndef f(dataset): return dataset\n"
    )
    with pytest.raises(AtlasError, match=r"task\.yaml: a module of its functions cannot be imported: OSError: no network"):
        task_config(written, TEMPLATE)


# ---------------------------------------------------------------- suites that may not run


def smoke(**changes):
    return strict_yaml(ROOT / "config/benchmarks-smoke.yaml") | changes


def complaints(config):
    return "\n".join(checks.suites(StudyFile.model_validate(config)))


def test_the_smoke_study_has_nothing_to_complain_about():
    assert complaints(smoke()) == ""
    assert len(study.from_config(smoke(), "smoke").file.benchmarks) == 21


def test_the_papers_study_has_nothing_to_complain_about():
    assert complaints(strict_yaml(ROOT / "config/paper.yaml")) == ""


def test_code_needs_permission_before_any_job_runs():
    result = complaints(smoke(allow_code_execution=False))
    assert "allow_code_execution: humaneval runs code written by models; set it to true" in result


def test_a_scoring_function_under_its_former_name_is_an_error_with_the_new_one(tmp_path):
    task = tmp_path / "own.yaml"
    task.write_text("include: base.yaml\noutput_type: generate_until\n")
    (tmp_path / "base.yaml").write_text("process_results: !function sft_atlas.scoring.choice.letter\n")
    config = smoke()
    config["benchmarks"]["mmlu"]["task"] = str(task)
    assert (
        f"{tmp_path}/base.yaml: sft_atlas.scoring.choice.letter was renamed; write `!function sft_atlas.evaluate.metrics.choice.letter`"
        in complaints(config)
    )


def test_a_judged_benchmark_needs_a_judge_and_no_other_may_have_one():
    config = smoke()
    config["suites"] = {"a": {"benchmarks": ["mt-bench"]}, "b": {"benchmarks": ["mmlu"], "judge": {"model": "smollm2-135m"}}}
    assert "suites.a: 'mt-bench' is judged; give the suite a `judge`" in complaints(config)
    assert "suites.b.benchmarks: 'mmlu' needs no judge" in complaints(config)
    config["suites"] = {"a": {"benchmarks": ["mt-bench"], "judge": {"model": "gpt-5"}}}
    assert "suites.a.judge.model: without `url` it must be one of the models" in complaints(config)


def test_a_key_in_the_study_file_is_refused():
    config = smoke()
    config["suites"]["judged"]["judge"] = {"model": "m", "url": "https://x/v1", "key": "sk-123"}
    with pytest.raises(ConfigError, match=r"suites\.judged\.judge\.key: unknown key"):
        study.from_config(config, "x")
