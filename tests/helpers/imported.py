"""Scores that others measured: a real run of lm-eval, its import, and its files written again."""

import json
from pathlib import Path

import polars as pl

from sft_atlas.core.files import read_json
from sft_atlas.evaluate import import_scores, write_imported_results

SUMS = """task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {items}}}}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{{{q}}}}\\nA:"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4}}
filter_list:
  - {{name: strict, filter: [{{function: regex, regex_pattern: "(\\\\d+)"}}, {{function: take_first}}]}}
  - {{name: loose, filter: [{{function: take_first}}]}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""
PICK = """task: pick_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {items}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{name}: {{{{q}}}}"
doc_to_choice: c
doc_to_target: l
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
GROUP = "group: pick\ntask: [pick_a, pick_b]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\nmetadata: {version: 2}\n"


def lm_eval_run(folder: Path, tiny_base: Path) -> Path:
    """Run lm-eval in ``folder`` with a base model; the folder that lm-eval itself writes: a task with two filters, and a group of two tasks with two metrics."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    (folder / "tasks").mkdir()
    items = folder / "items.jsonl"
    items.write_text("".join(json.dumps({"q": f"{i}+{i} é", "a": str(2 * i), "c": ["x", str(2 * i)], "l": i % 2}) + "\n" for i in range(5)))
    for name, text in {
        "sums": SUMS.format(items=items),
        "pick": GROUP,
        **{f"pick_{n}": PICK.format(name=n, items=items) for n in "ab"},
    }.items():
        (folder / f"tasks/{name}.yaml").write_text(text)
    tracker = EvaluationTracker(output_path=str(folder / "out"))
    path = json.loads(Path(tiny_base).read_text())["path"]
    results = simple_evaluate(
        model="hf", model_args={"pretrained": path, "dtype": "float32"}, tasks=["sums", "pick"], batch_size=4, device="cpu", log_samples=True,
        task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False), evaluation_tracker=tracker,
    )  # fmt: skip
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)
    (model,) = (folder / "out").iterdir()
    return model


def run(run_script, output, files, format="lm-eval", **settings):
    """Import files; returns the folder of the import, its scores, samples and record."""
    stated = {"theirs": {"format": format, "files": [str(file) for file in files], **settings}}
    run_script(import_scores, imports=json.dumps(stated), output=output)
    folder = output / "theirs"
    return (
        folder,
        pl.read_parquet(folder / "scores.parquet"),
        pl.read_parquet(folder / "samples.parquet"),
        read_json(folder / "record.json"),
    )


def write_again(run_script, folder, output):
    tables = {"scores": folder / "scores.parquet", "samples": folder / "samples.parquet", "record": folder / "record.json"}
    run_script(write_imported_results, **tables, output=output)
    return {str(path.relative_to(output)): content(path) for path in sorted(output.rglob("*")) if path.is_file()}


def content(path):
    """JSON of a file of lm-eval; NaN is a text, so that it equals itself."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".jsonl" and not text.lstrip().startswith("["):
        return [json.loads(line, parse_constant=str) for line in text.splitlines() if line.strip()]
    return json.loads(text, parse_constant=str)


def contents(folder):
    return {str(path.relative_to(folder.parent)): content(path) for path in sorted(folder.rglob("*")) if path.is_file()}
