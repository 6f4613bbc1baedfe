"""Imported scores in lm-eval's files again: equal to the files that were read, and made from the tables."""

import json
import math

import polars as pl
import pytest

from helpers.imported import contents, run, write_again
from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate import evaluate, write_lm_eval_results
from sft_atlas.evaluate.tasks import BenchmarkFiles, SuiteFile
from sft_atlas.study.schema import Template


def test_a_run_of_lm_eval_is_imported_and_written_again_without_loss(lm_eval_run, run_script, tmp_path):
    folder, _, samples, record = run(run_script, tmp_path / "imported", sorted(lm_eval_run.iterdir()))
    assert write_again(run_script, folder, tmp_path / "again") == contents(lm_eval_run)
    assert record["left_out"] == []
    assert samples.height == 5 * 2 + 5 * 2  # a line for each filter


def test_what_is_written_again_comes_from_the_tables(lm_eval_run, run_script, tmp_path):
    """A number that is changed in a table is changed in the files: there is no second copy that would hide a loss."""
    folder, scores, samples, _ = run(run_script, tmp_path / "imported", sorted(lm_eval_run.iterdir()))
    scores.with_columns(score=pl.col("score") + 0.125).write_parquet(folder / "scores.parquet")
    samples.with_columns(prompt=pl.lit("other"), score=1 - pl.col("score")).write_parquet(folder / "samples.parquet")
    before, after = contents(lm_eval_run), write_again(run_script, folder, tmp_path / "again")
    for name in before:
        if "results_" in name:
            assert after[name]["results"]["pick"]["acc,none"] == before[name]["results"]["pick"]["acc,none"] + 0.125
        else:
            assert all(row["arguments"]["gen_args_0"]["arg_0"] == "other" for row in after[name])
            metric = "exact_match" if "sums" in name else "acc"
            assert [row[metric] for row in after[name]] == [1 - row[metric] for row in before[name]]


def test_a_part_of_a_run_is_written_again_whole(lm_eval_run, run_script, tmp_path):
    folder, scores, _, record = run(
        run_script, tmp_path / "imported", sorted(lm_eval_run.iterdir()), benchmarks={"pick_a": {"benchmark": "mine", "metric": "acc_norm"}}
    )
    assert scores.select("benchmark", "metric", "main").rows() == [("mine", "acc", False), ("mine", "acc_norm", True)]
    assert any("sums" in line for line in record["left_out"])
    assert write_again(run_script, folder, tmp_path / "again") == contents(lm_eval_run)


OLD = {
    "results": {"arc": {"acc": 0.25, "acc_stderr": 0.01, "acc_norm": 0.5, "acc_norm_stderr": 0.02}, "wiki": {"word_perplexity": 12.5}},
    "versions": {"arc": 0, "wiki": 1},
    "config": {"model": "hf-causal", "model_args": "pretrained=org/name,dtype=float16", "num_fewshot": 25, "limit": None},
}
BETWEEN = {
    "results": {
        "arc": {"alias": "arc", "acc,none": 0.25, "acc_stderr,none": "N/A", "acc_norm,none": math.nan, "acc_norm_stderr,none": math.nan},
        "gsm8k": {"exact_match,strict-match": 0.5, "exact_match_stderr,strict-match": 0.1, "exact_match,flexible-extract": 0.75, "alias": "gsm8k"},
    },
    "configs": {"arc": {"doc_to_text": "{{q}}", "num_fewshot": 25}},
    "n-shot": {"arc": 25, "gsm8k": 5},
    "config": {"model": "hf", "model_args": "pretrained=org/name,peft=org/adapter"},
    "git_hash": "abc123",
}  # fmt: skip


@pytest.mark.parametrize("document", [OLD, BETWEEN], ids=["0.3", "0.4.0"])
def test_older_layouts_are_read_and_written_again(document, run_script, tmp_path):
    model = tmp_path / "org__name"
    model.mkdir()
    (model / "results.json").write_text(json.dumps(document))
    line = {"doc_id": 0, "doc": {}, "target": 1, "arguments": [["the prompt", " x"]], "resps": [[[-1.5, False]]], "acc": 0.0}
    name = "pretrained__org__name_arc.jsonl"
    (model / name).write_text(json.dumps([line]))  # as lm-eval 0.4.0 wrote it: one list
    folder, scores, samples, record = run(run_script, tmp_path / "imported", sorted(model.iterdir()))
    arc = scores.row(by_predicate=(pl.col("task") == "arc") & (pl.col("metric") == "acc"), named=True)
    assert (arc["score"], arc["shots"]) == (0.25, 25) and arc["stderr"] == (0.01 if document is OLD else None)
    assert set(scores["source_checkpoint"]) == {"org/name" if document is OLD else "org/adapter"}
    assert samples["prompt"].to_list() == ["the prompt"] and samples["score"].to_list() == [0.0]
    assert write_again(run_script, folder, tmp_path / "again") == contents(model)
    if document is OLD:
        assert any("word_perplexity" in line for line in record["left_out"])
    else:
        assert scores.filter(benchmark="gsm8k")["metric"].to_list() == ["exact_match,strict-match", "exact_match,flexible-extract"]
        assert scores.filter(benchmark="arc", metric="acc_norm")["score"].to_list() == [None]
        assert any("acc_norm" in line and "no score" in line for line in record["left_out"])


def test_our_scores_written_as_lm_evals_files_come_back_equal(tiny_base, run_script, tmp_path):
    keys = {"model": "tiny", "dataset": "base", "recipe": "base", "epoch": 0}
    items = [
        {"instruction": f"Which, {n}?", "choices": ["red", "green", "blue"][: 2 + n % 2], "label": n % 2, "answer": "x"} for n in range(6)
    ]
    (tmp_path / "colours.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps({"instruction": f"{n} + 2", "answer": str(n + 2)}) + "\n" for n in range(3)))
    files = [
        BenchmarkFiles(name, ROOT / f"config/benchmarks/{task}.yaml", tmp_path / f"{name}.jsonl")
        for name, task in (("quiz", "generate"), ("colours", "choice"))
    ]
    SuiteFile("both", files).write(tmp_path / "suite.json")
    settings = {"template": Template().model_dump_json(), "max_length": 256, "max_new_tokens": 4, "batch_size": 4}
    ours = {"output_scores": tmp_path / "scores/both.parquet", "output_samples": tmp_path / "samples/both.parquet"}
    run_script(evaluate, **keys, base=tiny_base, suite=tmp_path / "suite.json", **settings, state=tmp_path / "state", **ours)
    folder = tmp_path / "tiny__base__base__epoch-0"
    made = {"suites": tmp_path / "suite.json", "scores": ours["output_scores"], "samples": ours["output_samples"]}
    run_script(write_lm_eval_results, **keys, base=tiny_base, **made, output=folder)
    metrics = {
        "quiz": {"text": "exact_match", "metric": "exact_match", "filter": "none"},
        "colours": {"text": "acc", "metric": "acc", "filter": "none"},
    }
    imported, scores, samples, _ = run(
        run_script, tmp_path / "imported", sorted(folder.iterdir()), own={"tiny/base/base/epoch-0": keys}, metrics=metrics
    )
    theirs, mine = scores.filter("main").sort("benchmark"), pl.read_parquet(ours["output_scores"]).sort("benchmark")
    held = ["model", "dataset", "recipe", "epoch", "benchmark", "score", "stderr", "n", "backend", "dtype", "shots", "scale"]
    assert theirs.select(held).rows() == mine.select(held).rows()
    assert [metric.partition(",")[0] for metric in theirs["metric"]] == mine["metric"].to_list()
    both = samples.filter("main").sort("benchmark", "item"), pl.read_parquet(ours["output_samples"]).sort("benchmark", "item")
    for column in ("benchmark", "prompt", "score"):
        assert both[0][column].to_list() == both[1][column].to_list()
    assert write_again(run_script, imported, tmp_path / "again") == contents(folder)
