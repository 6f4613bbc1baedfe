# Look-ups of suites: what they measure, and how the jobs are told.
#
# requires  `study` and the path patterns of common.smk, the look-ups of lookups.smk


SUITES = {
    kind: [name for name, suite in study.file.suites.items() if kind == ("judged" if suite.judge else suite.backend)]
    for kind in ("hf", "vllm", "judged")
}
WITH_SHOTS = [name for name, entry in study.file.benchmarks.items() if entry.shots]
CHECKED = ("overlap", "contamination", "clean_scores")  # tables of what training sets and benchmarks share
SCORING_CODE = ["rescore_samples.py", "sft_atlas/evaluation.py", "sft_atlas/prompts.py", "sft_atlas/summaries.py", "sft_atlas/sandbox.py"]
SCORING_CODE += [f"sft_atlas/scoring/{name}.py" for name in ("__init__", "choice", "code", "mathematics", "open_answers")]


def suite_tasks(wildcards):
    """The lm-eval task files of a suite."""
    return [study.file.benchmarks[name].task for name in study.file.suites[wildcards.suite].benchmarks]


def suite_includes(wildcards):
    """The files that the task files of a suite include."""
    return sorted({path for task in suite_tasks(wildcards) for path in task_sources(task)[1:]})


def suite_items(wildcards):
    """The items of a suite's benchmarks."""
    return [f"{BENCHMARK.format(benchmark=name)}/test.jsonl" for name in study.file.suites[wildcards.suite].benchmarks]


def suite_shots(wildcards):
    """The examples of a suite's few-shot benchmarks."""
    return [
        f"{BENCHMARK.format(benchmark=name)}/shots.jsonl" for name in study.file.suites[wildcards.suite].benchmarks if name in WITH_SHOTS
    ]


def suite_arguments(wildcards, input):
    """Name, task file and items of each benchmark, and its examples, as arguments."""
    names = study.file.suites[wildcards.suite].benchmarks
    parts = [f"--benchmark {name} {task} {items}" for name, task, items in zip(names, input.tasks, input.data, strict=True)]
    parts += [
        f"--shots {name} {path} {study.file.benchmarks[name].shots.by or '-'}"
        for name, path in zip([name for name in names if name in WITH_SHOTS], input.get("shots", []), strict=True)
    ]
    return " ".join(parts)


def suite_settings(wildcards):
    """How a suite is run, as arguments; one that runs code says so."""
    suite = study.file.suites[wildcards.suite]
    limit = f" --max-new-tokens {suite.max_new_tokens}" if suite.max_new_tokens else ""
    numbers = f"--batch-size {suite.batch_size} --max-length {suite.max_length}{limit} --seed {study.file.seed}"
    return f"--template {shlex.quote(template_json(wildcards))} {numbers}{code_permission(wildcards)}"


def code_permission(wildcards):
    """The permission to run code that models write, for the suites that do."""
    unsafe = any(task_file(task).get("unsafe_code") for task in suite_tasks(wildcards))
    return " --allow-code-execution" if unsafe else ""


def shots_path(wildcards):
    """The local file of a benchmark's examples; nothing where they come from elsewhere."""
    path = study.file.benchmarks[wildcards.benchmark].shot_source().path
    return study.path(path) if path else []


def shots_argument(wildcards, input):
    """The command-line argument for `shots_path`."""
    return f"--path {shlex.quote(str(input.source))}" if input.source else ""


def answered_items():
    """The items of every benchmark in a suite that has right answers: the others have no likelihood to measure."""
    return [f"{BENCHMARK.format(benchmark=name)}/test.jsonl" for name in study.answered]


ANSWERED_ITEMS = " ".join(f"--items {Path(path).parent.name}={path}" for path in answered_items())


def judge_json(wildcards):
    """Who judges a suite, and how."""
    return study.file.suites[wildcards.suite].judge.model_dump_json()


def judge_model(wildcards):
    """The manifest of the local model that judges a suite; nothing where an endpoint does."""
    judge = study.file.suites[wildcards.suite].judge
    return [] if judge.url else f"{RESULTS}/models/{judge.model}/model.json"


def judge_requests(wildcards):
    """Share of the judge that a job takes: with an endpoint one job at a time keeps its rate limit."""
    return 1 if study.file.suites[wildcards.suite].judge.url else 0


def judge_gpus(wildcards):
    """GPUs of a judging job: a local judge takes one where there is one."""
    return 0 if study.file.suites[wildcards.suite].judge.url or not GPUS else 1


def scored_samples():
    """The samples of every checkpoint and suite."""
    return [path for suite in study.file.suites for path in checkpoint_files(f"samples/{suite}.parquet", study.checkpoints)]
