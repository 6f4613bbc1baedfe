"""sft-atlas: fine-tune base models on many datasets, score every checkpoint, and analyse what determines the scores.

    snakemake                                      the study config/demo.yaml
    snakemake --configfile config/smollm2.yaml     another study
    snakemake -n                                   what would run
    snakemake plan                                 what would run, why, and what it costs: device-hours, disk, time
    snakemake plan single                          the same of some targets, which are not run
    snakemake watch                                how far a running Snakemake is, in a second terminal; also as results/{study}/watch.html
    snakemake doctor                               what this machine has and lacks for the study, and the remedies
    snakemake scores                               up to a stage: data, train, scores, tables, analyses, figures
    snakemake single                               one block of the study
    snakemake atlas                                the results as pages for a browser: results/{study}/atlas/index.html
    snakemake atlas_zip                            the same as one file, to attach to a paper
    snakemake published                            the authors' published scores, independent of the study
    snakemake reproduce                            the paper's claims and figures beside the study's, what is missing, and its cost
    snakemake advise --config advise='{model: ...}'   rank training sets for a new base model
    snakemake design --config design='{question: sets, effect: 2, budget: 200}'   which runs can show 2 points in 200 device-hours
    snakemake rescore                              every score again from the stored answers, without a model
    snakemake import_scores                        scores that others measured, as the study's `imported_scores` names them
    snakemake export                               every table as CSV: results/{study}/csv/
    snakemake pack                                 the results as one archive, to be unpacked in another clone

The study is arXiv 2506.14681. To run one job by hand, copy its command from `snakemake -p`.
"""

import os
import shlex
import sys

from snakemake.utils import min_version

min_version("9.27")

# Jobs, study files and results are found from the current directory.
if not os.path.samefile(workflow.basedir, os.curdir):
    print(
        f"start Snakemake in the folder of this Snakefile, without --directory: cd {shlex.quote(str(workflow.basedir))} (now in {os.getcwd()}). "
        "A study file may be anywhere: --configfile PATH",
        file=sys.stderr,
    )
    sys.exit(1)

# Another study replaces the default; Snakemake would merge the two.
if not workflow.config_settings.configfiles:

    configfile: "config/demo.yaml"


include: "rules/common.smk"


rule all:
    """Everything: scores, tables, figures and the page of findings."""
    default_target: True
    input:
        # Named, so that a deleted score or checkpoint is made again although the tables made from it exist.
        train.records(),
        evaluate.files(paths.scores),
        tables.named(*TABLES, *ANALYSED, *OVERLAPS, "similarity"),
        expand(paths.figure, figure=FIGURES, ending=("pdf", "png")),
        paths.findings,
        paths.atlas,


include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/measure.smk"
include: "rules/tables.smk"
include: "rules/analyse.smk"
include: "rules/report.smk"
include: "rules/published.smk"
include: "rules/atlas.smk"
include: "rules/reproduce.smk"
include: "rules/plan.smk"
include: "rules/machine.smk"


takeover.before_the_graph(workflow, study, paths, logger.info, only_look=graph.only_looks)
graph.plan_instead_of_running(workflow, paths.root)


onstart:
    if workflow.local_exec and (refusal := evaluate.sandbox_refusal(workflow.dag.needrun_jobs())):
        raise WorkflowError(refusal)
    # Snakemake 9.27 limits jobs to 100 a second; with that limit each event starts another timer that polls for jobs every second and never
    # ends, until polling alone keeps the main process busy. Cores, or the profile's `jobs`, limit jobs already.
    workflow.scheduler.job_rate_limiter = None
    if not graph.only_watches(workflow):
        begin_run()
    if workflow.local_exec:
        processes.name_to_jobs()
    # Jobs on a cluster or in conda environments cannot share imported libraries.
    if (
        not graph.only_watches(workflow)
        and warm.useful()
        and workflow.local_exec
        and not workflow.deployment_settings.deployment_method
    ):
        rules_to_run = {job.rule.name for job in workflow.dag.needrun_jobs()}
        interrupts.server = warm.start(".snakemake", ".snakemake/warm.log", rules_to_run)
    interrupts.handle(workflow.scheduler, workflow.local_exec)
    if site and workflow.executor_plugin.name == "slurm" and not graph.only_watches(workflow):
        wait_for_earlier_jobs()


onsuccess:
    end_run(success=True)


onerror:
    end_run(success=False)
