# Results that people browse: pages that open in a browser from the disk, without server and network.
#
# requires  study.json, tables/, figures/, and the result files of runs; for the published scores their tables and figures
# gives     atlas/index.html with the other pages, assets/ and data/ beside it; on request atlas.zip; results/published/atlas/ in the same form


localrules:
    atlas_zip,
    write_published_atlas,


rule atlas:
    """The findings, checkpoints and gains as pages for a browser: results/{study}/atlas/index.html."""
    input:
        paths.atlas,


rule write_atlas:
    """Write the pages of the study."""
    input:
        tables=tables.named(*REPORTED, "history", "properties", "similarity"),
        study=paths.study,
        figures=atlas_inputs.figures(paths),
        web=atlas_inputs.WEB,
        code=sources("write_atlas"),
    output:
        paths.atlas,
    log:
        paths.log("write_atlas"),
    conda:
        "../envs/analyse.yaml"
    resources:
        **cluster.resources("write_atlas"),
    params:
        tables=folder_of_tables,
        figures=lambda wildcards, input: os.path.dirname(input.figures[0]),
    shell:
        "python workflow_scripts/run.py write_atlas --study {input.study} --tables {params.tables} --figures {params.figures}"
        " --output {output} --log {log}"


# On request, like `release`.
rule atlas_zip:
    """Put the atlas into one file, results/{study}/atlas.zip, to attach to a paper."""
    input:
        atlas=paths.atlas,
        code=sources("atlas_zip"),
    output:
        paths.atlas_zip,
    log:
        paths.log("atlas_zip"),
    conda:
        "../envs/analyse.yaml"
    params:
        name=f"{study.name}-atlas",
    shell:
        "python workflow_scripts/run.py atlas_zip --atlas {input.atlas} --name {params.name:q} --output {output} --log {log}"


rule write_published_atlas:
    """Write the pages of the published scores."""
    input:
        tables=published_inputs.tables(*published_names.POLICIES),
        figures=published_inputs.figures(*published_names.POLICIES),
        scores=published_inputs.SCORES,
        source=published_inputs.SOURCE,
        repairs=published_inputs.REPAIRS,
        audit=published_inputs.AUDIT,
        claims=published_inputs.CLAIMS,
        web=atlas_inputs.WEB,
        code=sources("write_published_atlas"),
    output:
        published_inputs.ATLAS,
    log:
        f"{LOGS}/write_published_atlas.log",
    conda:
        "../envs/analyse.yaml"
    params:
        tables=lambda wildcards, input: os.path.dirname(input.scores),
    shell:
        "python workflow_scripts/run.py write_published_atlas --scores {input.scores} --source {input.source} --repairs {input.repairs}"
        " --tables {params.tables} --audit {input.audit} --claims {input.claims} --output {output} --log {log}"
