# Statistics, from tables alone: predictors of gain, weight change by depth, factors behind the map of checkpoints, noise; and the adviser.
#
# requires  study.json, tables/; for advice a base model (in the study file, a folder, HUB_ID@REVISION, or a name alone) and training sets (in
#           the study file, files, or the paper's). Advice learns from results of this study as they are, and from the repaired published scores,
#           which it fetches where this study has no results.
# gives     tables/predictors.parquet, layer_curves, layer_peaks, map_shares, map_effects, map_spread, noise; advice/{model}/advice.md and advice.parquet


localrules:
    advise,


rule analyses:
    """Every table of statistics."""
    input:
        expand(paths.table, table=ANALYSED),


rule analyse_predictors:
    """Relate perplexity, length, diversity and similarity of training sets to gain."""
    input:
        tables=tables.named("gains", "perplexity", "properties", "similarity"),
        study=paths.study,
        code=sources("analyse_predictors"),
    output:
        tables.named("predictors"),
    log:
        paths.log("analyse_predictors"),
    conda:
        "../envs/analyse.yaml"
    resources:
        **cluster.resources("analyse_predictors"),
    params:
        tables=folder_of_tables,
    shell:
        "python workflow_scripts/run.py analyse_predictors --study {input.study} --tables {params.tables} --output {output} --log {log}"


rule analyse_layers:
    """Relate weight change by layer to gain."""
    input:
        tables=tables.named("gains", "layers"),
        study=paths.study,
        code=sources("analyse_layers"),
    output:
        curves=tables.named("layer_curves"),
        peaks=tables.named("layer_peaks"),
    log:
        paths.log("analyse_layers"),
    conda:
        "../envs/analyse.yaml"
    resources:
        **cluster.resources("analyse_layers"),
    params:
        tables=folder_of_tables,
    shell:
        "python workflow_scripts/run.py analyse_layers --study {input.study} --tables {params.tables}"
        " --output-curves {output.curves} --output-peaks {output.peaks} --log {log}"


rule analyse_map:
    """Partition the distances between checkpoints by base model, training set, method and epoch."""
    input:
        tables=tables.named("likelihood"),
        study=paths.study,
        code=sources("analyse_map"),
    output:
        shares=tables.named("map_shares"),
        effects=tables.named("map_effects"),
        spread=tables.named("map_spread"),
    log:
        paths.log("analyse_map"),
    conda:
        "../envs/analyse.yaml"
    resources:
        **cluster.resources("analyse_map"),
    params:
        tables=folder_of_tables,
    shell:
        "python workflow_scripts/run.py analyse_map --study {input.study} --tables {params.tables}"
        " --output-shares {output.shares} --output-effects {output.effects} --output-spread {output.spread} --log {log}"


rule analyse_noise:
    """Split the variance of gains into base model, training set, method, training once more, and items."""
    input:
        tables=tables.named("gains"),
        study=paths.study,
        code=sources("analyse_noise"),
    output:
        tables.named("noise"),
    log:
        paths.log("analyse_noise"),
    conda:
        "../envs/analyse.yaml"
    resources:
        **cluster.resources("analyse_noise"),
    params:
        tables=folder_of_tables,
    shell:
        "python workflow_scripts/run.py analyse_noise --study {input.study} --tables {params.tables} --output {output} --log {log}"


rule advise:
    """Rank candidate training sets for a base model, by own and published results, or say why they cannot be ranked."""
    input:
        study=paths.study,
        perplexity=advice.files("perplexity"),
        properties=advice.files("properties"),
        similarity=advice.files("similarity"),
        published=advice.published,
        code=sources("advise"),
    output:
        page=paths.fill(paths.advice, model=advice.folder),
        table=paths.fill(paths.advice_table, model=advice.folder),
    log:
        paths.log("advise", advice.folder),
    conda:
        "../envs/analyse.yaml"
    params:
        options=advise_options,
        learned_at=advice.learned_at,
    shell:
        "python workflow_scripts/run.py advise --study {input.study} {params.options} {params.learned_at}"
        " --output-page {output.page} --output-table {output.table} --log {log} && cat {output.page}"
