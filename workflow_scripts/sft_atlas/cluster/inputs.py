"""What jobs ask for: ``**cluster.resources("rule")`` under `resources` of each rule in ``rules/*.smk``.

Without a site file, that is, in local runs, GPUs alone, and those only where the machine has some.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sft_atlas.cluster import requests, slurm
from sft_atlas.study.site import Site

ON_GPU = ("train", "evaluate", "evaluate_vllm", "generate", "measure_perplexity", "measure_representation", "measure_similarity")
ONE_AFTER_THE_OTHER = ("evaluate", "evaluate_vllm", "generate", "measure_layers", "measure_representation")  # jobs of one submission


class ClusterInputs:
    """Resources of jobs. ``gpus_of_run`` gives the GPUs of a training run, ``local_gpus`` says whether local jobs share GPUs."""

    def __init__(self, workflow, site: Site | None, needs: requests.Needs | None, local_gpus: bool, gpus_of_run: Callable):
        self.workflow, self.site, self.needs, self.local_gpus, self.gpus_of_run = workflow, site, needs, local_gpus, gpus_of_run

    def in_group(self, rule: str) -> bool:
        """Whether the profile groups these jobs. All jobs of a group must name the same partition and GPUs."""
        return rule in self.workflow.group_settings.overwrite_groups

    def resources(self, rule: str) -> dict[str, object]:
        """Resources of the jobs of a rule, as functions of wildcards and attempt; in local runs GPUs alone."""
        if self.site is None:
            return {"gpu": self.gpus_of_run if rule == "train" else 1} if self.local_gpus and rule in ON_GPU else {}

        site, known = self.site, {}

        def want(wildcards, attempt=1):
            """The request of a job, worked out once for all its resources."""
            key = (*wildcards, attempt)
            if key not in known:
                known[key] = self._request(rule, wildcards, attempt)
            return known[key]

        def mem_mb(wildcards, attempt):
            return want(wildcards, attempt).mem_mb

        def runtime(wildcards, attempt):
            return want(wildcards, attempt).minutes

        def partition(wildcards):
            need = want(wildcards).partition
            return getattr(site.partitions, need) or (site.partitions.gpu if need == "multi_gpu" else None)

        def gres(wildcards):
            flavour = f"{site.gpu_flavour}:" if site.gpu_flavour else ""
            gpus = want(wildcards).gpus
            return f"gpu:{flavour}{gpus}" if gpus else None

        def cpus(wildcards, threads):
            return max(threads, site.cpus_per_gpu * want(wildcards).gpus)

        asked = {"mem_mb": mem_mb, "runtime": runtime, "slurm_partition": partition, "gres": gres, "cpus_per_task": cpus}
        if rule in ONE_AFTER_THE_OTHER:
            asked["slot"] = 1  # see the profile
        facts = {"slurm_account": site.account, "qos": site.qos, "constraint": site.constraint}
        return asked | {key: value for key, value in facts.items() if value}

    def _request(self, rule: str, wildcards, attempt: int) -> requests.Need:
        need = self.needs.of(rule, wildcards)
        if rule == "measure_layers" and self.in_group(rule):
            need = replace(need, gpus=self.needs.gpus)
        share = self.needs.share(rule, wildcards) if self.in_group(rule) else 1
        if attempt == 1:
            return requests.grown(need, {}, self.site, share)
        log = self.workflow.get_rule(f"train_{wildcards.recipe}" if rule == "train" else rule).expand_log(wildcards)
        return requests.grown(need, slurm.shortages(Path(str(log[0])), attempt - 1), self.site, share)
