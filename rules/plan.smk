# What the study costs before it is run, and a target for each of its blocks (`snakemake single`).
#
# requires  the study file, config/devices.yaml, what Snakemake decided about each job; finished results and their logs, if there are any
# gives     plan.md, plan.parquet, rewritten by every `snakemake plan`


localrules:
    plan,


rule plan:
    """Forecast jobs, device-hours, disk and time; list what is done and what must be repeated."""
    log:
        paths.log("plan"),
    conda:
        "../envs/train.yaml"
    params:
        study=tables.plan_json,
        results=paths.root,
        graph=graph.FILE,
    shell:
        "python workflow_scripts/run.py plan --study - --devices config/devices.yaml --results {params.results} --graph {params.graph} --log {log}"
        " <<'STUDY'\n{params.study}\nSTUDY"


for block in study.blocks:

    if workflow.is_rule(block):
        stop(f"{study.source}: blocks.{block}: the name is a rule or target of the workflow; choose another")

    rule:
        """Train, score and measure the runs of this block."""
        name:
            f"{block}"
        input:
            train.block(block),
