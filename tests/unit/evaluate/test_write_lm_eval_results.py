"""Scores and samples in lm-eval's files: read back by lm-eval's own tools, and equal to those of the tables."""

import json

import polars as pl
import pytest
from lm_eval.loggers import EvaluationTracker
from lm_eval.result_schema import EvalResults
from lm_eval.utils import get_file_task_name, get_results_filenames, get_sample_results_filenames, hash_string, make_table

from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import evaluate, write_lm_eval_results
from sft_atlas.evaluate.lm_eval_runner import templates_compiled_once
from sft_atlas.evaluate.tasks import BenchmarkFiles, SuiteFile
from sft_atlas.study.schema import Template

KEYS = {"model": "tiny", "dataset": "base", "recipe": "base", "epoch": 0}
FOLDER = "tiny__base__base__epoch-0"
QUIZ = [{"instruction": text, "answer": answer} for text, answer in (("2 + 2", "4"), ("3 * 3", "9"), ("long " * 300, "9"))]
CHOICES = [
    {"instruction": f"Which, {n}?", "choices": ["red", "green", "blue"][: 2 + n % 2], "label": n % 2, "answer": "x"} for n in range(4)
]


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny_base, run_script):
    """The folder of a base model's scores on two benchmarks, and the one with lm-eval's files."""
    folder, files = tmp_path_factory.mktemp("lm_eval"), []
    for name, task, items in (("quiz", "generate", QUIZ), ("colours", "choice", CHOICES)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        files.append(BenchmarkFiles(name, ROOT / f"config/benchmarks/{task}.yaml", folder / f"{name}.jsonl"))
    SuiteFile("both", files).write(folder / "suite.json")
    settings = {"template": Template().model_dump_json(), "max_length": 256, "max_new_tokens": 4, "batch_size": 4}
    outputs = {"output_scores": folder / "scores/both.parquet", "output_samples": folder / "samples/both.parquet"}
    run_script(evaluate, **KEYS, base=tiny_base, suite=folder / "suite.json", **settings, state=folder / "state", **outputs)
    files = {"suites": folder / "suite.json", "scores": outputs["output_scores"], "samples": outputs["output_samples"]}
    run_script(write_lm_eval_results, **KEYS, base=tiny_base, **files, output=folder / FOLDER)
    return folder, folder / FOLDER


@pytest.fixture(scope="module")
def results(written):
    names = [str(path) for path in written[1].iterdir()]
    (file,) = get_results_filenames(names)
    assert len(get_sample_results_filenames(names)) == 2 == len(names) - 1
    with open(file, encoding="utf-8") as stream:
        return json.load(stream)


def test_the_results_have_the_keys_of_lm_evals_schema(results):
    grouped, by_simple_evaluate_only = {"groups"}, {"samples"}
    assert EvalResults.__annotations__.keys() - results.keys() == grouped | by_simple_evaluate_only
    assert results.keys() <= EvalResults.__annotations__.keys()
    assert results["model_name_sanitized"] == FOLDER and results["model_source"] == "hf"


def test_the_scores_are_those_of_the_table(results, written):
    scores = pl.read_parquet(written[0] / "scores/both.parquet")
    for row in scores.iter_rows(named=True):
        found = results["results"][row["benchmark"]]
        ((key, value),) = [(key, value) for key, value in found.items() if key.startswith(f"{row['metric']},")]
        assert value == pytest.approx(row["score"]) and found["sample_len"] == row["n"]
        assert found[key.replace(",", "_stderr,")] == pytest.approx(row["stderr"])
    assert results["n-samples"]["quiz"] == {"original": 3, "effective": 2}  # one is longer than the model


def test_lm_evals_table_shows_them(results):
    table = make_table(results)
    assert "|quiz" in table and "|colours" in table


def test_samples_load_as_lm_eval_loads_them(written, results):
    """As in EvaluationTracker.recreate_metadata_card: `datasets` reads the lines, and names and hashes fit those of the results."""
    from datasets import load_dataset

    stored = pl.read_parquet(written[0] / "samples/both.parquet")
    for file in get_sample_results_filenames([str(path) for path in written[1].iterdir()]):
        name = get_file_task_name(file.rpartition("/")[2])
        rows = load_dataset("json", data_files=file, split="train", cache_dir=str(written[0] / "cache")).to_list()
        own = stored.filter(pl.col("benchmark") == name, pl.col("missing").is_null())
        assert [row["arguments"]["gen_args_0"]["arg_0"] for row in rows] == own["prompt"].to_list()
        hashes = [row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows]
        assert results["task_hashes"][name] == hash_string("".join(hashes))
        metric = results["configs"][name]["metric_list"][0]["metric"]
        assert [float(row[metric]) for row in rows] == own["score"].to_list()
        assert all(not key.startswith(("row of", "rendered")) for row in rows for key in row["doc"])


def test_the_task_is_described_as_its_file_states_it(results):
    config = results["configs"]["colours"]
    assert config["dataset_path"] == "json" and config["dataset_kwargs"]["data_files"]["test"].endswith("colours.jsonl")
    assert "{{instruction}}" in config["doc_to_text"] and "custom_dataset" not in config


def test_lm_evals_tracker_is_what_writes(monkeypatch, written, run_script, tiny_base, tmp_path):
    from sft_atlas.core.errors import AtlasError

    monkeypatch.setattr(EvaluationTracker, "save_results_samples", lambda *args: None)
    files = {
        "suites": written[0] / "suite.json",
        "scores": written[0] / "scores/both.parquet",
        "samples": written[0] / "samples/both.parquet",
    }
    with pytest.raises(AtlasError, match=r"lm-eval could not write samples_colours_.*is the disk full\?"):
        run_script(write_lm_eval_results, **KEYS, base=tiny_base, **files, output=tmp_path / FOLDER)
    assert not list(tmp_path.iterdir())


def test_programs_keep_their_scores_and_are_not_run_again(tmp_path, monkeypatch):
    from sft_atlas.evaluate.metrics import code

    monkeypatch.setattr(code.sandbox, "run", lambda *args, **more: pytest.fail("a program was run"))
    item = {"instruction": "Return 1.", "answer": "def f(): return 1", "test_list": ["assert f() == 1"], "test_imports": []}
    (tmp_path / "mbpp.jsonl").write_text(json.dumps(item) + "\n" + json.dumps(item) + "\n")
    file = BenchmarkFiles("mbpp", ROOT / "config/benchmarks/mbpp.yaml", tmp_path / "mbpp.jsonl")
    columns = {
        "benchmark": "mbpp",
        "item": [0, 1],
        "prompt": "asked",
        "output": ["def f(): return 1", "no"],
        "score": [1.0, 0.0],
        "shots": 0,
    }
    samples = pl.DataFrame(columns).with_columns(missing=pl.lit(None, pl.String))
    found = write_lm_eval_results.evaluated([file], samples, Template().model_dump(), 0)
    assert [row["arguments"][0][0] for row in found["samples"]["mbpp"]] == ["asked", "asked"]
    assert next(value for key, value in found["results"]["mbpp"].items() if key.startswith("pass")) == 0.5


def test_lm_eval_compiles_a_template_once_while_a_task_runs():
    from lm_eval.utils import env

    with templates_compiled_once():
        assert env.from_string("{{a}}") is env.from_string("{{a}}")
    assert env.from_string("{{a}}") is not env.from_string("{{a}}")
