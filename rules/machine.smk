# What this machine has and lacks for the study. `make doctor` does the same where Snakemake cannot start.
#
# requires  the study file, slurm/site.yaml
# gives     a table on the terminal; nothing is written but the log


localrules:
    doctor,


rule doctor:
    """Show what this machine has and lacks for the study, with the remedy for each."""
    log:
        paths.log("doctor"),
    conda:
        "../envs/train.yaml"
    params:
        study=tables.plan_json,
        slurm="--slurm" if site else "",
    shell:
        "python workflow_scripts/run.py doctor --study - {params.slurm} --log {log}" " <<'STUDY'\n{params.study}\nSTUDY"
