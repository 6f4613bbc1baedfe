# Judged benchmarks: answers are generated where the model runs, and judged where the network is.
#
# requires  a checkpoint's weights (or a base model), lm-eval task files, benchmark items; an endpoint, or a base model as judge
# gives     runs/.../epoch-{epoch}/answers/{suite}.parquet, scores/{suite}.parquet, samples/{suite}.parquet, judgements/{suite}.parquet
# state/    of a suite keeps every judgement, so that none is paid for twice


localrules:
    judge,


rule generate:
    """The answers of one checkpoint to the questions of a judged suite, both turns."""
    input:
        base=f"{MODEL}/model.json",
        weights=weights_of,
        suite=SUITE,
    output:
        f"{CHECKPOINT}/answers/{{suite}}.parquet",
    log:
        f"{LOGS}/generate/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}/{{suite}}.log",
    wildcard_constraints:
        suite=any_of(SUITES["judged"]),
    priority: 20
    conda:
        "../envs/evaluate.yaml"
    threads: study.file.threads
    resources:
        **cluster("generate"),
    params:
        settings=suite_settings,
    shell:
        "python -S workflow_scripts/warm.py workflow_scripts/generate.py --base {input.base} --weights {input.weights}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " --suite {input.suite} {params.settings} --threads {threads}"
        " --output {output} --log {log}"


rule judge:
    """Ask the judge about every answer of one checkpoint, and score them."""
    input:
        answers=f"{CHECKPOINT}/answers/{{suite}}.parquet",
        suite=SUITE,
        judge=judge_model,
    output:
        scores=f"{CHECKPOINT}/scores/{{suite}}.parquet",
        samples=f"{CHECKPOINT}/samples/{{suite}}.parquet",
        judgements=f"{CHECKPOINT}/judgements/{{suite}}.parquet",
    log:
        f"{LOGS}/judge/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}/{{suite}}.log",
    wildcard_constraints:
        suite=any_of(SUITES["judged"]),
    priority: 15
    conda:
        "../envs/evaluate.yaml"
    threads: study.file.threads
    resources:
        judge=judge_requests,
        gpu=judge_gpus,
    params:
        settings=judge_json,
        seed=study.file.seed,
        state=f"{RESULTS}/state/judgements/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}/{{suite}}.jsonl",
    shell:
        "python workflow_scripts/judge.py --answers {input.answers}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " --suite {input.suite} --judge {params.settings:q} --judge-base {input.judge} --state {params.state}"
        " --seed {params.seed} --threads {threads} --output-scores {output.scores} --output-samples {output.samples}"
        " --output-judgements {output.judgements} --log {log}"
