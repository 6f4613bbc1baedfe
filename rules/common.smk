# The study, the paths of its files, and the functions that all other rules files use. There is no rule here.
#
# requires  the configuration (config/demo.yaml unless --configfile names another)
# gives     `study`, `paths`, and the input functions of every stage

import gc
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, os.path.join(workflow.basedir, "workflow_scripts"))

from sft_atlas import published as published_names
from sft_atlas.analyse.inputs import AdviseInputs
from sft_atlas.atlas import inputs as atlas_inputs
from sft_atlas.cluster import recover, requests
from sft_atlas.cluster.inputs import ClusterInputs
from sft_atlas.core import executors, gpus, job_order, processes, snapshot, warm
from sft_atlas.core.errors import AtlasError, ConfigError
from sft_atlas.core.interrupts import Interrupts
from sft_atlas.core.parameters import untracked
from sft_atlas.core.sources import sources
from sft_atlas.data import first_items, procedural
from sft_atlas.data.inputs import PRESENTATION, DataInputs
from sft_atlas.evaluate.inputs import METRICS, EvaluateInputs
from sft_atlas.measure.inputs import MeasureInputs
from sft_atlas.plan import graph, progress
from sft_atlas.plan.inputs import DesignInputs
from sft_atlas.plan.forecast import Forecast, unlikely_to_move
from sft_atlas.published import inputs as published_inputs
from sft_atlas.report.figures import FIGURES
from sft_atlas.report.inputs import ReportInputs
from sft_atlas.reproduce import inputs as reproduce_inputs
from sft_atlas.study import checks, outside, shared_items
from sft_atlas.study import site as sites
from sft_atlas.study import study as studies
from sft_atlas.study import takeover
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.paths import ANALYSED, ANALYSES, OVERLAPS, PLACES, REPORTED, RESULTS, TABLES, Paths
from sft_atlas.study.places import ConfigSources
from sft_atlas.study.runs import BASE
from sft_atlas.tables.inputs import TableInputs, folder_of_outputs, folder_of_tables
from sft_atlas.train.inputs import TrainInputs
from sft_atlas.train.resume_state import SCRATCH


def stop(error):
    """End the call with a message for people, which no `--quiet` hides; an exception would print lines of the workflow's code below it."""
    print_line(error)
    sys.exit(1)


def load_study():
    """The study of this call. A mistake in the configuration ends the call here, with a message that says what to do."""
    settings = workflow.config_settings
    sources = ConfigSources(
        [os.path.relpath(path) for path in settings.configfiles] or ["config/demo.yaml"], settings.config_args if settings.config else ()
    )
    try:
        for path in sources.files:
            strict_yaml(Path(path))  # Snakemake accepts a key that is there twice
        loaded = studies.from_config(config, sources)
        loaded.check_paths()
        problems = published_inputs.absent_csv(loaded.file.published_csv)
        if workflow.is_main_process:
            problems += [*procedural.problems(loaded.file), *first_items.problems(loaded)]
        if not workflow.deployment_settings.deployment_method:
            problems += filter(None, [checks.tracker_missing(loaded.file.track), checks.bitsandbytes_missing(loaded.file)])
        if problems:
            raise ConfigError(sources, problems)
        return loaded
    except ConfigError as error:
        stop(error)


def branches():
    """A line that names branches and tags of the hub where commits should be; empty where there are none."""
    if not (moving := checks.unpinned(study.file)):
        return ""
    also = f" (so are {graph.first_of(moving[1:])})" if moving[1:] else ""
    text = f"{moving[0]}.revision: a branch or tag{also}, whose content may change; `make pin STUDY=...` writes the commits"
    return study.source.located(text)


def no_branches(wildcards):
    """As an input of a release: end the call before any job runs where the release could not be made again."""
    return stop(f"{line}. A release must be possible to make again") if (line := branches()) else []


def load_site():
    """The site file and its device, if the profile in use names a site file; (None, None) in local runs."""
    file = sites.site_file(workflow.resource_settings.default_resources)
    try:
        loaded = sites.load(file) if file else None
        return loaded, sites.device(Path("config/devices.yaml"), loaded.device, "device", ConfigSources([file])) if loaded else None
    except ConfigError as error:
        stop(error)


def print_line(text):
    """Print for people, whatever --quiet says."""
    print(text, file=sys.stderr, flush=True)


def any_of(names):
    """A regular expression that matches one of the names, or nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def advise_options(wildcards, input):
    """Options of the rule `advise`. Where there is nothing to rank for or to learn from, the call ends here."""
    try:
        return advice.options(wildcards, input)
    except AtlasError as error:
        stop(error)


def design_config(wildcards):
    """Study and question of the rule `design`, as JSON. Without a question the call ends here."""
    try:
        return design.config(tables.plan_json(wildcards))
    except AtlasError as error:
        stop(error)


def wait_for_earlier_jobs():
    """Wait for jobs of an earlier call that are still in Slurm."""
    try:
        recover.wait_for_earlier_jobs(workflow, logger.warning, workflow.executor_settings.init_seconds_before_status_checks)
    except AtlasError as error:
        raise WorkflowError(str(error)) from None


def conda_folder():
    """Where Snakemake creates conda environments."""
    return Path(workflow.deployment_settings.conda_prefix or snapshot.ENVS)


def restore_results():
    """Where the results were copied or moved here, give them their time stamps and records back before Snakemake looks at them."""
    restored = snapshot.restore(Path(paths.root), conda_folder())
    if restored and (message := restored.message(paths.root)):
        logger.info(message)


def begin_run():
    """Note that a run begins, and record it for `snakemake watch`. A run of jobs without outputs, such as `plan`, is not recorded."""
    snapshot.begin(Path(paths.root), conda_folder())
    own = os.path.join(paths.root, "")  # not the published scores, which belong to no study
    if any(str(output).startswith(own) for job in workflow.dag.needrun_jobs() for output in job.output):
        end_of_record.append(
            progress.begin(workflow, logger, paths.root, tables.plan_json(None), site.device if site else study.file.plan.device)
        )


def end_run(success):
    """Write down what the results are now, so that they can be copied or moved. A run of jobs without outputs changed none."""
    if graph.only_watches(workflow):
        return
    for end in end_of_record:
        end(success)
    try:
        snapshot.end(Path(paths.root), any(job.output for job in workflow.dag.needrun_jobs(exclude_finished=False)), conda_folder())
    except OSError as error:
        logger.warning(f"{paths.root}/{snapshot.NAME} was not written, so that copies of the results do not count as finished: {error}")
    if line := interrupts.how_to_go_on():
        print_line(line)


def list_rules(only_targets=False):
    """Print rules for `snakemake --list`: what people ask for first, then jobs, both in the order of the chain."""
    groups = {"Targets": [], "Blocks of the study": [], "Jobs (started by targets)": []}
    for entry in workflow.rules:
        target = (
            "Targets"
            if entry.norun
            or entry.name
            in (
                "advise",
                "atlas_zip",
                "compare_backends",
                "design",
                "doctor",
                "import_scores",
                "pack",
                "plan",
                "release",
                "reproduce",
                "watch",
            )
            else "Jobs (started by targets)"
        )
        groups["Blocks of the study" if entry.name in study.blocks else target].append(entry)
    for title, members in groups.items():
        if members and not (only_targets and title.startswith("Jobs")):
            print(f"{title}:", *(f"  {entry.name:24} {entry.docstring or ''}" for entry in members), "", sep="\n")


workflow.list_rules = list_rules  # Snakemake's own list is alphabetical

# A dry run of thousands of jobs creates millions of objects that live until it ends; frequent garbage collection only slows it down.
gc.set_threshold(100_000, 50, 1000)

interrupts = Interrupts(print_line)
interrupts.before_jobs()
end_of_record = []  # what to call when a recorded run ends

study = load_study()
site, device = load_site()
GPUS = gpus.list_gpus() if site is None else []

warm.put_python_on_path()
executors.quote_python()

if site:
    if site.scratch:
        os.environ[SCRATCH] = site.scratch  # for jobs that start here or through Slurm
    if workflow.is_main_process:
        # profiles/default says `cores: all`, which would limit the threads of cluster jobs to the cores of this machine.
        workflow.resource_settings.cores = sys.maxsize
        workflow.register_resource("_cores", sys.maxsize)

if GPUS and workflow.is_main_process:
    os.environ[gpus.VARIABLE] = ",".join(GPUS)  # from which jobs take free ones
    if "gpu" not in workflow.global_resources:
        workflow.register_resource("gpu", len(GPUS))

paths = Paths(RESULTS.format(study=study.name))

if workflow.is_main_process:
    restore_results()
    for line in (*study.warnings(), *shared_items.warnings(study, Path(paths.root))):
        logger.warning(study.source.located(line))
    if line := branches():
        logger.warning(line)
    if still := unlikely_to_move(study):
        logger.warning(
            f"{len(still)} runs are unlikely to move their model, for example {'/'.join(still[0][0].key)}: their rate and steps change weights by at "
            f"most {max(share for _, share in still):.2g} of their size, less than the rounding of bfloat16. `snakemake plan` lists them."
        )

data = DataInputs(study, paths)
train = TrainInputs(study, paths)
evaluate = EvaluateInputs(study, paths, gpu=bool(GPUS) if site is None else site.device != "cpu")
if workflow.is_main_process and workflow.local_exec and (line := evaluate.sandbox_warning()):
    logger.warning(f"{study.source}: {line}")
measure = MeasureInputs(study, paths)
tables = TableInputs(study, paths)
advice = AdviseInputs(study, paths, (published_inputs.SINGLE_SETS, published_inputs.SOURCE, published_inputs.CSV))
design = DesignInputs(study, paths, (published_inputs.SINGLE_SETS, published_inputs.SOURCE))
report_inputs = ReportInputs(paths)
reproduction = reproduce_inputs.ReproduceInputs(study, paths)
forecast = Forecast(study, device, Path(paths.root)) if site else None
job_requests = requests.JobRequests(forecast, gpus=site.device != "cpu") if site else None
on_gpus = {"train": train.gpus} | dict.fromkeys(("answer_adapters", "evaluate", "generate"), evaluate.gpus)
cluster = ClusterInputs(workflow, site, job_requests, bool(GPUS), on_gpus)

if site and site.device != "cpu" and workflow.is_main_process and (too_large := forecast.too_large()):
    logger.warning(
        f"{len(too_large)} runs do not fit into the memory of their GPUs ({site.device}), for example {'/'.join(too_large[0].key)}: weights, "
        "gradients and Adam's moments alone are larger. Give their recipe more `gpus`, or name a larger device in the site file."
    )


wildcard_constraints:
    model=any_of(study.all_models),
    dataset=any_of([*study.datasets, *study.foreign_datasets, *advice.datasets, BASE]),
    recipe=any_of([*study.recipes, *study.file.checkpoints, BASE]),
    benchmark=any_of(study.file.benchmarks),
    suite=any_of(study.file.suites),
    table=any_of(TABLES),
    figure=any_of(FIGURES),
    epoch=r"\d+",
    rows=r"\d+",
