# Measurements beside scores: perplexity, properties and similarity of training sets; weight change, hidden states and log-likelihoods.
#
# requires  base models, training sets, a checkpoint's weights, benchmark items
# gives     perplexity/{model}/{dataset}.parquet; data/{dataset}/{rows}/properties.parquet; tables/similarity.parquet;
#           runs/.../epoch-{epoch}/layers.parquet, dimension.parquet, likelihood.parquet


rule measure_perplexity:
    """Measure the log-likelihood of a training set under a base model."""
    input:
        base=paths.model,
        data=lambda wildcards: measure.sample(wildcards.dataset),
    output:
        paths.perplexity,
    log:
        paths.log("measure_perplexity", "{model}", "{dataset}"),
    priority: 20
    conda:
        "../envs/train.yaml"
    threads: study.file.threads
    resources:
        **cluster.resources("measure_perplexity"),
    params:
        settings=measure.perplexity,
        batch_size=untracked(study.file.measure.perplexity.batch_size),
        template=train.template,
    shell:
        "python workflow_scripts/run.py measure_perplexity --base {input.base} --data {input.data}"
        " --model {wildcards.model} --dataset {wildcards.dataset} {params.settings} --template {params.template:q}"
        " --batch-size {params.batch_size} --threads {threads} --output {output} --log {log}"


rule measure_dataset:
    """Measure lengths, lexical diversity and near-duplicates of a training set."""
    input:
        data=paths.sample,
        code=sources("measure_dataset"),
    output:
        paths.properties,
    log:
        paths.log("measure_dataset", "{dataset}", "{rows}"),
    priority: 20
    conda:
        "../envs/data.yaml"
    resources:
        **cluster.resources("measure_dataset"),
    shell:
        "python workflow_scripts/run.py measure_dataset --data {input.data} --dataset {wildcards.dataset} --rows {wildcards.rows}"
        " --output {output} --log {log}"


rule measure_similarity:
    """Measure the similarity of training sets and benchmarks: of words and, with an encoder, of meaning."""
    input:
        encoder=paths.encoder if study.file.measure.similarity.encoder else [],
        datasets=measure.compared,
        benchmarks=data.items(),
        code=sources("measure_similarity"),
    output:
        paths.similarity,
    log:
        paths.log("measure_similarity", "{place}"),
    wildcard_constraints:
        place=PLACES,
    priority: 20
    conda:
        "../envs/train.yaml"
    threads: study.file.threads
    resources:
        **cluster.resources("measure_similarity"),
    params:
        options=measure.similarity_options,
        settings=measure.similarity,
        batch_size=untracked(study.file.measure.similarity.batch_size),
    shell:
        "python workflow_scripts/run.py measure_similarity {params.options} {params.settings} --batch-size {params.batch_size}"
        " --output {output} --log {log}"


rule measure_layers:
    """Measure the weight change of a checkpoint by layer and component."""
    input:
        base=paths.model,
        weights=paths.weights,
        trained=paths.record,
    output:
        paths.layers,
    log:
        paths.checkpoint_log("measure_layers"),
    priority: 20
    conda:
        "../envs/data.yaml"
    threads: study.file.threads
    resources:
        **cluster.resources("measure_layers"),
    params:
        ranks="--ranks" if study.file.measure.layers.ranks else "",
    # One BLAS thread in each of the job's own threads; Snakemake's variables would give each of them all cores.
    shell:
        "OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python workflow_scripts/run.py measure_layers --base {input.base}"
        " --weights {input.weights} --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " {params.ranks} --threads {threads} --output {output} --log {log}"


rule measure_representation:
    """Measure the intrinsic dimension of hidden states and the log-likelihood of answers on benchmark items."""
    input:
        base=paths.model,
        weights=evaluate.weights,
        trained=evaluate.trained,
        data=measure.items(),
    output:
        dimension=paths.dimension,
        likelihood=paths.likelihood,
    log:
        paths.checkpoint_log("measure_representation"),
    priority: 20
    conda:
        "../envs/train.yaml"
    threads: study.file.threads
    resources:
        **cluster.resources("measure_representation"),
    params:
        options=measure.items_options,
        settings=measure.representation,
        batch_size=untracked(study.file.measure.representation.batch_size),
    shell:
        "python workflow_scripts/run.py measure_representation --base {input.base} --weights {input.weights}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " {params.options} {params.settings} --batch-size {params.batch_size} --threads {threads}"
        " --output-dimension {output.dimension} --output-likelihood {output.likelihood} --log {log}"
