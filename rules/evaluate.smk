# Scores: one job, and one model load, per checkpoint and suite; LoRA checkpoints of a base model share one load. For judged suites one rule generates answers and another has them judged.
#
# requires  a checkpoint's weights (or a base model), lm-eval task files, benchmark items and examples; for judged suites an endpoint,
#           or a base model as judge
# gives     suites/{suite}.json; runs/.../epoch-{epoch}/: scores/{suite}.parquet, samples/{suite}.parquet, answers/{suite}.parquet,
#           judgements/{suite}.parquet, rescored/{suite}.parquet; lm_eval/; tables/contamination.parquet, contaminated_items.parquet,
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
        suite=any_of(evaluate.scored),
    priority: 20
    conda:
        evaluate.environment
    threads: study.file.threads
    resources:
        **cluster.resources("evaluate"),
        batch_size=evaluate.batch_size,
    params:
        backend=evaluate.backend,
        server=evaluate.server,
        settings=evaluate.settings,
        sampling=evaluate.sampling,
        engine=untracked(evaluate.engine),
        batch_size=untracked(evaluate.batch_size),
        state=untracked(paths.suite_state),
    shell:
        "python workflow_scripts/run.py evaluate --backend {params.backend} {params.engine} --base {input.base} --weights {input.weights}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " --suite {input.suite} {params.settings} --batch-size {params.batch_size} --threads {threads} --state {params.state}"
        " --output-scores {output.scores} --output-samples {output.samples} --log {log}"


rule answer_adapters:
    """Answer a suite with several LoRA checkpoints of a base model, which is loaded once; the jobs that score them find the answers."""
    input:
        base=paths.model,
        suite=paths.suite,
    output:
        paths.adapter_batch,
    log:
        paths.log("answer_adapters", "{model}", "{suite}-{part}"),
    wildcard_constraints:
        part=r"\d+",
    priority: 20
    conda:
        evaluate.environment
    threads: study.file.threads
    resources:
        **cluster.resources("answer_adapters"),
        batch_size=evaluate.batch_size,
    params:
        backend=evaluate.backend,
        settings=evaluate.settings,
        engine=untracked(evaluate.engine),
        batch_size=untracked(evaluate.batch_size),
    shell:
        "python workflow_scripts/run.py answer_adapters --backend {params.backend} {params.engine} --base {input.base}"
        " --model {wildcards.model} --suite {input.suite} {params.settings} --batch-size {params.batch_size} --threads {threads}"
        " --output {output} --log {log}"


# In each call that scores several LoRA checkpoints of a base model, one job answers for them first.
job_order.run_together(workflow, lambda jobs: evaluate.adapter_batches(jobs, **cluster.batching(len(GPUS))))


rule compare_backends:
    """Score one checkpoint with two inference engines; print agreement by item and the largest difference of likelihoods."""
    input:
        unpack(evaluate.comparison_files),
    log:
        paths.log("compare_backends"),
    conda:
        evaluate.comparison_environment
    threads: study.file.threads
    resources:
        **cluster.resources("compare_backends", keys=lambda: vars(evaluate.compared)),
    params:
        options=evaluate.comparison_options,
        page=paths.comparison,
    shell:
        "python workflow_scripts/run.py compare_backends {params.options} --base {input.base} --suite {input.suite} --threads {threads}"
        " --output {params.page} --log {log}"


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


rule lm_eval_results:
    """Scores and samples of every checkpoint in lm-eval's files, `results_*.json` and `samples_*.jsonl`, for its tools."""
    input:
        evaluate.lm_eval_results(),
        evaluate.imported_results(),


rule write_lm_eval_results:
    """Write one checkpoint's scores and samples as lm-eval does, from the stored answers."""
    input:
        base=paths.model,
        suites=evaluate.of_scored_suites(paths.suite),
        scores=evaluate.of_scored_suites(paths.scores),
        samples=evaluate.of_scored_suites(paths.samples),
        code=sources("write_lm_eval_results", *METRICS),
    output:
        directory(paths.lm_eval_results),
    log:
        paths.checkpoint_log("write_lm_eval_results"),
    conda:
        "../envs/evaluate.yaml"
    resources:
        **cluster.resources("write_lm_eval_results"),
    shell:
        "python workflow_scripts/run.py write_lm_eval_results --model {wildcards.model} --dataset {wildcards.dataset}"
        " --recipe {wildcards.recipe} --epoch {wildcards.epoch} --base {input.base} --suites {input.suites} --scores {input.scores}"
        " --samples {input.samples} --output {output} --log {log}"


rule import_scores:
    """Import the scores that others measured, as the study's `imported_scores` names them."""
    input:
        files=evaluate.imported_files(),
        code=sources("import_scores"),
    output:
        tables.imports(paths.imported_scores, paths.imported_samples, paths.imported_record),
    log:
        paths.log("import_scores"),
    conda:
        "../envs/data.yaml"
    resources:
        **cluster.resources("import_scores"),
    params:
        imports=evaluate.imports_json,
        content=data.imported_content,
        folder=paths.imported,
    shell:
        "python workflow_scripts/run.py import_scores --imports - --output {params.folder} --log {log} <<'IMPORTS'\n{params.imports}\nIMPORTS"


rule write_imported_results:
    """Write imported scores in lm-eval's files again; those of other formats give none."""
    input:
        scores=paths.imported_scores,
        samples=paths.imported_samples,
        record=paths.imported_record,
        code=sources("write_imported_results"),
    output:
        directory(paths.imported_results),
    log:
        paths.log("write_imported_results", "{imported}"),
    wildcard_constraints:
        imported=any_of(study.file.imported_scores),
    conda:
        "../envs/data.yaml"
    resources:
        **cluster.resources("write_imported_results"),
    shell:
        "python workflow_scripts/run.py write_imported_results --scores {input.scores} --samples {input.samples} --record {input.record}"
        " --output {output} --log {log}"


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
        evaluate.environment
    threads: study.file.threads
    resources:
        **cluster.resources("generate"),
        batch_size=evaluate.batch_size,
    params:
        backend=evaluate.backend,
        server=evaluate.server,
        settings=evaluate.settings,
        sampling=evaluate.sampling,
        engine=untracked(evaluate.engine),
        batch_size=untracked(evaluate.batch_size),
        state=untracked(paths.suite_state),
    shell:
        "python workflow_scripts/run.py generate --backend {params.backend} {params.engine} --base {input.base} --weights {input.weights}"
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
