# Fine-tuning: one job per run, which gives all its kept epochs. One rule per recipe and seed, because recipes keep different epochs.
#
# requires  models/{model}/model.json, data/{dataset}/{rows}/train.parquet and holdout.parquet where there is one, the proof of no overlap; for correctness.md a clone with its tests
# gives     runs/{model}/{dataset}/{recipe}/: train.json, history.parquet, preflight.txt, epoch-{epoch}/weights/; on request correctness.md
# state/    of a run lets a killed job resume; it is outside the outputs, which Snakemake deletes on failure
#
# `exec`, because Slurm signals every process of a job: a shell would die while its training saves a checkpoint, and the job with it.


rule train:
    """Every training run of the study."""
    input:
        train.records(),
        train.trained(study.checkpoints),


# Nothing is trained before the proof, but a new benchmark is no reason to train again, so the proof is not an input.
# Nor is anything trained before the items of every suite are checked against its task files.
job_order.run_first(
    workflow, *tables.named("overlap"), *expand(paths.suite, suite=study.file.suites), later=lambda rule: rule in train.rules
)


for recipe in study.recipes:

    rule:
        """Fine-tune one base model on one training set with this recipe, keeping its epochs."""
        name:
            f"train_{recipe}"
        input:
            base=paths.model,
            data=train.data,
            holdout=train.holdout,
        output:
            record=paths.record,
            history=paths.history,
            preflight=paths.preflight,
            weights=[
                directory(path) if train.weights_kept(recipe, epoch) else temp(directory(path)) for epoch, path in train.weights_of(recipe)
            ],
        log:
            paths.log("train", "{model}", "{dataset}", "{recipe}"),
        wildcard_constraints:
            recipe=re.escape(recipe),
        priority: 10
        conda:
            "../envs/train.yaml"
        threads: study.file.threads
        resources:
            **cluster.resources("train", study.recipes[recipe].nodes),
        params:
            settings=untracked(train.settings),
            identity=train.identity,
            template=train.template,
            state=untracked(paths.state),
            run=untracked(paths.run),
            track=untracked(train.track),
        shell:
            "exec python workflow_scripts/run.py train --base {input.base} --data {input.data}"
            " --holdout {input.holdout} --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe}"
            " --settings {params.settings:q} --template {params.template:q} --threads {threads}"
            " --state {params.state} --output {params.run} {params.track} --log {log}"


# On request.
rule correctness:
    """Training invariants, tested on tiny models of eight families, as a page."""
    input:
        paths.invariants,


rule check_invariants:
    """Test the training invariants on tiny models and write a page of the results."""
    input:
        train.invariants(),
        sources("check_invariants", "sft_atlas.train.train", files=train.invariants()),
    output:
        report(paths.invariants, category="Training"),
    log:
        paths.log("check_invariants"),
    conda:
        "../envs/train.yaml"
    resources:
        **cluster.resources("check_invariants"),
    shell:
        "python workflow_scripts/run.py check_invariants --output {output} --log {log}"
