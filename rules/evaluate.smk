# Scores: one job, and one model load, per checkpoint and suite. For judged suites one rule generates answers and another has them judged.
#
# requires  a checkpoint's weights (or a base model), lm-eval task files, benchmark items and examples; for judged suites an endpoint,
#           or a base model as judge
# gives     suites/{suite}.json; runs/.../epoch-{epoch}/: scores/{suite}.parquet, samples/{suite}.parquet, answers/{suite}.parquet,
#           judgements/{suite}.parquet, rescored/{suite}.parquet; tables/contamination.parquet, contaminated_items.parquet,
#           clean_scores.parquet
# state/    keeps the answers of each checkpoint by content and the last complete scores, so that a change of a suite asks the model for
#           nothing that it answered before; and every judgement of a judged suite, so that none is paid for twice


localrules:
    prepare_suite,
    judge,


rule scores:
    """Scores of every base model and checkpoint, and everything else measured on weights that are deleted afterwards."""
    input:
        evaluate.files(paths.scores),
        proof=tables.named("overlap"),
        deleted=train.files_before_deletion(study.checkpoints),


rule prepare_suite:
    """Check the items against the task files, and hash every file of a suite into one file, so that its jobs need a single input."""
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
        "../envs/evaluate.yaml"
    params:
        options=evaluate.benchmark_options,
    shell:
        "python workflow_scripts/run.py prepare_suite --name {wildcards.suite} {params.options} --output {output} --log {log}"


rule evaluate:
    """Score one checkpoint on one suite."""
    input:
        base=paths.model,
        weights=evaluate.weights,
        trained=evaluate.trained,
        suite=paths.suite,
    output:
        scores=paths.scores,
        samples=paths.samples,
    log:
        paths.checkpoint_log("evaluate", "{suite}"),
    wildcard_constraints:
        suite=any_of(evaluate.suites_on("hf")),
    priority: 20
    conda:
        "../envs/evaluate.yaml"
    threads: study.file.threads
    resources:
        **cluster.resources("evaluate"),
        batch_size=evaluate.batch_size,
    params:
        backend=lambda wildcards: study.file.suites[wildcards.suite].backend,
        settings=evaluate.settings,
        sampling=evaluate.sampling,
        batch_size=untracked(evaluate.batch_size),
        state=untracked(paths.suite_state),
    shell:
        "python workflow_scripts/run.py evaluate --backend {params.backend} --base {input.base} --weights {input.weights}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " --suite {input.suite} {params.settings} --batch-size {params.batch_size} --threads {threads} --state {params.state}"
        " --output-scores {output.scores} --output-samples {output.samples} --log {log}"


use rule evaluate as evaluate_vllm with:
    log:
        paths.checkpoint_log("evaluate_vllm", "{suite}"),
    wildcard_constraints:
        suite=any_of(evaluate.suites_on("vllm")),
    conda:
        "../envs/vllm.yaml"
    resources:
        **cluster.resources("evaluate_vllm"),
        batch_size=evaluate.batch_size,


rule rescore:
    """Every score, computed again from the stored answers without a model."""
    input:
        evaluate.files(paths.rescored, evaluate.scored),


rule rescore_samples:
    """Score the stored answers of one checkpoint and suite again; list what changed."""
    input:
        scores=paths.scores,
        samples=paths.samples,
        suite=paths.suite,
        code=sources("rescore_samples", *METRICS),
    output:
        paths.rescored,
    log:
        paths.checkpoint_log("rescore_samples", "{suite}"),
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


# Judged suites: answers where the model runs, judgements where the network is.
rule generate:
    """Generate one checkpoint's answers to a judged suite, both turns."""
    input:
        base=paths.model,
        weights=evaluate.weights,
        trained=evaluate.trained,
        suite=paths.suite,
    output:
        paths.answers,
    log:
        paths.checkpoint_log("generate", "{suite}"),
    wildcard_constraints:
        suite=any_of(evaluate.judged),
    priority: 20
    conda:
        "../envs/evaluate.yaml"
    threads: study.file.threads
    resources:
        **cluster.resources("generate"),
        batch_size=evaluate.batch_size,
    params:
        settings=evaluate.settings,
        sampling=evaluate.sampling,
        batch_size=untracked(evaluate.batch_size),
        state=untracked(paths.suite_state),
    shell:
        "python workflow_scripts/run.py generate --base {input.base} --weights {input.weights}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " --suite {input.suite} {params.settings} --batch-size {params.batch_size} --threads {threads} --state {params.state}"
        " --output {output} --log {log}"


rule judge:
    """Let a judge rate one checkpoint's answers, and compute its scores."""
    input:
        answers=paths.answers,
        suite=paths.suite,
        judge=evaluate.judge_model,
    output:
        scores=paths.scores,
        samples=paths.samples,
        judgements=paths.judgements,
    log:
        paths.checkpoint_log("judge", "{suite}"),
    wildcard_constraints:
        suite=any_of(evaluate.judged),
    priority: 15
    conda:
        "../envs/evaluate.yaml"
    threads: study.file.threads
    resources:
        # An endpoint serves one job at a time, which keeps its rate limit; a local judge takes a GPU.
        judge=lambda wildcards: 1 if study.file.suites[wildcards.suite].judge.url else 0,
        gpu=lambda wildcards: 0 if study.file.suites[wildcards.suite].judge.url or not GPUS else 1,
    params:
        settings=untracked(evaluate.judge_settings),
        identity=evaluate.judge_identity,
        seed=study.file.seed,
        state=untracked(paths.judgement_state),
        former=untracked(paths.suite_state),
    shell:
        "python workflow_scripts/run.py judge --answers {input.answers}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " --suite {input.suite} --judge {params.settings:q} --judge-base {input.judge} --state {params.state} --former {params.former}"
        " --seed {params.seed} --threads {threads} --output-scores {output.scores} --output-samples {output.samples}"
        " --output-judgements {output.judgements} --log {log}"


rule contamination:
    """Overlap of benchmarks with training sets, and scores without the overlapping items."""
    input:
        tables.named("contamination", "clean_scores"),


rule measure_contamination:
    """Count the benchmark items that share a run of 13 words with a row of each training set."""
    input:
        training=sorted(data.samples(study.sources)),
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
    """Score every checkpoint on the items that are in none of its training sets."""
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
