"""Benchmarks of lm-eval's registry: asked and scored as lm-eval itself does, one task or a group."""

import hashlib
import json

import polars as pl
import pytest
import yaml
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from sft_atlas.core.errors import AtlasError
from sft_atlas.data import fetch_benchmark, fetch_shots
from sft_atlas.evaluate import prepare_suite, write_lm_eval_results
from sft_atlas.evaluate.lm_eval_runner import run
from sft_atlas.evaluate.rescore_samples import rescore
from sft_atlas.evaluate.tasks import SuiteFile, metric_text, task_configs
from sft_atlas.study.schema import Benchmark, Template

TEMPLATE = Template().model_dump()
RED = [{"question": f"Which colour has {n}?", "options": ["red", "green", "blue"], "gold": n % 3} for n in range(7)]
SUMS = [{"input": f"{n} + 1", "target": str(n + 1)} for n in range(3)]
CHOICE = {
    "output_type": "multiple_choice", "dataset_path": "json", "test_split": "test", "description": "About {{question[:5]}}.\n\n",
    "doc_to_text": "Q: {{question}}\nA:", "doc_to_choice": "options", "doc_to_target": "gold", "metric_list": [{"metric": "acc_norm"}, {"metric": "acc"}],
}  # fmt: skip
GENERATE = {
    "output_type": "generate_until", "dataset_path": "json", "test_split": "test", "doc_to_text": "Q: {{input}}\nA:", "doc_to_target": "{{target}}",
    "target_delimiter": "", "num_fewshot": 2, "fewshot_config": {"sampler": "first_n", "samples": [{"input": "7 + 1", "target": " 8"}, {"input": "8 + 1", "target": " 9"}]},
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 3},
    "filter_list": [{"name": "all", "filter": [{"function": "take_first"}]}, {"name": "digit", "filter": [{"function": "regex", "regex_pattern": "(\\d)"}, {"function": "take_first"}]}],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip


POOL = [{"input": f"{n} + 2", "target": str(n + 2), "kind": "odd" if n % 2 else "even"} for n in range(11)]
DRAWN = {key: value for key, value in GENERATE.items() if key != "fewshot_config"} | {
    "num_fewshot": 3,
    "fewshot_split": "train",
    "description": "Add.\n\n",
}
# By the sampler and the data of its own examples, which `process_docs` of the task changes as it changes the items.
FIRST = DRAWN | {"fewshot_split": "dev", "fewshot_config": {"sampler": "first_n", "doc_to_text": "E: {{input}}\nA:"}, "num_fewshot": 2}


class Hashed(LM):
    """Answers that depend on the whole prompt, so that any difference of prompts shows."""

    max_length, max_gen_toks = 100_000, 256

    def loglikelihood(self, requests, disable_tqdm=False):
        return [(-int(hashlib.sha256("".join(request.args[:2]).encode()).hexdigest()[:4], 16) / 100, False) for request in requests]

    def generate_until(self, requests, disable_tqdm=False):
        return [f" I say {int(hashlib.sha256(request.args[0].encode()).hexdigest(), 16) % 4}" for request in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


class Letters:
    """A tokenizer with a token for each letter."""

    def __call__(self, texts, **_):
        return {"input_ids": [[1] * len(text) for text in ([texts] if isinstance(texts, str) else texts)]}


@pytest.fixture
def registry(tmp_path):
    """A folder with a group of two tasks of different size, one of them in a sub-group, and a task with examples."""
    folder = tmp_path / "registry"
    folder.mkdir()
    files = {}
    kinds = {
        "reds": CHOICE,
        "few_reds": CHOICE,
        "sums": GENERATE,
        "drawn": DRAWN,
        "first": FIRST,
        "unsaid": DRAWN | {"num_fewshot": None},
        "itself": DRAWN | {"fewshot_split": "test"},
    }
    items = {"reds": RED, "few_reds": RED[1:3], "sums": SUMS, "pool": POOL}
    for name, rows in (items | {name: [row | {"kind": "item"} for row in SUMS] for name in ("drawn", "first", "unsaid", "itself")}).items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if name in kinds:
            places = {"test": str(tmp_path / f"{name}.jsonl")}
            places |= {} if name in items else dict.fromkeys(("train", "dev"), str(tmp_path / "pool.jsonl"))
            own = {"task": name, "dataset_kwargs": {"data_files": places}}
            files[name] = {key: value for key, value in kinds[name].items() if value is not None} | own
    (folder / "docs.py").write_text("def odd(data):\n    return data.filter(lambda row: row['kind'] != 'even')\n")
    files["_adding"] = {"group": "adding", "task": ["drawn", "twin"], "aggregate_metric_list": [{"metric": "exact_match"}]}
    files["_mixed"] = {"group": "mixed", "task": ["drawn", "first"], "aggregate_metric_list": [{"metric": "exact_match"}]}
    files["twin"] = files["drawn"] | {"task": "twin"}
    mean = [{"metric": "acc", "weight_by_size": True}]
    files["_few"] = {"group": "few", "task": ["few_reds"], "aggregate_metric_list": mean}
    files["_colours"] = {"group": "colours", "task": ["reds", "few"], "aggregate_metric_list": mean}
    files["_digits"] = {"group": "digits", "task": ["sums"], "aggregate_metric_list": [{"metric": "exact_match", "filter_list": "digit"}]}
    files["_equal"] = {"group": "equal", "task": ["reds", "few"], "aggregate_metric_list": [{"metric": "acc", "weight_by_size": False}]}
    for name, keys in files.items():
        text = yaml.safe_dump(keys)
        (folder / f"{name}.yaml").write_text(text + "process_docs: !function docs.odd\n" if name == "first" else text)
    return folder


@pytest.fixture
def suite(registry, tmp_path, run_script):
    """A function from names of the registry to the benchmarks of a suite, fetched and prepared as the workflow does."""

    def prepared(*names, **keys):
        options, shots = [], []
        for name in names:
            entry = Benchmark(lm_eval=name, include_path=str(registry), **keys)
            items = tmp_path / "benchmarks" / name / "test.jsonl"
            text = entry.model_dump_json(exclude_defaults=True)
            run_script(fetch_benchmark, name=name, entry=text, output=items)
            options.append((name, entry.task, items, json.dumps(entry.registered.__dict__)))
            if entry.shots:
                shots.append((name, items.with_name("shots.jsonl"), "-"))
                run_script(
                    fetch_shots,
                    name=name,
                    entry=text,
                    items=items,
                    output=shots[-1][1],
                    **({"path": entry.shots.path} if entry.shots.path else {}),
                )
        benchmarks = [(name, task, items) for name, task, items, _ in options]
        registered = [(name, text) for name, _, _, text in options]
        run_script(prepare_suite, name="s", benchmark=benchmarks, lm_eval=registered, shots=shots, output=tmp_path / "suite.json")
        return SuiteFile.read(tmp_path / "suite.json").benchmarks

    return prepared


def test_a_group_has_a_row_of_each_task_and_one_of_its_mean(suite, by_lm_eval):
    scores, samples = scored(suite("colours"))
    theirs = by_lm_eval("colours")
    assert scores.select("benchmark", "subtask", "n", "scale").rows() == [
        ("colours", None, 9, 1.0), ("colours", "reds", 7, 1.0), ("colours", "few_reds", 2, 1.0),
    ]  # fmt: skip
    for row in scores.filter(pl.col("subtask").is_not_null()).iter_rows(named=True):
        own = theirs["results"][row["subtask"]]
        assert (row["score"], row["stderr"]) == pytest.approx((own["acc,none"], own["acc_stderr,none"]))
        assert row["metric"] == "acc (lm_eval: colours)" and row["backend"] == "hf"
    assert samples["subtask"].to_list() == ["reds"] * 7 + ["few_reds"] * 2
    single, of_single = scored(suite("reds"))
    assert single["subtask"].to_list() == [None] and of_single["subtask"].null_count() == 7  # a task is no group


def scored(benchmarks):
    return run(Hashed(), [config for file in benchmarks for config in task_configs(file, TEMPLATE)], 0, False, {"backend": "hf"})


@pytest.fixture
def by_lm_eval(registry):
    return lambda name, **more: simple_evaluate(
        Hashed(), tasks=[name], task_manager=TaskManager(include_path=str(registry), include_defaults=False), **more
    )


def test_a_group_has_lm_evals_prompts_answers_and_mean(suite, by_lm_eval):
    scores, samples = scored(suite("colours"))
    theirs = by_lm_eval("colours")
    assert scores.select("benchmark", "metric", "n").row(0) == ("colours", "acc (lm_eval: colours)", 9)
    assert scores["score"][0] == pytest.approx(theirs["groups"]["colours"]["acc,none"])
    asked = [
        row["arguments"][0][0] for name in ("reds", "few_reds") for row in sorted(theirs["samples"][name], key=lambda row: row["doc_id"])
    ]
    assert samples["prompt"].to_list() == asked and asked[0].startswith("About Which.\n\nQ: ")


def test_examples_and_the_groups_filter_are_lm_evals(suite, by_lm_eval):
    scores, samples = scored(suite("digits"))
    theirs = by_lm_eval("digits")
    assert scores["score"].to_list() == [pytest.approx(theirs["groups"]["digits"]["exact_match,digit"])] * 2  # the group, and its only task
    rows = [row for row in theirs["samples"]["sums"] if row["filter"] == "digit"]
    assert samples["prompt"].to_list() == [row["arguments"][0][0] for row in rows]
    assert samples["extracted"].to_list() == [row["filtered_resps"][0] for row in rows] and set(samples["shots"]) == {2}
    assert samples["prompt"][0] == "Q: 7 + 1\nA: 8\n\nQ: 8 + 1\nA: 9\n\nQ: 0 + 1\nA:"


@pytest.mark.parametrize(
    ("name", "stated", "asked", "count"),
    [
        ("drawn", {}, {}, 3),  # anew for each item, at random with lm-eval's seed
        ("drawn", {"shots": {"count": 5}}, {"num_fewshot": 5}, 5),
        ("unsaid", {"shots": {"count": 2}}, {"num_fewshot": 2}, 2),
        ("first", {}, {}, 2),
    ],
)
def test_examples_are_drawn_from_a_split_as_lm_eval_draws_them(name, stated, asked, count, suite, by_lm_eval):
    scores, samples = scored(suite(name, **stated))
    theirs = by_lm_eval(name, **asked)
    rows = [row for row in theirs["samples"][name] if row["filter"] == theirs["samples"][name][0]["filter"]]
    assert samples["prompt"].to_list() == [row["arguments"][0][0] for row in sorted(rows, key=lambda row: row["doc_id"])]
    assert set(samples["shots"]) == {count} == set(scores["shots"]) and samples["prompt"][0].count("\nA:") == count + 1
    if name == "first":
        assert samples["prompt"][0].startswith("Add.\n\nE: 1 + 2\nA:3\n\nE: 3 + 2\nA:5\n\nQ: 0 + 1")
    else:
        assert len({prompt.rpartition("Q: ")[0] for prompt in samples["prompt"]}) == 3


def test_a_group_draws_for_each_task(suite, by_lm_eval):
    benchmarks = suite("adding")
    _, samples = scored(benchmarks)
    whole = by_lm_eval("adding")
    theirs, written = whole["samples"], write_lm_eval_results.evaluated(benchmarks, samples, TEMPLATE, 0)
    assert written["n-shot"] == whole["n-shot"] == {"adding": 3, "drawn": 3, "twin": 3}
    assert written["groups"] == whole["groups"]
    for task in ("drawn", "twin"):
        rows = [row for row in theirs[task] if row["filter"] == "all"]
        assert samples.filter(subtask=task)["prompt"].to_list() == [row["arguments"][0][0] for row in rows]


def test_examples_may_come_from_a_local_file(suite, tmp_path):
    """As where the split is no longer on the hub, or the task would draw from the items themselves."""
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"input": f"{n} - 1", "target": str(n - 1)}) + "\n" for n in range(4)))
    _, samples = scored(suite("itself", shots={"count": 4, "path": str(tmp_path / "own.jsonl")}))
    assert all(prompt.count(" - 1\nA:") == 4 for prompt in samples["prompt"])
    with pytest.raises(AtlasError, match=r"itself has 4 rows, and 6 examples are to be drawn; lower shots\.count"):
        scored(suite("itself", shots={"count": 6, "path": str(tmp_path / "own.jsonl")}))


def test_answers_to_drawn_examples_are_scored_again_and_written_in_lm_evals_files(suite, by_lm_eval):
    benchmarks = suite("drawn")
    scores, samples = scored(benchmarks)
    assert rescore(samples, scores, benchmarks, 0, False)[0].equals(scores)
    found, theirs = write_lm_eval_results.evaluated(benchmarks, samples, TEMPLATE, 0), by_lm_eval("drawn")
    assert found["n-shot"] == theirs["n-shot"] == {"drawn": 3} and found["results"]["drawn"] == theirs["results"]["drawn"]
    assert [row["prompt_hash"] for row in found["samples"]["drawn"]] == [row["prompt_hash"] for row in theirs["samples"]["drawn"]]


def test_a_task_of_the_installed_registry_takes_local_rows_of_its_data_set(tmp_path, run_script):
    """HellaSwag as on the hub, by lm-eval's own process_docs."""
    row = {
        "ind": 24, "activity_label": "Roof shingle removal", "ctx_a": "A man is sitting on a roof.", "ctx_b": "he", "ctx": "A man is sitting on a roof. he",
        "endings": ["is using wrap to wrap a pair of skis.", "is ripping level tiles off.", "is holding a rubik's cube.", "starts pulling up roofing on a roof."],
        "split": "val", "split_type": "indomain", "label": "3",
    }  # fmt: skip
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    entry = Benchmark(lm_eval="hellaswag", path=str(tmp_path / "rows.jsonl"))
    options = {"entry": entry.model_dump_json(exclude_defaults=True), "path": entry.path, "output": tmp_path / "hellaswag/test.jsonl"}
    run_script(fetch_benchmark, name="hellaswag", **options)
    files = {"benchmark": [("hellaswag", entry.task, options["output"])], "lm_eval": [("hellaswag", json.dumps(entry.registered.__dict__))]}
    run_script(prepare_suite, name="s", **files, output=tmp_path / "suite.json")
    (config,) = task_configs(SuiteFile.read(tmp_path / "suite.json").benchmarks[0], TEMPLATE)
    assert metric_text(config) == "acc (lm_eval: hellaswag)"
    _, samples = run(Hashed(), [config], 0, False, {})
    assert samples["prompt"].item() == "Roof shingle removal: A man is sitting on a roof. He"
    assert samples["target"].item() == "3" and " starts pulling up roofing on a roof." in json.loads(samples["output"].item())


def test_stored_answers_are_scored_again_and_written_in_lm_evals_files(suite, by_lm_eval):
    benchmarks = suite("colours", "sums")
    scores, samples = scored(benchmarks)
    again, _, changes = rescore(samples, scores, benchmarks, 0, False)
    assert again.equals(scores) and changes["items_changed"].to_list() == [0, 0]
    found, theirs = write_lm_eval_results.evaluated(benchmarks, samples, TEMPLATE, 0), by_lm_eval("colours")
    assert found["groups"]["colours"] == theirs["groups"]["colours"] and found["results"]["few_reds"] == theirs["results"]["few_reds"]
    hashes = ("doc_hash", "prompt_hash", "target_hash", "acc")
    assert [[row[key] for key in hashes] for row in found["samples"]["reds"]] == [
        [row[key] for key in hashes] for row in theirs["samples"]["reds"]
    ]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"lm_eval": "equal"}, r"'equal' is no mean over items, because lm-eval weighs its tasks equally; name its tasks one by one"),
        ({"lm_eval": "helaswag"}, r"no task or group 'helaswag'; did you mean 'hellaswag'\?"),
        ({"lm_eval": "hellaswag"}, r"state `revision`, the commit of Rowan/hellaswag that you use, or a local `path`"),
        (
            {"lm_eval": "hellaswag", "revision": "f" * 40, "task": "my.yaml"},
            r"task: lm-eval's 'hellaswag' has its own; remove task or lm_eval",
        ),
        ({"lm_eval": "gsm8k", "path": "x.jsonl"}, r"draws examples .* beside `path` give `shots: \{count: 5, path: FILE\}`"),
        ({"lm_eval": "itself"}, r"draws its examples from the split 'test' that is scored; give `shots` with a `path`"),
        (
            {"lm_eval": "mixed"},
            r"the tasks of 'mixed' draw different numbers of examples \(drawn 3, first 2\.\.\.\); name its tasks one by one",
        ),
        ({"lm_eval": "sums", "shots": {"count": 1}}, r"its examples stand in the file; remove `shots`"),
        ({"lm_eval": "drawn", "shots": {"count": 1, "by": "kind"}}, r"shots\.by: lm-eval's 'drawn' has its own; state count and path only"),
        ({"lm_eval": "drawn", "shots": {"count": 0}}, r"greater than 0"),
        ({"lm_eval": "gsm8k_cot_zeroshot", "path": "x.jsonl", "shots": {"count": 1}}, r"states `num_fewshot: 0`, which lm-eval keeps"),
        ({"lm_eval": "adding", "shots": {"count": 1, "path": "x.jsonl"}}, r"shots\.path: 'adding' is a group of 2 tasks"),
        ({"lm_eval": "mmlu", "path": "mmlu.jsonl"}, r"path: 'mmlu' is a group of 57 tasks with data of their own"),
        ({"lm_eval": "mmlu_stem_tasks", "revision": "f" * 40}, r"is a tag of 19 tasks .*, of which lm-eval has no mean"),
        ({"path": "x.jsonl"}, r"give exactly one of task, lm_eval"),
    ],
)
def test_what_cannot_be_scored_is_refused_when_the_study_is_read(entry, problem, registry):
    with pytest.raises(ValueError, match=problem):
        Benchmark(**({"include_path": str(registry)} if "lm_eval" in entry else {}), **entry)


def test_groups_of_the_installed_registry_name_their_tasks_in_lm_evals_order():
    entry = Benchmark(lm_eval="mmlu", revision="f" * 40)
    known = entry.registered
    assert (entry.hub, len(known.tasks), known.metric, known.filter) == ("cais/mmlu", 57, "acc", None)
    assert next(iter(known.tasks)) == "mmlu_abstract_algebra"  # of mmlu_stem, the first sub-group
    bbh = Benchmark(lm_eval="bbh_zeroshot", revision="f" * 40).registered
    assert (len(bbh.tasks), bbh.metric, bbh.filter) == (27, "exact_match", "flexible-extract")
    gsm8k = Benchmark(lm_eval="gsm8k", revision="f" * 40)
    assert (gsm8k.shots.count, gsm8k.registered.shots, gsm8k.shot_source().hub) == (5, 5, "openai/gsm8k")
    assert Benchmark(lm_eval="mmlu", revision="f" * 40, shots={"count": 5}).registered.shots == 5
    lambada = Benchmark(lm_eval="lambada_openai", revision="f" * 40).registered
    assert (lambada.group, lambada.metric) == (False, "acc")  # not perplexity, its first one
    ifeval = Benchmark(lm_eval="ifeval", revision="f" * 40).registered
    assert (list(ifeval.tasks), ifeval.metric) == (["ifeval"], "prompt_level_strict_acc")
