"""Jobs of an earlier call of Snakemake that was killed: they are still in Slurm, and must not be submitted a second time.

Called by the Snakefile when a call with Slurm starts. It waits for such jobs, records those that ended well, and starts the same call
anew, which then finds their results. Nothing is cancelled without being asked.
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


def settle(workflow, say, seconds: float) -> None:
    """Return at once where there is nothing left over; else wait, looking every ``seconds``, and do not return."""
    folder = Path(workflow.workdir_init)
    jobs = list(workflow.dag.needrun_jobs())
    left = _left_over(workflow, jobs, slurm.queued(folder))
    if not left:
        return
    ids = sorted({job_id for found in left.values() for job_id in found}, key=lambda job_id: (len(job_id), job_id))
    for job, found in left.items():
        _check_settings(job, found)
    say(
        f"{len(ids)} jobs of an earlier call are still in Slurm: {', '.join(ids)}. Waiting for them instead of submitting them again. "
        f"To give them up: scancel {' '.join(ids)} (training then goes on from its last whole epoch)."
    )
    try:
        while set(ids) & {job_id for found in slurm.queued(folder).values() for job_id in found}:
            time.sleep(seconds)
    except KeyboardInterrupt:
        raise AtlasError(f"stopped waiting; the jobs {', '.join(ids)} go on in Slurm") from None
    for job in left:
        if all(os.path.exists(str(path)) for path in job.output) and not workflow.async_run(workflow.persistence.incomplete(job)):
            workflow.async_run(workflow.persistence.finished(job))  # or a later change of its settings would go unnoticed
    say("They have ended; starting anew with their results.")
    workflow.persistence.unlock()
    os.execv(sys.executable, sys.orig_argv)


def _left_over(workflow, jobs: list, queue: dict[str, list[str]]) -> dict[object, list[str]]:
    """Slurm ids of those jobs that are in the queue already, by the comments that the executor plugin gives them."""
    from snakemake_executor_plugin_slurm.utils import get_job_wildcards

    found = {}
    for job in jobs:
        group = workflow.dag.get_job_group(job)
        if group:  # a group is named after its rules, of which some may be done by now
            ids = [job_id for comment, of in queue.items() if comment.startswith(f"rule_{group.groupid}_") for job_id in of]
        else:
            wildcards = get_job_wildcards(job)
            ids = queue.get(f"rule_{job.name}_wildcards_{wildcards}" if wildcards else f"rule_{job.name}", [])
        if ids:
            found[job] = ids
    return found


def _check_settings(job, ids: list[str]) -> None:
    """Raise AtlasError where a job runs with another command than the study file now means; one that waits reads the study anew."""
    log = Path(str(job.log[0]))
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    for command, job_id in re.findall(rf"INFO (.*)\n.*{ALLOCATION} (\d+)", text):
        if job_id in ids and not " ".join(shlex.split(job.shellcmd)).endswith(command):
            raise AtlasError(
                f"Slurm's job {job_id} ({job}) is still running with settings that the study file no longer has. "
                f"Give it up (scancel {job_id}) and start again, or let it end with the study file as it was"
            )
