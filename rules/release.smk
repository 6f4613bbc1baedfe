# Model cards of kept checkpoints, and their upload to the model hub. Both are opt-in: `snakemake cards`, `snakemake release`.
#
# requires  weights and scores of checkpoints; for an upload `release` in the study file and a login (`hf auth login`)
# gives     runs/.../epoch-{epoch}/card.md, release.json

KEPT = [c for c in study.checkpoints if c.dataset != studies.BASE and stays(c.recipe, c.epoch)]


localrules:
    write_card,
    release,


rule cards:
    """A model card for every checkpoint whose weights stay."""
    input:
        checkpoint_files("card.md", KEPT),
        passing_files(study.checkpoints),


rule write_card:
    """Write the card of one checkpoint from its provenance and scores."""
    input:
        record=f"{RUN}/train.json",
        base=f"{MODEL}/model.json",
        scores=expand(f"{CHECKPOINT}/scores/{{suite}}.parquet", suite=study.file.suites, allow_missing=True),
        before=expand(f"{RESULTS}/runs/{{model}}/base/base/epoch-0/scores/{{suite}}.parquet", suite=study.file.suites, allow_missing=True),
        code=code("write_card.py", "sft_atlas/cards.py"),
    output:
        f"{CHECKPOINT}/card.md",
    log:
        f"{LOGS}/write_card/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}.log",
    conda:
        "../envs/data.yaml"
    params:
        study=study.name,
    shell:
        "python workflow_scripts/write_card.py --record {input.record} --base {input.base} --scores {input.scores}"
        " --base-scores {input.before} --study {params.study} --epoch {wildcards.epoch} --output {output} --log {log}"


rule release:
    """Say what a release to the hub would upload; upload with `release: {upload: true}`."""
    input:
        cards=checkpoint_files("card.md", KEPT),
        weights=checkpoint_files("weights", KEPT),
        passing=passing_files(study.checkpoints),
        code=code("release.py", "sft_atlas/cards.py"),
    output:
        f"{RESULTS}/release.json",
    log:
        f"{LOGS}/release.log",
    conda:
        "../envs/data.yaml"
    params:
        study=study.name,
        namespace=study.file.release.namespace,
        flags=" ".join(f"--{flag}" for flag in ("private", "upload") if getattr(study.file.release, flag)),
    shell:
        "python workflow_scripts/release.py --cards {input.cards} --study {params.study} --namespace {params.namespace:q} {params.flags}"
        " --output {output} --log {log}"
