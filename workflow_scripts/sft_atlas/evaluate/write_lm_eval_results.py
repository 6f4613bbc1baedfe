"""Write the scores of one checkpoint in lm-eval's own files, `results_*.json` and `samples_*.jsonl`, from its stored answers.

lm-eval scores the stored answers and its EvaluationTracker writes the files, so that keys, layout and names are those of the installed
version. No model is loaded and no generated code is run: benchmarks that run code keep the scores that they have.
"""

import argparse
import json
import logging
from pathlib import Path
from types import SimpleNamespace

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import atomic, read_json, read_table
from sft_atlas.core.log import LOG
from sft_atlas.evaluate.lm_eval_runner import metric_name, templates_compiled_once
from sft_atlas.evaluate.rescore_samples import benchmark_of, stored_answers
from sft_atlas.evaluate.tasks import CLUSTER, ITEM, NOT_OF_LM_EVAL, PROMPT, SHOTS, TARGET, BenchmarkFiles, SuiteFile, task_configs
from sft_atlas.models import prompt_template
from sft_atlas.models.arguments import CHECKPOINT, add_keys
from sft_atlas.models.base_model import ModelFolder, load_tokenizer
from sft_atlas.study.task_files import task_file

# Draws for errors of metrics that are no means, such as f1; those of means are computed. lm-eval's default of 100,000 takes minutes; 1,000 give an
# error with about 2 % noise.
BOOTSTRAP = 1_000
OURS = (ITEM, SHOTS, CLUSTER, PROMPT, TARGET)  # columns of an item that are not in its file


def main(args: argparse.Namespace) -> None:
    """Write a folder as lm-eval does for a model, with one `results_*.json` for each suite."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tokenizer = load_tokenizer(ModelFolder.read(args.base))
    with atomic(args.output) as part:
        (part / args.output.name).mkdir(parents=True)
        for suite, scores, samples in zip(args.suites, args.scores, args.samples, strict=True):
            record = read_json(scores.with_suffix(".json"))
            write_suite(part, args, SuiteFile.read(suite), read_table(samples), record, scores.stat().st_mtime, tokenizer)
        for path in (part / args.output.name).iterdir():
            path.rename(part / path.name)
        (part / args.output.name).rmdir()


def write_suite(folder: Path, args: argparse.Namespace, suite: SuiteFile, samples, record: dict, date: float, tokenizer) -> None:
    """Write the files of one suite below ``folder``, in the folder of the checkpoint.

    ``record``: the provenance of the scores; ``date``: when they were written, in seconds since 1970.
    """
    from lm_eval.loggers import EvaluationTracker

    scoring = record.get("generated") or record  # of the job that asked the model
    template = prompt_template.read(json.dumps(scoring["settings"]["template"]), tokenizer)
    results = evaluated(suite.benchmarks, samples, template, scoring["settings"]["seed"])
    name = "/".join([args.model, args.dataset, args.recipe, f"epoch-{args.epoch}"])
    samples_by_task = results.pop("samples")
    tracker = EvaluationTracker(output_path=str(folder))
    known = tracker.general_config_tracker
    settings = {"pretrained": name, "dtype": record["dtype"], "max_length": scoring["settings"]["max_length"]}
    known.log_experiment_args(record["backend"], settings, None, template.get("chat"), "chat" in template)
    if known.model_name_sanitized != args.output.name:
        raise AtlasError(f"{args.output}: lm-eval would call the folder of {name} {known.model_name_sanitized}; correct --output")
    known.log_end_time = lambda: None  # it would time this job, not the scoring
    tracker.save_results_aggregated(results | _run_facts(record, scoring, settings, date, tokenizer), samples_by_task)
    for task, rows in samples_by_task.items():
        tracker.save_results_samples(task, rows)
    # lm-eval logs errors of writing, and goes on.
    written = tracker.date_id if hasattr(tracker, "date_id") else None
    there = {path.name for path in (folder / args.output.name).iterdir()}
    expected = {f"results_{written}.json"} | {f"samples_{task}_{written}.jsonl" for task in samples_by_task}
    if not expected <= there:
        raise AtlasError(f"{args.output}: lm-eval could not write {', '.join(sorted(expected - there))}; is the disk full?")


def evaluated(benchmarks: list[BenchmarkFiles], samples, template: dict, seed: int) -> dict:
    """lm-eval's results with samples, for the benchmarks of a suite that have a scored item; ``samples``: the suite's."""
    import polars as pl
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    configs: dict[str, dict] = {}  # by lm-eval's name of the task
    for file in benchmarks:
        rows = samples.filter(benchmark=file.name)
        left_out = dict(rows.filter(pl.col("missing").is_not_null()).select("item", "missing").iter_rows())
        if len(left_out) == rows.height:
            LOG.warning("%s has no scored item, and is left out", file.name)
            continue
        for config in task_configs(file, template, left_out=left_out):
            if config["task"] in configs:
                raise AtlasError(
                    f"{config['task']} is in two benchmarks of one suite, which lm-eval's files cannot hold; move one to another suite"
                )
            if len(config["custom_dataset"]()["test"]):
                configs[config["task"]] = _as_asked(config, rows)
    if not configs:
        raise AtlasError(f"no benchmark of {', '.join(file.name for file in benchmarks)} has a scored item; there is nothing to write")
    loaded = TaskManager(include_defaults=False).load(list(configs.values()))
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=seed)
    loaded["groups"] |= {file.name: _group(file, loaded["tasks"]) for file in benchmarks if file.lm_eval and file.lm_eval.group}
    loaded["group_map"] = {name: group.child_names for name, group in loaded["groups"].items()}
    with templates_compiled_once():
        results = evaluate(
            lm=stored_answers(samples, benchmark_of(benchmarks)),
            task_dict=loaded,
            log_samples=True,
            bootstrap_iters=BOOTSTRAP,
            confirm_run_unsafe_code=True,
        )
    for file in benchmarks:
        for part in file.parts():
            if part.name in configs:
                own = pl.col("item").is_in([row[ITEM] for row in part.rows()])
                _describe(results, part, samples.filter(own, benchmark=file.name))
        shots = {results["n-shot"][part.name] for part in file.parts() if part.name in configs}
        if file.lm_eval and file.lm_eval.group and len(shots) == 1:  # as lm-eval says it of a group
            results["n-shot"][file.name] = shots.pop()
    return results


def _group(benchmark: BenchmarkFiles, tasks: dict):
    """lm-eval's group of a benchmark, with those of its tasks that have scored items."""
    from lm_eval.api.group import Group
    from lm_eval.config.group import AggMetricConfig

    known = benchmark.lm_eval
    mean = AggMetricConfig(known.metric, [known.filter] if known.filter else None)
    group = Group(benchmark.name, aggregate_metric_list=[mean])
    for name in known.tasks:
        if name in tasks:
            group.add(tasks[name])
    return group


def _as_asked(config: dict, samples) -> dict:
    """A task with the prompts that the model got, and without code to run: that keeps its stored scores."""
    items = config["custom_dataset"]()["test"]
    if PROMPT in items.column_names:
        prompts = dict(samples.select("item", "prompt").iter_rows())
        items = items.remove_columns(PROMPT).add_column(PROMPT, [prompts[item] for item in items[ITEM]])
    config = {key: value for key, value in config.items() if key not in NOT_OF_LM_EVAL} | {"custom_dataset": lambda **_: {"test": items}}
    if config.pop("unsafe_code", False):
        scores, metric = dict(samples.select("item", "score").iter_rows()), metric_name(config)
        config["metric_list"] = config["metric_list"][:1]
        config["process_results"] = lambda doc, results: {metric: scores[doc[ITEM]]}
    return config


def _describe(results: dict, file: BenchmarkFiles, samples) -> None:
    """State in lm-eval's results what it cannot know here: the task as its file has it, the examples, and the items without a score."""
    from lm_eval.utils import handle_non_serializable, hash_string

    shots = max(samples["shots"].to_list())
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file.items)}}, "test_split": "test"}
    config = results["configs"][file.name] | task_file(str(file.task)) | data | {"task": file.name, "num_fewshot": shots}
    config.pop("custom_dataset", None)
    results["configs"][file.name], results["n-shot"][file.name] = config, shots
    results["n-samples"][file.name]["original"] = samples.height
    outputs = dict(samples.select("item", "output").iter_rows())
    for row in results["samples"][file.name]:
        if not isinstance(row["resps"][0][0], str) and not any(
            isinstance(value, list) for value in json.loads(outputs[row["doc"][ITEM]]).values()
        ):
            # Whether greedy decoding gives an option is kept only where a score depends on it.
            row["resps"] = [[(pair[0], None) for pair in listed] for listed in row["resps"]]
            row["filtered_resps"] = [(pair[0], None) for pair in row["filtered_resps"]]
        row["doc"] = {key: value for key, value in row["doc"].items() if key not in OURS}
        row["doc_hash"] = hash_string(json.dumps(row["doc"], indent=2, default=handle_non_serializable, ensure_ascii=False))


def _run_facts(record: dict, scoring: dict, model_args: dict, date: float, tokenizer) -> dict:
    """What lm-eval's `simple_evaluate` adds to the results of a run: model, settings, versions, tokenizer."""
    from lm_eval.loggers.utils import add_tokenizer_info

    settings = scoring["settings"]
    seeds = dict.fromkeys(("random_seed", "numpy_seed", "torch_seed", "fewshot_seed"), settings["seed"])
    versions = scoring.get("versions") or {}
    facts = {
        "config": {
            "model": record["backend"], "model_args": model_args, "model_dtype": record["dtype"], "batch_size": settings.get("batch_size"),
            "batch_sizes": [], "device": scoring.get("device") or record.get("device"), "use_cache": None, "limit": None,
            "bootstrap_iters": BOOTSTRAP, "gen_kwargs": None, **seeds,
        },
        "git_hash": (scoring.get("code") or {}).get("commit"), "date": date, "pretty_env_info": json.dumps(versions),
        "transformers_version": versions.get("transformers"), "lm_eval_version": versions.get("lm_eval"), "upper_git_hash": None,
    }  # fmt: skip
    add_tokenizer_info(facts, SimpleNamespace(tokenizer=tokenizer, eot_token_id=tokenizer.eos_token_id, max_length=settings["max_length"]))
    return facts


def add_options(p: argparse.ArgumentParser) -> None:
    add_keys(p, *CHECKPOINT)
    p.add_argument("--base", type=Path, required=True, help="manifest of the base model, model.json")
    p.add_argument("--suites", type=Path, nargs="+", required=True, help="JSON of rule prepare_suite, of each suite")
    p.add_argument("--scores", type=Path, nargs="+", required=True, help="Parquet of each suite, with its JSON beside it")
    p.add_argument("--samples", type=Path, nargs="+", required=True, help="Parquet of each suite")
    p.add_argument("--output", type=Path, required=True, help="folder, called as lm-eval calls that of the model")
