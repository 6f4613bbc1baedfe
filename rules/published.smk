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
    """The authors' published scores: audited, repaired, analysed, plotted and compared with the paper's claims."""
    input:
        f"{PUBLISHED}/audit.md",
        f"{PUBLISHED}/claims.md",
        expand(f"{PUBLISHED}/tables/{{table}}.parquet", table=["scores", "audit", "repairs", "claims"]),
        published_inputs.tables(*published_names.POLICIES),
        published_inputs.figures(*published_names.POLICIES),


rule fetch_published:
    """Fetch the published CSV from its address, or take the file that published_csv names."""
    input:
        path=published_inputs.local_csv(study.file.published_csv),
    output:
        csv=f"{PUBLISHED}/evaluation_result.csv",
        source=f"{PUBLISHED}/evaluation_result.json",
    log:
        f"{PUBLISHED}/logs/fetch_published.log",
    conda:
        "../envs/analyse.yaml"
    shell:
        "python workflow_scripts/run.py fetch_published --path {input.path:q} --output {output.csv} --log {log}"


rule tidy_published:
    """Convert the published CSV to one row per score; refuse a file with another layout."""
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
    """Find errors in the published scores and write the repairs."""
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
    """Run every analysis on the published scores, raw or repaired."""
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
    """Draw every figure of the published scores, raw or repaired."""
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
    """Test the paper's claims on its published scores, raw and repaired."""
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
