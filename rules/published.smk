# The scores that the paper's authors released. Nothing here depends on the study in the configuration.
#
# requires  the CSV, from the authors' repository or named by published_csv
# gives     results/published/: summary.md, audit.md, claims.md, tables/, figures/
# steps     fetch_published (may use the network) -> tidy_published -> audit_published -> analyse_published -> plot_published, test_claims
#           -> summarise_published; audit_published -> select_single_sets, for `advise`

LOGS = f"{published_inputs.ROOT}/logs"


# Two minutes of CPU time in all, and the network: not worth a submission.
localrules:
    fetch_published,
    tidy_published,
    audit_published,
    analyse_published,
    select_single_sets,
    plot_published,
    test_claims,
    summarise_published,


rule published:
    """The authors' published scores: audited, repaired, analysed, plotted and compared with the paper's claims."""
    input:
        published_inputs.SUMMARY,  # which needs everything else, so that what it prints comes last and is not lost in a list of files


rule fetch_published:
    """Fetch the published CSV from its address, or take the file that published_csv names."""
    input:
        path=published_inputs.local_csv(study.file.published_csv),
    output:
        csv=published_inputs.CSV,
        source=published_inputs.SOURCE,
    log:
        f"{LOGS}/fetch_published.log",
    conda:
        "../envs/analyse.yaml"
    shell:
        "python workflow_scripts/run.py fetch_published --path {input.path:q} --output {output.csv} --log {log}"


rule tidy_published:
    """Convert the published CSV to one row per score; refuse a file with another layout."""
    input:
        csv=published_inputs.CSV,
        source=published_inputs.SOURCE,
        code=sources("tidy_published"),
    output:
        published_inputs.SCORES,
    log:
        f"{LOGS}/tidy_published.log",
    conda:
        "../envs/analyse.yaml"
    shell:
        "python workflow_scripts/run.py tidy_published --input {input.csv} --source {input.source} --output {output} --log {log}"


rule audit_published:
    """Find errors in the published scores and write the repairs."""
    input:
        scores=published_inputs.SCORES,
        source=published_inputs.SOURCE,
        code=sources("audit_published"),
    output:
        table=published_inputs.AUDIT,
        repairs=published_inputs.REPAIRS,
        page=published_inputs.AUDIT_PAGE,
    log:
        f"{LOGS}/audit_published.log",
    conda:
        "../envs/analyse.yaml"
    shell:
        "python workflow_scripts/run.py audit_published --scores {input.scores} --source {input.source}"
        " --table {output.table} --repairs {output.repairs} --page {output.page} --log {log}"


rule analyse_published:
    """Run every analysis on the published scores, raw or repaired."""
    input:
        scores=published_inputs.SCORES,
        repairs=published_inputs.REPAIRS,
        code=sources("analyse_published"),
    output:
        published_inputs.tables("{policy}"),
    log:
        f"{LOGS}/analyse_published/{{policy}}.log",
    wildcard_constraints:
        policy=any_of(published_names.POLICIES),
    conda:
        "../envs/analyse.yaml"
    params:
        folder=folder_of_outputs,
    shell:
        "python workflow_scripts/run.py analyse_published --scores {input.scores} --repairs {input.repairs} --policy {wildcards.policy}"
        " --folder {params.folder} --log {log}"


rule select_single_sets:
    """Select the repaired scores that the adviser learns from."""
    input:
        scores=published_inputs.SCORES,
        repairs=published_inputs.REPAIRS,
        code=sources("select_single_sets"),
    output:
        published_inputs.SINGLE_SETS,
    log:
        f"{LOGS}/select_single_sets.log",
    conda:
        "../envs/analyse.yaml"
    shell:
        "python workflow_scripts/run.py select_single_sets --scores {input.scores} --repairs {input.repairs} --output {output} --log {log}"


rule plot_published:
    """Draw every figure of the published scores, raw or repaired."""
    input:
        tables=published_inputs.tables("{policy}"),
        scores=published_inputs.SCORES,
        repairs=published_inputs.REPAIRS,
        code=sources("plot_published"),
    output:
        published_inputs.figures("{policy}"),
    log:
        f"{LOGS}/plot_published/{{policy}}.log",
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
        source=published_inputs.SOURCE,
        code=sources("test_claims"),
    output:
        table=published_inputs.CLAIMS,
        page=published_inputs.CLAIMS_PAGE,
    log:
        f"{LOGS}/test_claims.log",
    conda:
        "../envs/analyse.yaml"
    params:
        tables=lambda wildcards, input: os.path.dirname(input.scores),
    shell:
        "python workflow_scripts/run.py test_claims --scores {input.scores} --source {input.source} --tables {params.tables}"
        " --table {output.table} --page {output.page} --log {log}"


rule summarise_published:
    """Print three findings and where the pages are, when all of them are there."""
    input:
        tables=published_inputs.tables(*published_names.POLICIES),
        figures=published_inputs.figures(*published_names.POLICIES),
        pages=[published_inputs.AUDIT_PAGE, published_inputs.CLAIMS_PAGE, published_inputs.ATLAS],
        scores=published_inputs.SCORES,
        source=published_inputs.SOURCE,
        repairs=published_inputs.REPAIRS,
        claims=published_inputs.CLAIMS,
        audit=published_inputs.AUDIT,
        code=sources("summarise_published"),
    output:
        published_inputs.SUMMARY,
    log:
        f"{LOGS}/summarise_published.log",
    conda:
        "../envs/analyse.yaml"
    params:
        tables=lambda wildcards, input: os.path.dirname(input.scores),
    shell:
        "python workflow_scripts/run.py summarise_published --scores {input.scores} --source {input.source} --repairs {input.repairs}"
        " --tables {params.tables} --table {input.claims} --page {output} --log {log}"
