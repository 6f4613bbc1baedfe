# Scores: one job per checkpoint and suite, one model load each. Judged suites generate first and are judged afterwards.
#
# requires  a checkpoint's weights (or a base model), lm-eval task files, benchmark items and examples; the network to ask a judge
# gives     suites/{suite}.json, runs/.../epoch-{epoch}/scores/{suite}.parquet, samples/{suite}.parquet, answers/{suite}.parquet, rescored/{suite}.parquet


localrules:
    prepare_suite,


rule scores:
    """Every base model and checkpoint scored on every suite; and what else is made of weights that do not stay."""
    input:
        [checkpoint_files(f"scores/{suite}.parquet", study.checkpoints) for suite in study.file.suites],
        passing=passing_files(study.checkpoints),


rule prepare_suite:
    """What a suite is made of, with the hash of every file: one input of its jobs in place of two or three for each benchmark."""
    input:
        tasks=suite_tasks,
        includes=suite_includes,
        data=suite_items,
        shots=suite_shots,
    output:
        SUITE,
    log:
        f"{LOGS}/prepare_suite/{{suite}}.log",
    priority: 90
    conda:
        "../envs/data.yaml"
    params:
        benchmarks=suite_arguments,
    shell:
        "python workflow_scripts/prepare_suite.py --name {wildcards.suite} {params.benchmarks} --output {output} --log {log}"


rule evaluate:
    """Score one checkpoint on one suite."""
    input:
        base=f"{MODEL}/model.json",
        weights=weights_of,
        suite=SUITE,
    output:
        scores=f"{CHECKPOINT}/scores/{{suite}}.parquet",
        samples=f"{CHECKPOINT}/samples/{{suite}}.parquet",
    log:
        f"{LOGS}/evaluate/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}/{{suite}}.log",
    wildcard_constraints:
        suite=any_of(SUITES["hf"]),
    priority: 20
    conda:
        "../envs/evaluate.yaml"
    threads: study.file.threads
    resources:
        **cluster("evaluate"),
    params:
        settings=suite_settings,
    shell:
        "python -S workflow_scripts/warm.py workflow_scripts/evaluate.py --base {input.base} --weights {input.weights}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " --suite {input.suite} {params.settings} --threads {threads}"
        " --output-scores {output.scores} --output-samples {output.samples} --log {log}"


rule evaluate_vllm:
    """Score one checkpoint on one suite with vLLM."""
    input:
        base=f"{MODEL}/model.json",
        weights=weights_of,
        suite=SUITE,
    output:
        scores=f"{CHECKPOINT}/scores/{{suite}}.parquet",
        samples=f"{CHECKPOINT}/samples/{{suite}}.parquet",
    log:
        f"{LOGS}/evaluate_vllm/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}/{{suite}}.log",
    wildcard_constraints:
        suite=any_of(SUITES["vllm"]),
    priority: 20
    conda:
        "../envs/vllm.yaml"
    threads: study.file.threads
    resources:
        **cluster("evaluate_vllm"),
    params:
        settings=suite_settings,
    shell:
        "python workflow_scripts/evaluate_vllm.py --base {input.base} --weights {input.weights}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " --suite {input.suite} {params.settings} --threads {threads}"
        " --output-scores {output.scores} --output-samples {output.samples} --log {log}"


rule rescore:
    """Every score made again from the stored answers, without a model."""
    input:
        [checkpoint_files(f"rescored/{suite}.parquet", study.checkpoints) for suite in [*SUITES["hf"], *SUITES["vllm"]]],


rule rescore_samples:
    """Score the stored answers of one checkpoint and suite again; replaces its scores and samples, and lists what changed."""
    input:
        scores=f"{CHECKPOINT}/scores/{{suite}}.parquet",
        samples=f"{CHECKPOINT}/samples/{{suite}}.parquet",
        suite=SUITE,
        code=code(*SCORING_CODE),
    output:
        f"{CHECKPOINT}/rescored/{{suite}}.parquet",
    log:
        f"{LOGS}/rescore_samples/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}/{{suite}}.log",
    wildcard_constraints:
        suite=any_of([*SUITES["hf"], *SUITES["vllm"]]),
    conda:
        "../envs/evaluate.yaml"
    resources:
        **cluster("rescore_samples"),
    params:
        permission=code_permission,
    shell:
        "python workflow_scripts/rescore_samples.py --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe}"
        " --epoch {wildcards.epoch} --suite {input.suite}{params.permission}"
        " --scores {input.scores} --samples {input.samples} --output {output} --log {log}"
