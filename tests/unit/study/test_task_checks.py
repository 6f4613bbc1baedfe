"""Faults of lm-eval task files, each found without lm-eval, data or a job, and each with file, key and remedy; and lm-eval's whole registry."""

import os
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from sft_atlas.study import task_checks
from sft_atlas.study.lm_eval_names import package_folder
from sft_atlas.study.schema import Template
from sft_atlas.study.task_checks import problems

TEMPLATE = Template().model_dump()
REGISTRY = package_folder("lm_eval") / "tasks"
EVERY_TASK = "SFT_ATLAS_EVERY_TASK"  # set it to 1 to check all of lm-eval's files
SAMPLE = 500  # files otherwise
GENERATE = """doc_to_text: "###Question: {{instruction}}\\n###Answer:"
doc_to_target: answer
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
CHOICE = """output_type: multiple_choice
doc_to_text: "###Question: {{instruction}}\\n###Answer:"
doc_to_choice: choices
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
LIKELIHOOD = GENERATE.replace("exact_match", "acc") + "output_type: loglikelihood\n"


@pytest.fixture
def found(tmp_path):
    """A function from the text of a task file to the problems found, without the path of the file."""

    def check(text, **files):
        for name, content in {"task.yaml": text, **{f"{name}.py": content for name, content in files.items()}}.items():
            (tmp_path / name).write_text(content)
        return [line.removeprefix(f"{tmp_path}/") for line in problems(str(tmp_path / "task.yaml"), TEMPLATE)]

    return check


@pytest.mark.parametrize("text", [GENERATE, CHOICE, LIKELIHOOD], ids=["generate", "choice", "likelihood"])
def test_a_plain_task_file_has_no_problem(found, text):
    assert found(text) == []


METRIC = "metric_list: [{metric: %s, aggregation: mean, higher_is_better: true}]\n"
FAULTS = {
    "unknown field": (GENERATE + "doc_to_txt: x\n", "task.yaml: doc_to_txt: not a field of lm-eval's tasks; did you mean 'doc_to_text'?; correct or remove it"),
    "unknown field of fewshot_config": (GENERATE + "fewshot_config: {spit: train}\n", "fewshot_config.spit: not a field of lm-eval's tasks; did you mean 'split'?"),
    "list for text": (GENERATE + "target_delimiter: [' ']\n", "target_delimiter: must be text, not [' ']"),
    "text for function": (GENERATE + "process_docs: utils.f\n", "process_docs: must be a function, as `!function module.name`, not 'utils.f'"),
    "output type": (GENERATE + "output_type: multiple_chioce\n", "output_type: 'multiple_chioce' is not one of generate_until, multiple_choice, loglikelihood; did you mean 'multiple_choice'?"),
    "rolling": (GENERATE + "output_type: loglikelihood_rolling\n", "output_type: loglikelihood_rolling measures perplexity of texts, not answers"),
    "no options": (CHOICE.replace("doc_to_choice: choices\n", ""), "doc_to_choice: missing; a task of output_type multiple_choice needs it"),
    "no target": (GENERATE.replace("doc_to_target: answer\n", ""), "doc_to_target: missing"),
    "no metric": (GENERATE.replace("metric_list", "# metric_list"), "metric_list is missing; its first metric is the benchmark's score"),
    "metric": (GENERATE + METRIC % "exact_mach", "metric_list[0].metric: lm-eval has no metric 'exact_mach'; did you mean 'exact_match'?"),
    "metric of another kind": (CHOICE + METRIC % "perplexity", "metric_list[0].metric: 'perplexity' is no score per item of a multiple_choice task; put one of acc, acc_norm, acc_bytes, exact_match first"),
    "corpus metric": (GENERATE + "metric_list: [{metric: bleu, aggregation: bleu}]\n", "metric_list[0].metric: 'bleu' is no score per item"),
    "second metric": (GENERATE + "metric_list: [{metric: exact_match}, {metric: rougeL}]\n", "metric_list[1].metric: lm-eval has no metric 'rougeL' and would look for code"),
    "metric from the hub": (GENERATE + "metric_list: [{metric: f1, hf_evaluate: true}]\n", "metric_list[0].metric: f1 would be loaded with hf_evaluate from the hub, as code"),
    "aggregation": (GENERATE + "metric_list: [{metric: exact_match, aggregation: meen}]\n", "metric_list[0].aggregation: lm-eval has no aggregation 'meen'; did you mean 'mean'?"),
    "another aggregation": (GENERATE + "metric_list: [{metric: exact_match, aggregation: median}]\n", "metric_list[0].aggregation: median is not the mean of the items' scores"),
    "perplexity first": (LIKELIHOOD + "metric_list: [{metric: perplexity, aggregation: perplexity}, {metric: acc, aggregation: mean}]\n", "'perplexity' is no score per item of a loglikelihood task; put one of acc first"),
    "filter": (GENERATE + "filter_list: [{name: a, filter: [{function: regexp}]}]\n", "filter_list[0].filter[0].function: lm-eval has no filter 'regexp'; did you mean 'regex'?"),
    "filter's setting": (GENERATE + "filter_list: [{name: a, filter: [{function: regex, pattern: x}, {function: take_first}]}]\n", "filter_list[0].filter[0].pattern: the filter regex has no such setting; did you mean 'regex_pattern'?"),
    "filter's pattern": (GENERATE + "filter_list: [{name: a, filter: [{function: regex, regex_pattern: '('}, {function: take_first}]}]\n", "filter_list[0].filter[0].regex_pattern: '(' is not a regular expression"),
    "filter without end": (GENERATE + "filter_list: [{name: a, filter: [{function: regex}]}]\n", "filter_list[0]: ends with regex, so that a list would be compared with a text and never be equal; add {function: take_first}"),
    "filter without steps": (GENERATE + "filter_list: [{name: a}]\n", "filter_list[0]: must be `name` and `filter`, a list of steps"),
    "generation": (GENERATE + "generation_kwargs: {temprature: 0}\n", "generation_kwargs.temprature: not a setting of generation; did you mean 'temperature'?"),
    "length": (GENERATE + "generation_kwargs: {max_gen_toks: '16'}\n", "generation_kwargs.max_gen_toks: must be a number of tokens, not '16'"),
    "stop": (GENERATE + "generation_kwargs: {until: ['']}\n", "generation_kwargs.until: must be texts that end an answer, none empty"),
    "template language": (GENERATE.replace("doc_to_target: answer", 'doc_to_target: "{{answer"'), "doc_to_target: '{{answer' is not a template"),
    "template filter": (GENERATE.replace("doc_to_target: answer", 'doc_to_target: "{{answer | stripp}}"'), "No filter named 'stripp'"),
    "own template": (GENERATE + "metadata: {template: mine}\n", "metadata.template: must be 'own' or left out, not 'mine'"),
    "delimiter": (LIKELIHOOD + 'target_delimiter: ""\n', "make them agree, or state `metadata: {template: own}` in the task file"),
    "description": (GENERATE + "description: Answer the following.\n", "description: lm-eval would add it to the prompt, which is then not the study's template"),
    "beginning of the answer": (GENERATE + 'gen_prefix: "The answer is"\n', "gen_prefix: lm-eval would add it to the prompt"),
    "promptsource": (GENERATE + "use_prompt: 'promptsource:x'\n", "use_prompt: prompts of promptsource are not supported; write the prompt into doc_to_text"),
    "image": (GENERATE + "doc_to_image: image\n", "doc_to_image: images are not supported"),
    "repeats": (GENERATE + "repeats: 8\n", "repeats: 8 answers per item are not supported; remove it, or set it to 1"),
    "group": ("group: g\ntask: [a, b]\n", "task: the file is a group of tasks (a, b...); name the file of one of them"),
    "class": (GENERATE + "class: !function task.Squad\n", "class: the task is a Python class"),
    "no module": (GENERATE + "process_docs: !function nowhere.f\n", "process_docs: `!function nowhere.f`: there is no nowhere.py in"),
    "no function": (GENERATE + "process_docs: !function utils.proces\n", "utils.py has no function 'proces'; did you mean 'process'?"),
    "package": (GENERATE + "process_docs: !function needs.f\n", "functions of the task import langdetekt, not installed here; "),
    "include": ("include: base.yaml\n", "base.yaml: there is no such file; correct the `include` that names it"),
    "include of itself": ("include: task.yaml\n", "includes itself"),
    "no YAML": ("a: [\n", "task.yaml is not an lm-eval task file: while parsing"),
    "empty": ("", "task.yaml is not an lm-eval task file: it holds NoneType, not keys and values"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_before_any_job(found, fault):
    text, expected = FAULTS[fault]
    listed = found(
        text,
        utils="def process(docs): return docs\n",
        needs="import langdetekt\ntry:\n    import optional_extra\nexcept ImportError:\n    optional_extra = None\ndef f(docs): return docs\n",
    )
    assert len(listed) == 1 and expected in listed[0] and "\n" not in listed[0], listed


def test_functions_may_be_made_in_any_way_that_python_knows(found):
    module = "from functools import partial\nif True:\n    a = b = partial(len)\nfor name in 'cd':\n    globals()[name] = len\n"
    assert found(GENERATE + "process_docs: !function utils.b\n", utils=module) == []
    assert found(GENERATE + "process_docs: !function utils2.c\n", utils2=module) == []


def test_a_package_that_lm_eval_names_is_named_with_its_version(monkeypatch):
    monkeypatch.setattr(task_checks, "missing_packages", lambda file: ["langdetect", "immutabledict"])
    (line,) = problems(str(REGISTRY / "ifeval/ifeval.yaml"))
    assert "functions of the task import" in line and "pip install langdetect immutabledict" in line.replace("'", "").replace(">=3.9.1", "")


def test_lm_evals_own_files_are_extended_and_not_changed():
    stock = REGISTRY / "arc/arc_easy.yaml"
    assert problems(str(stock)) == []
    (line,) = problems(str(stock), TEMPLATE)
    assert line.endswith(f"state `metadata: {{template: own}}` in a task file of your own with `include: {stock.resolve()}`")
    (line,) = problems(str(REGISTRY / "lambada/lambada_openai.yaml"))
    assert line.endswith(
        f"put one of acc first (in a task file of your own with `include: {(REGISTRY / 'lambada/lambada_openai.yaml').resolve()}`)"
    )


def test_the_study_runs_in_another_environment_than_its_jobs(tmp_path):
    (tmp_path / "task.yaml").write_text(GENERATE + "process_docs: !function needs.f\n")
    (tmp_path / "needs.py").write_text("import langdetekt\ndef f(docs): return docs\n")
    assert problems(str(tmp_path / "task.yaml"), TEMPLATE, packages=False) == []


def registry() -> list[Path]:
    """The task files of lm-eval: a sample, or all of them."""
    files = sorted(REGISTRY.rglob("*.yaml"))
    return files if os.environ.get(EVERY_TASK) else random.Random(0).sample(files, SAMPLE)


def test_every_task_of_lm_evals_registry_is_accepted_or_refused_in_one_line(capsys):
    refused, accepted = Counter(), 0
    for path in registry():
        listed = problems(str(path))  # a traceback fails the test
        accepted += not listed
        for line in listed:
            assert "\n" not in line and str(path.parent.parent) in line, line
            assert re.search(r"; |use |write |would |missing|name |was |not supported|there is no", line), line
        if listed:
            reason = listed[0].removeprefix(f"{path}: ")
            refused[re.sub(r"\[\d+\]|'[^']*'|\(.*|/\S+", "", reason).strip()[:60]] += 1
    with capsys.disabled():
        total = accepted + sum(refused.values())
        print(f"\nlm-eval's registry: {accepted} of {total} files accepted; refused:", *refused.most_common(12), sep="\n  ")
    assert accepted > 0.6 * total
