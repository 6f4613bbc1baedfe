# Statistics that decide: predictors of the gain, weight change by depth, what rules the map of checkpoints. From tables alone.
#
# requires  study.json, tables/
# gives     tables/predictors.parquet, layer_curves, layer_peaks, map_shares, map_effects, map_spread


rule analyses:
    """Every table of statistics."""
    input:
        expand(f"{RESULTS}/tables/{{table}}.parquet", table=ANALYSED),


rule analyse_predictors:
    """Relate perplexity, length, diversity and similarity of training sets to their gains."""
    input:
        tables=expand(f"{RESULTS}/tables/{{table}}.parquet", table=("gains", "perplexity", "properties", "similarity")),
        study=f"{RESULTS}/study.json",
        code=code("analyse_predictors.py", *analysis_modules("predictors", "crossed", "held_out")),
    output:
        f"{RESULTS}/tables/predictors.parquet",
    log:
        f"{LOGS}/analyse_predictors.log",
    conda:
        "../envs/analyse.yaml"
    resources:
        **cluster("analyse_predictors"),
    params:
        tables=tables_folder,
    shell:
        "python workflow_scripts/analyse_predictors.py --study {input.study} --tables {params.tables} --output {output} --log {log}"


rule analyse_layers:
    """Relate weight change by depth to the gain."""
    input:
        tables=expand(f"{RESULTS}/tables/{{table}}.parquet", table=("gains", "layers")),
        study=f"{RESULTS}/study.json",
        code=code("analyse_layers.py", *analysis_modules("layer_curves", "crossed", "predictors")),
    output:
        curves=f"{RESULTS}/tables/layer_curves.parquet",
        peaks=f"{RESULTS}/tables/layer_peaks.parquet",
    log:
        f"{LOGS}/analyse_layers.log",
    conda:
        "../envs/analyse.yaml"
    resources:
        **cluster("analyse_layers"),
    params:
        tables=tables_folder,
    shell:
        "python workflow_scripts/analyse_layers.py --study {input.study} --tables {params.tables}"
        " --output-curves {output.curves} --output-peaks {output.peaks} --log {log}"


rule analyse_map:
    """Partition the distances between checkpoints by base model, training set, method and epoch."""
    input:
        likelihood=f"{RESULTS}/tables/likelihood.parquet",
        study=f"{RESULTS}/study.json",
        code=code("analyse_map.py", *analysis_modules("map_effects", "mapping", "partition", "crossed", "predictors")),
    output:
        shares=f"{RESULTS}/tables/map_shares.parquet",
        effects=f"{RESULTS}/tables/map_effects.parquet",
        spread=f"{RESULTS}/tables/map_spread.parquet",
    log:
        f"{LOGS}/analyse_map.log",
    conda:
        "../envs/analyse.yaml"
    resources:
        **cluster("analyse_map"),
    shell:
        "python workflow_scripts/analyse_map.py --study {input.study} --likelihood {input.likelihood}"
        " --output-shares {output.shares} --output-effects {output.effects} --output-spread {output.spread} --log {log}"
