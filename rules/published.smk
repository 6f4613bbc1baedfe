# The scores that the paper's authors released, as a study of its own: nothing here depends on the study in the configuration.
#
# requires  the CSV at its public address, or published_csv
# gives     results/published/: audit.md, claims.md, tables/, figures/
# steps     fetch_published (may use the network) -> tidy_published -> audit_published -> analyse_published -> plot_published, test_claims

PUBLISHED = published_inputs.ROOT


# About a minute of CPU time in all, and the network: not worth a submission.
localrules:
    fetch_published,
    tidy_published,
    audit_published,
    analyse_published,
    plot_published,
    test_claims,


rule published:
    """The published scores: audited, repaired, analysed, drawn, and the paper's claims held against them."""
    input:
        f"{PUBLISHED}/audit.md",
        f"{PUBLISHED}/claims.md",
        expand(f"{PUBLISHED}/tables/{{table}}.parquet", table=["scores", "audit", "repairs", "claims"]),
        published_inputs.tables(*published_names.POLICIES),
        published_inputs.figures(*published_names.POLICIES),


rule fetch_published:
    """Bring the CSV to disk, from its public address or from published_csv."""
    input:
        published_inputs.local_csv(study.file.published_csv),
    output:
        csv=f"{PUBLISHED}/evaluation_result.csv",
        source=f"{PUBLISHED}/evaluation_result.json",
    log:
        f"{PUBLISHED}/logs/fetch_published.log",
    conda:
        "../envs/analyse.yaml"
    params:
        path=data.path_option,
    shell:
        "python workflow_scripts/run.py fetch_published {params.path} --output {output.csv} --log {log}"


rule tidy_published:
    """One row per score, with units; refuse a file that cannot be read so."""
    input:
        csv=f"{PUBLISHED}/evaluation_result.csv",
        code=sources("tidy_published"),
    output:
        published_inputs.SCORES,
    log:
        f"{PUBLISHED}/logs/tidy_published.log",
    conda:
        "../envs/analyse.yaml"
    shell:
        "python workflow_scripts/run.py tidy_published --input {input.csv} --output {output} --log {log}"


rule audit_published:
    """What is wrong with the scores, and what is done about it."""
    input:
        scores=published_inputs.SCORES,
        source=f"{PUBLISHED}/evaluation_result.json",
        code=sources("audit_published"),
    output:
        table=f"{PUBLISHED}/tables/audit.parquet",
        repairs=f"{PUBLISHED}/tables/repairs.parquet",
        page=f"{PUBLISHED}/audit.md",
    log:
        f"{PUBLISHED}/logs/audit_published.log",
    conda:
        "../envs/analyse.yaml"
    shell:
        "python workflow_scripts/run.py audit_published --scores {input.scores} --source {input.source}"
        " --table {output.table} --repairs {output.repairs} --page {output.page} --log {log}"


rule analyse_published:
    """Every analysis under one policy: raw or repaired."""
    input:
        scores=published_inputs.SCORES,
        repairs=f"{PUBLISHED}/tables/repairs.parquet",
        code=sources("analyse_published"),
    output:
        published_inputs.tables("{policy}"),
    log:
        f"{PUBLISHED}/logs/analyse_published/{{policy}}.log",
    wildcard_constraints:
        policy=any_of(published_names.POLICIES),
    conda:
        "../envs/analyse.yaml"
    params:
        folder=folder_of_outputs,
    shell:
        "python workflow_scripts/run.py analyse_published --scores {input.scores} --repairs {input.repairs} --policy {wildcards.policy}"
        " --folder {params.folder} --log {log}"


rule plot_published:
    """Every figure under one policy."""
    input:
        tables=published_inputs.tables("{policy}"),
        scores=published_inputs.SCORES,
        repairs=f"{PUBLISHED}/tables/repairs.parquet",
        code=sources("plot_published"),
    output:
        published_inputs.figures("{policy}"),
    log:
        f"{PUBLISHED}/logs/plot_published/{{policy}}.log",
    wildcard_constraints:
        policy=any_of(published_names.POLICIES),
    conda:
        "../envs/analyse.yaml"
    params:
        tables=folder_of_tables,
        folder=folder_of_outputs,
    shell:
        "python workflow_scripts/run.py plot_published --scores {input.scores} --repairs {input.repairs} --tables {params.tables}"
        " --policy {wildcards.policy} --folder {params.folder} --log {log}"


rule test_claims:
    """The paper's claims against its own scores, before and after the repairs."""
    input:
        tables=published_inputs.tables(*published_names.POLICIES),
        scores=published_inputs.SCORES,
        repairs=f"{PUBLISHED}/tables/repairs.parquet",
        code=sources("test_claims"),
    output:
        table=f"{PUBLISHED}/tables/claims.parquet",
        page=f"{PUBLISHED}/claims.md",
    log:
        f"{PUBLISHED}/logs/test_claims.log",
    conda:
        "../envs/analyse.yaml"
    params:
        tables=published_inputs.folder_of_scores,
    shell:
        "python workflow_scripts/run.py test_claims --scores {input.scores} --repairs {input.repairs} --tables {params.tables}"
        " --table {output.table} --page {output.page} --log {log}"
