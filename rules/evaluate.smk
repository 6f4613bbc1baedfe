# Scores: one job per checkpoint and suite, one model load each. Judged suites generate answers first and are judged afterwards.
#
# requires  a checkpoint's weights (or a base model), lm-eval task files, benchmark items and examples; for judged suites an endpoint,
#           or a base model as judge
# gives     suites/{suite}.json; runs/.../epoch-{epoch}/: scores/{suite}.parquet, samples/{suite}.parquet, answers/{suite}.parquet,
#           judgements/{suite}.parquet, rescored/{suite}.parquet; tables/contamination.parquet, contaminated_items.parquet,
#           clean_scores.parquet
# state/    of a judged suite keeps every judgement, so that none is paid for twice


localrules:
    prepare_suite,
    judge,


rule scores:
    """Every base model and checkpoint scored on every suite; and what else is made of weights that do not stay."""
    input:
        evaluate.files(paths.scores),
        deleted=train.files_before_deletion(study.checkpoints),


rule prepare_suite:
    """What a suite is made of, with the hash of every file: one input of its jobs in place of two or three for each benchmark."""
    input:
        tasks=evaluate.tasks,
        includes=evaluate.includes,
        data=evaluate.items,
        shots=evaluate.shots,
    output:
        paths.suite,
    log:
        paths.log("prepare_suite", "{suite}"),
    priority: 90
    conda:
        "../envs/data.yaml"
    params:
        options=evaluate.benchmark_options,
    shell:
        "python workflow_scripts/run.py prepare_suite --name {wildcards.suite} {params.options} --output {output} --log {log}"


rule evaluate:
    """Score one checkpoint on one suite."""
    input:
        base=paths.model,
        weights=evaluate.weights,
        suite=paths.suite,
    output:
        scores=paths.scores,
        samples=paths.samples,
    log:
        paths.log("evaluate", "{model}", "{dataset}", "{recipe}", "epoch-{epoch}", "{suite}"),
    wildcard_constraints:
        suite=any_of(evaluate.backend("hf")),
    priority: 20
    conda:
        "../envs/evaluate.yaml"
    threads: study.file.threads
    resources:
        **cluster.resources("evaluate"),
    params:
        settings=evaluate.settings,
    shell:
        "python workflow_scripts/run.py evaluate --base {input.base} --weights {input.weights}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " --suite {input.suite} {params.settings} --threads {threads}"
        " --output-scores {output.scores} --output-samples {output.samples} --log {log}"


rule evaluate_vllm:
    """Score one checkpoint on one suite with vLLM."""
    input:
        base=paths.model,
        weights=evaluate.weights,
        suite=paths.suite,
    output:
        scores=paths.scores,
        samples=paths.samples,
    log:
        paths.log("evaluate_vllm", "{model}", "{dataset}", "{recipe}", "epoch-{epoch}", "{suite}"),
    wildcard_constraints:
        suite=any_of(evaluate.backend("vllm")),
    priority: 20
    conda:
        "../envs/vllm.yaml"
    threads: study.file.threads
    resources:
        **cluster.resources("evaluate_vllm"),
    params:
        settings=evaluate.settings,
    shell:
        "python workflow_scripts/run.py evaluate_vllm --base {input.base} --weights {input.weights}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " --suite {input.suite} {params.settings} --threads {threads}"
        " --output-scores {output.scores} --output-samples {output.samples} --log {log}"


rule rescore:
    """Every score made again from the stored answers, without a model."""
    input:
        evaluate.files(paths.rescored, evaluate.scored),


rule rescore_samples:
    """Score the stored answers of one checkpoint and suite again; replaces its scores and samples, and lists what changed."""
    input:
        scores=paths.scores,
        samples=paths.samples,
        suite=paths.suite,
        code=sources("rescore_samples", *METRICS),
    output:
        paths.rescored,
    log:
        paths.log("rescore_samples", "{model}", "{dataset}", "{recipe}", "epoch-{epoch}", "{suite}"),
    wildcard_constraints:
        suite=any_of(evaluate.scored),
    conda:
        "../envs/evaluate.yaml"
    resources:
        **cluster.resources("rescore_samples"),
    params:
        permission=evaluate.code_option,
    shell:
        "python workflow_scripts/run.py rescore_samples --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe}"
        " --epoch {wildcards.epoch} --suite {input.suite}{params.permission}"
        " --scores {input.scores} --samples {input.samples} --output {output} --log {log}"


# ---------------------------------------------------------------- judged suites: generated where the model runs, judged where the network is


rule generate:
    """The answers of one checkpoint to the questions of a judged suite, both turns."""
    input:
        base=paths.model,
        weights=evaluate.weights,
        suite=paths.suite,
    output:
        paths.answers,
    log:
        paths.log("generate", "{model}", "{dataset}", "{recipe}", "epoch-{epoch}", "{suite}"),
    wildcard_constraints:
        suite=any_of(evaluate.judged),
    priority: 20
    conda:
        "../envs/evaluate.yaml"
    threads: study.file.threads
    resources:
        **cluster.resources("generate"),
    params:
        settings=evaluate.settings,
    shell:
        "python workflow_scripts/run.py generate --base {input.base} --weights {input.weights}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " --suite {input.suite} {params.settings} --threads {threads}"
        " --output {output} --log {log}"


rule judge:
    """Ask the judge about every answer of one checkpoint, and score them."""
    input:
        answers=paths.answers,
        suite=paths.suite,
        judge=evaluate.judge_model,
    output:
        scores=paths.scores,
        samples=paths.samples,
        judgements=paths.judgements,
    log:
        paths.log("judge", "{model}", "{dataset}", "{recipe}", "epoch-{epoch}", "{suite}"),
    wildcard_constraints:
        suite=any_of(evaluate.judged),
    priority: 15
    conda:
        "../envs/evaluate.yaml"
    threads: study.file.threads
    resources:
        judge=evaluate.judge_requests,
        gpu=evaluate.judge_gpus,
    params:
        settings=evaluate.judge,
        seed=study.file.seed,
        state=paths.judgement_state,
    shell:
        "python workflow_scripts/run.py judge --answers {input.answers}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " --suite {input.suite} --judge {params.settings:q} --judge-base {input.judge} --state {params.state}"
        " --seed {params.seed} --threads {threads} --output-scores {output.scores} --output-samples {output.samples}"
        " --output-judgements {output.judgements} --log {log}"


# ---------------------------------------------------------------- contamination: benchmark items that occur in training sets


rule contamination:
    """How far benchmarks occur in training sets, and the scores without those items."""
    input:
        tables.named("contamination", "clean_scores"),


rule measure_contamination:
    """Training sets x benchmarks: items that share a run of 13 words with a training row."""
    input:
        training=data.samples(study.sources),
        benchmarks=data.items(),
        code=sources("measure_contamination"),
    output:
        matrix=tables.named("contamination"),
        flags=paths.contaminated_items,
    log:
        paths.log("measure_contamination"),
    conda:
        "../envs/data.yaml"
    resources:
        **cluster.resources("measure_contamination"),
    shell:
        "python workflow_scripts/run.py measure_contamination --training {input.training} --benchmarks {input.benchmarks}"
        " --output {output.matrix} --output-items {output.flags} --log {log}"


rule score_clean_items:
    """Every checkpoint's score on the items that none of its training sets holds."""
    input:
        evaluate.files(paths.samples),
        study=paths.study,
        flags=paths.contaminated_items,
        code=sources("score_clean_items"),
    output:
        tables.named("clean_scores"),
    log:
        paths.log("score_clean_items"),
    conda:
        "../envs/data.yaml"
    resources:
        **cluster.resources("score_clean_items"),
    shell:
        "python workflow_scripts/run.py score_clean_items --study {input.study} --flags {input.flags} --output {output} --log {log}"
