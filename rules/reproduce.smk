# The paper's claims and figures beside those of the study, from whatever results are there.
#
# requires  the authors' CSV (fetched, or named by published_csv); results of the study as far as there are any: none is an input, so that
#           nothing is trained, scored or measured for it
# gives     results/{study}/reproduce/: index.html, figures/, claims.parquet, comparisons.parquet, missing.parquet


localrules:
    reproduce,


rule reproduce:
    """The paper's claims and figures beside the study's own: verdicts, what is missing, and what that would cost."""
    input:
        tables=published_inputs.tables("repaired"),
        scores=published_inputs.SCORES,
        repairs=published_inputs.REPAIRS,
        paper=reproduce_inputs.PAPER,
        template=reproduce_inputs.TEMPLATE,
        code=sources("reproduce"),
    output:
        page=paths.reproduction,
        claims=paths.reproduced_claims,
        comparisons=paths.reproduced_comparisons,
        missing=paths.reproduced_missing,
        figures=directory(paths.reproduced_figures),
    log:
        paths.log("reproduce"),
    conda:
        "../envs/analyse.yaml"
    params:
        study=tables.plan_json,
        results=lambda wildcards, output: os.path.dirname(os.path.dirname(output.page)),
        tables=folder_of_tables,
        state=reproduction.state,
    shell:
        "python workflow_scripts/run.py reproduce --study - --results {params.results} --devices config/devices.yaml --scores {input.scores}"
        " --repairs {input.repairs} --tables {params.tables} --page {output.page} --claims {output.claims} --comparisons {output.comparisons}"
        " --missing {output.missing} --figures {output.figures} {params.state} --log {log} <<'STUDY'\n{params.study}\nSTUDY"
