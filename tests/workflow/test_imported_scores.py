"""Scores that others measured, through Snakemake: a study of nothing else, and beside our own."""

import json

import polars as pl
import pytest

from helpers.folders import fresh, small_demo

STUDY = {
    "study": "theirs",
    "imported_scores": {
        "paper": {
            "file": "paper.csv",
            "format": "csv",
            "template": "theirs",
            "facts": {"model": "base", "dataset": "set", "method": "method"},
        },
        "harness": {"file": "harness", "format": "lm-eval"},
    },
}
ROWS = [
    ("start", "ant", "", "", 40.5, 20.5), ("a", "ant", "red", "full", 45.5, 21.5), ("b", "ant", "blue", "full", 41.5, 30.5), ("c", "ant", "red", "lora", 43.5, 25.5),
]  # fmt: skip


def table(rows):
    return "name,base,set,method,quiz:acc:5,sums:exact_match:0\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    made = fresh(tmp_path / "study", STUDY)
    (made.path / "paper.csv").write_text(table(ROWS))
    (made.path / "harness/org__model").mkdir(parents=True)
    results = {"model_name": "org/model", "results": {"arc": {"acc,none": 0.25, "acc_stderr,none": 0.05}}, "n-shot": {"arc": 25}}
    (made.path / "harness/org__model/results_2025.json").write_text(json.dumps(results))
    return made


def test_a_study_of_imported_scores_alone_has_tables_findings_and_files_of_lm_eval(folder):
    tables = [f"results/theirs/tables/{name}.parquet" for name in ("overlap", "contamination", "clean_scores")]
    printed = folder.run("results/theirs/findings.md", "results/theirs/figures/gains.pdf", "lm_eval_results", *tables)
    assert "org/model" in printed  # a name that the study does not have is said
    scores = pl.read_parquet(folder.path / "results/theirs/tables/scores.parquet")
    assert dict(scores.group_by("source").len().rows()) == {"csv": 8, "lm-eval": 1}
    assert all(pl.read_parquet(folder.path / path).is_empty() for path in tables)
    gains = pl.read_parquet(folder.path / "results/theirs/tables/gains.parquet").filter(benchmark="quiz")
    assert {row[:3]: round(row[3], 6) for row in gains.select("model", "dataset", "method", "gain").rows()} == {
        ("ant", "red", "full"): 0.05, ("ant", "blue", "full"): 0.01, ("ant", "red", "lora"): 0.03,
    }  # fmt: skip
    findings = " ".join((folder.path / "results/theirs/findings.md").read_text().split())
    assert "IMPORTED from paper (csv, sha256" in findings and "8 are compared with others" in findings
    assert "Not available in this study: needs gains with a standard error." in findings
    written = folder.path / "results/theirs/lm_eval/imported/harness/org__model/results_2025.json"
    assert json.loads(written.read_text()) == json.loads((folder.path / "harness/org__model/results_2025.json").read_text())


def test_a_change_of_a_file_imports_it_again_and_a_mistake_in_it_is_one_message(folder):
    folder.run("import_scores")
    (folder.path / "paper.csv").write_text(table([*ROWS[:3], ("c", "ant", "red", "lora", "43,5", 25.5)]).replace("43,5", '"43,5"'))
    printed = folder.run("import_scores", ok=False)
    assert "error: imported_scores.paper: paper.csv, line 5, column quiz:acc:5: '43,5' is not a number; write a decimal point" in printed
    assert "Traceback" not in printed
    (folder.path / "paper.csv").write_text(table(ROWS[:3]))
    folder.run("import_scores")
    assert pl.read_parquet(folder.path / "results/theirs/imported/paper/scores.parquet").height == 6


def test_a_file_that_is_not_there_ends_the_call_before_any_job(folder):
    (folder.path / "paper.csv").unlink()
    printed = folder.run("-n", ok=False)
    assert "imported_scores.paper.file: there is no paper.csv" in printed and "Traceback" not in printed


def test_files_of_lm_eval_with_our_prompts_are_compared_with_our_scores_item_by_item(tmp_path):
    """Our own scores, written as lm-eval's files, with the answers of another checkpoint in the place of ours."""
    study = small_demo()
    model, benchmark = "llama-strings", "syllogisms"
    study |= {"models": {model: study["models"][model]}, "benchmarks": {benchmark: study["benchmarks"][benchmark]}}
    study |= {
        "suites": {"tasks": {"benchmarks": [benchmark], "max_length": 256}},
        "imported_scores": {"theirs": {"file": "paper.csv", "format": "csv"}},
    }
    folder = fresh(
        tmp_path / "study", {key: value for key, value in study.items() if key not in ("datasets", "recipes", "blocks", "overrides")}
    )
    (folder.path / "paper.csv").write_text(f"name,{benchmark}:acc:5\nx,40\n")
    folder.run("lm_eval_results")
    written = folder.path / f"results/small/lm_eval/{model}__base__base__epoch-0"
    (results,), (samples,) = written.glob("results_*.json"), written.glob("samples_*.jsonl")
    theirs = folder.path / "theirs"
    theirs.mkdir()
    document, lines = json.loads(results.read_text()), [json.loads(line) for line in samples.read_text().splitlines()]
    (key,) = (key for key in document["results"][benchmark] if "," in key and "stderr" not in key)
    metric, before = key.split(",")[0], [line[key.split(",")[0]] for line in lines]
    for line in lines[:3]:
        line[metric] = 1 - line[metric]
    after = [line[metric] for line in lines]
    document["results"][benchmark][key] = sum(after) / len(after)
    (theirs / results.name).write_text(json.dumps(document | {"model_name": "org/theirs"}))
    (theirs / samples.name).write_text("\n".join(map(json.dumps, reversed(lines))))
    known = {"org/theirs": {"model": model, "dataset": "chat", "method": "full"}}
    folder.write(
        folder.study
        | {"imported_scores": {**folder.study["imported_scores"], "harness": {"file": "theirs", "format": "lm-eval", "checkpoints": known}}}
    )
    folder.run("results/small/tables/gains.parquet", "results/small/tables/scores.parquet")
    gains = pl.read_parquet(folder.result("tables/gains.parquet"))
    assert gains.select("model", "dataset", "benchmark", "source", "base_source", "n").rows() == [
        (model, "chat", benchmark, "lm-eval", "ours", len(lines))
    ]
    differences = pl.Series([one - other for one, other in zip(after, before, strict=True)])
    assert gains["gain"][0] == pytest.approx(differences.mean())
    assert gains["stderr"][0] == pytest.approx(differences.std() / len(lines) ** 0.5)
    scores = pl.read_parquet(folder.result("tables/scores.parquet"))
    assert scores["source"].to_list() == ["ours", "csv", "lm-eval"]
