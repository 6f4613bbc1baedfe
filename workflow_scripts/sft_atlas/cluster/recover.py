"""Jobs that a killed Snakemake left in Slurm: they must not be submitted a second time.

The Snakefile calls this when a call with Slurm starts. It waits for such jobs, records those that succeeded, and restarts the call, which
then finds their results. No job is cancelled.
"""

import os
import re
import shlex
import sys
import time
from pathlib import Path

from sft_atlas.cluster import slurm
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.job import ALLOCATION


def wait_for_earlier_jobs(workflow, warn, seconds: float) -> None:
    """Return at once if no job is left; otherwise wait, asking Slurm every ``seconds``, and restart Snakemake instead of returning."""
    folder = Path(workflow.workdir_init)
    jobs = list(workflow.dag.needrun_jobs())
    left = _earlier_jobs(workflow, jobs, slurm.queued(folder))
    if not left:
        return
    ids = sorted({job_id for job_ids in left.values() for job_id in job_ids}, key=lambda job_id: (len(job_id), job_id))
    for job, job_ids in left.items():
        _check_settings(job, job_ids)
    warn(
        f"{len(ids)} jobs of an earlier call are still in Slurm: {', '.join(ids)}. Waiting for them instead of submitting them again. "
        f"To give them up: scancel {' '.join(ids)} (training then goes on from its last whole epoch)."
    )
    try:
        while set(ids) & {job_id for job_ids in slurm.queued(folder).values() for job_id in job_ids}:
            time.sleep(seconds)
    except KeyboardInterrupt:
        raise AtlasError(f"stopped waiting; the jobs {', '.join(ids)} go on in Slurm") from None
    for job in left:
        if all(os.path.exists(str(path)) for path in job.output) and not workflow.async_run(workflow.persistence.incomplete(job)):
            workflow.async_run(workflow.persistence.finished(job))  # or a later change of its settings would go unnoticed
    warn("They have ended; starting again with their results.")
    workflow.persistence.unlock()
    os.execv(sys.executable, sys.orig_argv)


def _earlier_jobs(workflow, jobs: list, queue: dict[str, list[str]]) -> dict[object, list[str]]:
    """Slurm ids of the jobs that are in the queue, found by the comments that the executor plugin gives them."""
    from snakemake_executor_plugin_slurm.utils import get_job_wildcards

    earlier = {}
    for job in jobs:
        group = workflow.dag.get_job_group(job)
        if group:  # a group is named after its rules, of which some may be done by now
            ids = [job_id for comment, job_ids in queue.items() if comment.startswith(f"rule_{group.groupid}_") for job_id in job_ids]
        else:
            wildcards = get_job_wildcards(job)
            ids = queue.get(f"rule_{job.name}_wildcards_{wildcards}" if wildcards else f"rule_{job.name}", [])
        if ids:
            earlier[job] = ids
    return earlier


def _check_settings(job, ids: list[str]) -> None:
    """Raise AtlasError if a job is running with settings that the study file has no longer. A pending job reads the study when it starts."""
    log = Path(str(job.log[0]))
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    for command, job_id in re.findall(rf"INFO (.*)\n.*{ALLOCATION} (\d+)", text):
        if job_id in ids and not " ".join(shlex.split(job.shellcmd)).endswith(command):
            raise AtlasError(
                f"Slurm's job {job_id} ({job}) is still running with settings that have changed in the study file. "
                f"Cancel it (scancel {job_id}) and start again, or restore the study file until it has ended"
            )
