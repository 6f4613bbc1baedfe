# One job for each fault, sent through the project's own profile with the project's own way of asking for more after a failure.

import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, os.path.abspath("workflow_scripts"))
os.environ["PYTHONPATH"] = os.path.abspath("workflow_scripts")

from sft_atlas.cluster import requests, slurm
from sft_atlas.core import executors
from sft_atlas.study import site

executors.quote_python()

PYTHON = shlex.quote(sys.executable)
SITE = site.load(Path("slurm/site.yaml"))
FAULTS = ("none", "time", "memory", "cancelled", "failing")
REQUEST = requests.JobRequest(gpus=0, mem_mb=500, minutes=60)


def want(wildcards, attempt):
    return requests.scaled_for_retry(REQUEST, slurm.shortages(Path(f"logs/{wildcards.fault}.log"), attempt - 1), SITE)


def mem_mb(wildcards, attempt):
    return want(wildcards, attempt).mem_mb


def runtime(wildcards, attempt):
    return want(wildcards, attempt).minutes


rule all:
    default_target: True
    input:
        expand("out/{fault}", fault=FAULTS),


rule probe:
    output:
        "out/{fault}",
    log:
        "logs/{fault}.log",
    resources:
        mem_mb=mem_mb,
        runtime=runtime,
        slurm_partition="cpu",
        slurm_account="lab",
    shell:
        "{PYTHON} probe.py --fault {wildcards.fault} --mem-mb {resources.mem_mb} --output {output} --log {log}"
