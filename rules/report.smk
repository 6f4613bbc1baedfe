# What people read: figures, findings, model cards and their release.
#
# requires  study.json, tables/; weights and scores of checkpoints for cards; for an upload `release` in the study file and a login
#           (`hf auth login`)
# gives     figures/{figure}.pdf and .png, findings.md and .html; on request runs/.../epoch-{epoch}/card.md, release.json, ../{study}.tar


localrules:
    write_card,
    release,
    pack,


rule figures:
    """Every figure, and the page of findings."""
    input:
        expand(paths.figure, figure=FIGURES, ending=("pdf", "png")),
        paths.findings,


rule plot:
    """Draw one figure."""
    input:
        tables=report_inputs.tables,
        study=paths.study,
        code=report_inputs.code,
    output:
        pdf=paths.fill(paths.figure, ending="pdf"),
        png=report(
            paths.fill(paths.figure, ending="png"),
            caption="caption.rst",
            category=lambda wildcards: FIGURES[wildcards.figure].category,
            labels={"figure": "{figure}"},
        ),
    log:
        paths.log("plot", "{figure}"),
    conda:
        "../envs/analyse.yaml"
    resources:
        **cluster.resources("plot"),
    params:
        tables=folder_of_tables,
        caption=lambda wildcards: FIGURES[wildcards.figure].caption,
    shell:
        "python workflow_scripts/run.py plot --study {input.study} --figure {wildcards.figure} --tables {params.tables}"
        " --output-pdf {output.pdf} --output-png {output.png} --log {log}"


rule write_findings:
    """Write the page of findings."""
    input:
        tables=tables.named(*REPORTED),
        study=paths.study,
        code=sources("write_findings"),
    output:
        text=paths.findings,
        page=report(paths.findings_page, caption="caption.rst", category="0 Findings", labels={"figure": "findings"}),
    log:
        paths.log("write_findings"),
    conda:
        "../envs/analyse.yaml"
    resources:
        **cluster.resources("write_findings"),
    params:
        tables=folder_of_tables,
        figures=paths.figures,
        caption="Every finding with its number, interval, p, n and figure; made from the tables.",
    shell:
        "python workflow_scripts/run.py write_findings --study {input.study} --tables {params.tables} --figures {params.figures}"
        " --output {output.text} --page {output.page} --log {log}"


# On request, like `release`.
rule cards:
    """A model card for every checkpoint whose weights are kept."""
    input:
        train.files(paths.card, train.kept),
        train.files_before_deletion(study.checkpoints),


rule write_card:
    """Write the model card of one checkpoint."""
    input:
        record=paths.record,
        base=paths.model,
        scores=expand(paths.scores, suite=study.file.suites, allow_missing=True),
        before=expand(paths.base_scores, suite=study.file.suites, allow_missing=True),
        code=sources("write_card"),
    output:
        paths.card,
    log:
        paths.checkpoint_log("write_card"),
    conda:
        "../envs/data.yaml"
    params:
        study=study.name,
        facts=lambda wildcards: (
            study.outside[key].facts_option() if (key := (wildcards.model, wildcards.dataset, wildcards.recipe)) in study.outside else ""
        ),
        order=" ".join(study.file.suites),  # that of the scores, which Snakemake does not see in the input
    shell:
        "python workflow_scripts/run.py write_card --record {input.record} --base {input.base} --scores {input.scores}"
        " --base-scores {input.before} --study {params.study} --epoch {wildcards.epoch} {params.facts} --output {output} --log {log}"


rule release:
    """List what a release would upload, checkpoints and with `release.space` the atlas; upload it if `release.upload` is true."""
    input:
        no_branches,
        cards=train.files(paths.card, train.released),
        weights=train.files(paths.weights, train.released),
        deleted=train.files_before_deletion(study.checkpoints) if study.file.release.checkpoints else [],
        atlas=[paths.atlas] if study.file.release.space else [],
        code=sources("release"),
    output:
        paths.release,
    log:
        paths.log("release"),
    conda:
        "../envs/data.yaml"
    params:
        study=study.name,
        namespace=study.file.release.namespace,
        flags=" ".join(f"--{flag}" for flag in ("private", "upload") if getattr(study.file.release, flag)),
        space=f"--space {study.file.release.space} --atlas {paths.atlas}" if study.file.release.space else "",
        not_ours=train.not_released,
    shell:
        "python workflow_scripts/run.py release --cards {input.cards} --study {params.study} --namespace {params.namespace:q} {params.flags}"
        " {params.space} --not-ours {params.not_ours} --output {output} --log {log}"


rule pack:
    """Pack the results into one archive, with weights unless `pack.weights` is false; say what it holds."""
    log:
        paths.log("pack"),
    conda:
        "../envs/data.yaml"
    params:
        study=tables.pack_json,
        results=paths.root,
        local=data.local_files(),
        weights="--weights" if study.file.pack.weights else "",
        archive=paths.archive,
    shell:
        "python workflow_scripts/run.py pack --results {params.results} --study - --local {params.local:q} {params.weights}"
        " --output {params.archive} --log {log} <<'STUDY'\n{params.study}\nSTUDY"
