"""Resources of jobs: ``**cluster.resources("rule")`` in each rule of ``rules/*.smk``.

In local runs, which have no site file, jobs request GPUs only, and only where the machine has some.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sft_atlas.cluster import requests, slurm
from sft_atlas.study.site import Site

ON_GPU = (
    "train",
    "answer_adapters",
    "evaluate",
    "generate",
    "measure_perplexity",
    "measure_representation",
    "measure_similarity",
    "compare_backends",
)
# Jobs of a checkpoint run in one allocation, one after the other.
OF_A_CHECKPOINT = ("evaluate", "generate", "measure_layers", "measure_representation")


class ClusterInputs:
    """Resources of jobs. ``gpus``: functions from wildcards to the GPUs of a job, by rule; ``local_gpus`` says whether local jobs share GPUs."""

    def __init__(self, workflow, site: Site | None, job_requests: requests.JobRequests | None, local_gpus: bool, gpus: dict[str, Callable]):
        self.workflow, self.site, self.job_requests = workflow, site, job_requests
        self.local_gpus, self.gpus = local_gpus, gpus

    def in_group(self, rule: str) -> bool:
        """Whether the profile groups the jobs of a rule. All jobs of a group must request the same partition and GPUs."""
        return rule in self.workflow.group_settings.overwrite_groups

    def batching(self, gpus: int) -> dict[str, object]:
        """How many jobs that answer for adapters can run at once, on a machine with ``gpus`` or else its cores; on a cluster how long each may
        take."""
        if self.site is None:
            return {"slots": gpus or int(self.workflow.resource_settings.cores or 1)}
        return {
            "slots": 1,
            "limit": self.site.max_minutes,
            "minutes": lambda job: self.job_requests.of(job.rule.name, job.wildcards).minutes,
        }

    def resources(self, rule: str, nodes: int = 1, keys: Callable[[], dict[str, object]] | None = None) -> dict[str, object]:
        """Resources of the jobs of a rule, which run on ``nodes`` nodes, as functions of wildcards and attempt; in local runs GPUs alone.

        ``keys`` gives model, dataset, recipe, epoch and suite of a job without wildcards.
        """
        if self.site is None:
            return {"gpu": self.gpus.get(rule, 1)} if self.local_gpus and rule in ON_GPU else {}

        site, known = self.site, {}

        def request(wildcards, attempt=1):
            """The request of a job, computed once for all its resources."""
            key = (*wildcards, attempt)
            if key not in known:
                known[key] = self._request(rule, wildcards, attempt, keys() if keys else wildcards)
            return known[key]

        def mem_mb(wildcards, attempt):
            return request(wildcards, attempt).mem_mb

        def runtime(wildcards, attempt):
            return request(wildcards, attempt).minutes

        def partition(wildcards):
            kind = request(wildcards).partition
            return getattr(site.partitions, kind) or (site.partitions.gpu if kind == "multi_gpu" else None)

        def gres(wildcards):
            flavour = f"{site.gpu_flavour}:" if site.gpu_flavour else ""
            gpus = request(wildcards).gpus
            return f"gpu:{flavour}{gpus}" if gpus else None

        def cpus(wildcards, threads):
            return max(threads, site.cpus_per_gpu * request(wildcards).gpus)

        resources = {"mem_mb": mem_mb, "runtime": runtime, "slurm_partition": partition, "gres": gres, "cpus_per_task": cpus}
        if rule in OF_A_CHECKPOINT:
            resources["slot"] = 1  # see the profile
        if rule == "train":
            resources["slurm_extra"] = lambda wildcards: f"--signal=TERM@{request(wildcards).warn_seconds}"
        if nodes > 1:
            # With `mpi` the executor plugin starts the job once, on the first node, and the job starts its processes on all of them with srun.
            # The plugin would take `tasks` for tasks of each GPU.
            resources |= {"mpi": "srun", "nodes": nodes, "tasks": nodes, "tasks_per_gpu": 0}
        facts = {"slurm_account": site.account, "qos": site.qos, "constraint": site.constraint}
        return resources | {key: value for key, value in facts.items() if value}

    def _request(self, rule: str, wildcards, attempt: int, keys) -> requests.JobRequest:
        request = self.job_requests.of(rule, keys)
        if rule in ("evaluate", "generate", "answer_adapters"):
            request = replace(request, gpus=request.gpus and self.gpus[rule](wildcards))
        if rule == "measure_layers" and self.in_group(rule):
            request = replace(request, gpus=self.job_requests.gpus)
        share = self.job_requests.share(rule, wildcards) if self.in_group(rule) else 1
        if attempt == 1:
            return requests.scaled_for_retry(request, {}, self.site, share)
        log = self.workflow.get_rule(f"train_{wildcards.recipe}" if rule == "train" else rule).expand_log(wildcards)
        return requests.scaled_for_retry(request, slurm.shortages(Path(str(log[0])), attempt - 1), self.site, share)
