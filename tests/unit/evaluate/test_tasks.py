"""Prompts with examples, dropped where they do not fit; tasks that are refused; and suites that may not run."""

import json

import pytest

from sft_atlas.core.errors import AtlasError, ConfigError
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate.tasks import DELIMITER, PROMPT, SHOTS, BenchmarkFiles, LengthLimit, task_config
from sft_atlas.models.base_model import ModelFolder, load_tokenizer
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
    with pytest.raises(
        AtlasError, match=rf"quiz: 1 prompts with their answers are longer than {bare + room - 1} tokens, the first is item 1"
    ):
        task_config(files, TEMPLATE, LengthLimit(tokenizer, bare + room - 1, 256))


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
    assert config["doc_to_text"].startswith("###Question: ") and config["doc_to_text"].endswith("\n###Answer:")
    assert config["target_delimiter"] == " " and config["metric_list"][0]["metric"]
    assert config["output_type"] == ("multiple_choice" if "likelihood" in path.name or path.name == "choice.yaml" else "generate_until")


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
    assert (config["task"], config["doc_to_text"]) == ("quiz", "{{instruction}}")


def test_a_task_without_a_metric_is_an_error(tmp_path):
    with pytest.raises(AtlasError, match=r"own\.yaml: metric_list is missing"):
        task_config(own_task(tmp_path, "metadata: {template: own}\n"), TEMPLATE)


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
