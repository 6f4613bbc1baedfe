# The study, and where its files are. Every other file of rules reads from here; nothing here is a rule.
#
# requires  the configuration (config/demo.yaml unless --configfile names another)
# gives     `study` and the path patterns

import gc
import json
import os
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, os.path.join(workflow.basedir, "workflow_scripts"))

import warm
from sft_atlas import asking, leftovers, local_gpus, resources, scratch, slurm
from sft_atlas import site as sites
from sft_atlas import study as studies
from sft_atlas.complaints import ConfigError, strict_yaml
from sft_atlas.device_table import device as device_of
from sft_atlas.expected import ANALYSED, SUMMARISED, TABLES, sources
from sft_atlas.job import AtlasError
from sft_atlas.planning import Forecast
from sft_atlas.plots import CAPTIONS, FIGURES
from sft_atlas.resolved import resolve
from sft_atlas.suites import task_file, task_sources


def load_study():
    """The study of this call, what `advise` is asked, and the study with what the question adds to it.

    A configuration that cannot be used ends the call here, with what to do about it.
    """
    files = [os.path.relpath(path) for path in workflow.config_settings.configfiles]
    try:
        written = [strict_yaml(Path(path)) for path in files or ["config/demo.yaml"]]
        question = asking.take(config, written)
        source = " + ".join([*(files or ["config/demo.yaml"]), *(["--config"] if workflow.config_settings.config else [])])
        loaded = studies.from_config(config, source)
        loaded.check_paths()
        asked, added = asking.resolve(question, config)
        more = studies.from_config(asking.merged(config, added), source) if added else loaded
        return loaded, asked, more
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


def load_site():
    """Facts about the cluster and its device, where the profile in use names a site file; nothing in local runs."""
    file = sites.named(workflow.resource_settings.default_resources)
    try:
        loaded = sites.load(file) if file else None
        return loaded, device_of(Path("config/devices.yaml"), loaded.device, f"device of {file}") if loaded else None
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


# A dry run of thousands of jobs makes objects by the million that all stay: looking through them for garbage again and again takes long.
gc.set_threshold(100_000, 50, 1000)

# `wider` holds a base model and training sets that only an advice asks for: they can be measured, and are no part of the study.
study, asked, wider = load_study()
site, device = load_site()

warm.put_python_on_path()

if site:
    scratch.announce(site.scratch)
    if workflow.is_main_process:
        # profiles/default says `cores: all`, which would keep the threads of cluster jobs to the number of cores here.
        workflow.resource_settings.cores = sys.maxsize
        workflow.register_resource("_cores", sys.maxsize)

RESULTS = f"results/{study.name}"
LOGS = f"{RESULTS}/logs"
BENCHMARK = f"{RESULTS}/benchmarks/{{benchmark}}"
SUITE = f"{RESULTS}/suites/{{suite}}.json"
MODEL = f"{RESULTS}/models/{{model}}"
DATA = f"{RESULTS}/data/{{dataset}}"
RUN = f"{RESULTS}/runs/{{model}}/{{dataset}}/{{recipe}}"
CHECKPOINT = f"{RUN}/epoch-{{epoch}}"


def any_of(names):
    """A regular expression that matches one of the names, or nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


MERGED = [name for name in study.datasets if study.members(name)]
PRETRAINED = [name for name, model in wider.file.models.items() if model.pretrain]


wildcard_constraints:
    model=any_of(wider.file.models),
    dataset=any_of([*wider.datasets, *asked.datasets, studies.BASE]),
    recipe=any_of([*study.file.recipes, studies.BASE]),
    benchmark=any_of(study.file.benchmarks),
    suite=any_of(study.file.suites),
    table=any_of(TABLES),
    figure=any_of(FIGURES),
    epoch=r"\d+",
    rows=r"\d+",
