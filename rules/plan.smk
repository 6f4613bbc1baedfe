# What the study costs before it is run, which runs answer a question, and a target for each of its blocks (`snakemake single`).
#
# requires  the study file, config/devices.yaml, what Snakemake decided about each job; finished results and their logs, if there are any; for a
#           design gains of this study as they are, or the repaired published scores, which it fetches
# gives     plan.md, plan.parquet, rewritten by every `snakemake plan`; watch.html, by `snakemake watch` beside a running Snakemake;
#           design/{question}/design.md, designs.parquet and block.yaml, by `snakemake design`


localrules:
    design,
    plan,
    watch,


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
        published=published_inputs.SINGLE_SETS,
    shell:
        "python workflow_scripts/run.py plan --study - --devices config/devices.yaml --results {params.results} --graph {params.graph}"
        " --published {params.published} --log {log}"
        " <<'STUDY'\n{params.study}\nSTUDY"


rule design:
    """Propose runs that answer a question within a budget, or say that none can and what would."""
    input:
        study=paths.study,
        published=design.published,
        code=sources("design", files=["config/devices.yaml"]),
    output:
        page=paths.fill(paths.design, question=design.name),
        table=paths.fill(paths.design_table, question=design.name),
        block=paths.fill(paths.design_block, question=design.name),
    log:
        paths.log("design", design.name),
    conda:
        "../envs/analyse.yaml"
    params:
        config=design_config,
        options=design.options,
        learned_at=design.learned_at,
        results=lambda wildcards, input: os.path.dirname(input.study),
    shell:
        "python workflow_scripts/run.py design --config - --study {input.study} --devices config/devices.yaml --results {params.results}"
        " {params.options} {params.learned_at} --output-page {output.page} --output-table {output.table} --output-block {output.block} --log {log}"
        " <<'STUDY' && cat {output.page} {output.block}\n{params.config}\nSTUDY"


rule watch:
    """Show how far a running Snakemake is, until it ends: in the terminal, and as results/{study}/watch.html."""
    log:
        paths.log("watch"),
    conda:
        "../envs/train.yaml"
    params:
        results=paths.root,
    shell:
        "exec python workflow_scripts/run.py watch {params.results:q} --log {log}"


for block in study.blocks:

    if workflow.is_rule(block):
        stop(study.source.located(f"blocks.{block}: the name is a rule or target of the workflow; choose another"))

    rule:
        """Train, score and measure the runs of this block."""
        name:
            f"{block}"
        input:
            train.block(block),
