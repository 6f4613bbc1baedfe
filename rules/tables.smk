# Tidy tables of the whole study: one collecting job per kind of result; figures and findings read nothing else.
#
# requires  result files of runs, checkpoints and perplexities
# gives     study.json (the resolved study), tables/{table}.parquet with provenance in tables/{table}.json


localrules:
    resolve_study,


rule tables:
    """Every table of the study."""
    input:
        expand(paths.table, table=TABLES),
        tables.named("overlap", "similarity"),


rule resolve_study:
    """Write the study with all settings resolved, for jobs that need the whole study."""
    output:
        paths.study,
    log:
        paths.log("resolve_study"),
    conda:
        "../envs/data.yaml"
    params:
        study=tables.study_json,
    shell:
        "python workflow_scripts/run.py resolve_study --output {output} --log {log} <<'STUDY'\n{params.study}\nSTUDY"


rule collect:
    """Collect one kind of result of all runs into a table."""
    input:
        tables.collected,
        tables.imported,
        study=paths.study,
        code=sources("collect"),
    output:
        paths.table,
    log:
        paths.log("collect", "{table}"),
    priority: 5
    conda:
        "../envs/data.yaml"
    resources:
        **cluster.resources("collect"),
    params:
        imported=tables.imported_folders,
    shell:
        "python workflow_scripts/run.py collect --study {input.study} --table {wildcards.table}{params.imported} --output {output} --log {log}"


rule export:
    """Every table as CSV: results/{study}/csv/."""
    input:
        tables=[*tables.named(*TABLES, *ANALYSED, *OVERLAPS, "similarity"), paths.contaminated_items],
        code=sources("export"),
    output:
        directory(paths.csv),
    log:
        paths.log("export"),
    conda:
        "../envs/data.yaml"
    resources:
        **cluster.resources("export"),
    shell:
        "python workflow_scripts/run.py export --tables {input.tables} --output {output} --log {log}"
