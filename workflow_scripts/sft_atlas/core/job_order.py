"""Order between jobs of one Snakemake call that is no reason to run them again.

An input is both in Snakemake: it orders jobs, and when it is made again, so is everything behind it. ``ancient`` does not help: while the
job that makes an ancient file is waiting to run, Snakemake 9.27 looks at no other reason to run the jobs behind it.
"""

from collections.abc import Callable


def run_first(workflow, *files: str, later: Callable[[str], bool]) -> None:
    """In each call, start jobs of the rules for which ``later(name)`` holds only when the jobs that make ``files`` have succeeded.

    A call that runs such a job also makes ``files`` where they are missing or out of date, whatever the targets are. They are no inputs of
    those jobs, so a new one is no reason to run them. Call it once: the order must be added after every reason to run a job is known.
    """
    build = workflow._build_dag

    def build_in_order() -> None:
        build()
        dag = workflow.dag
        waiting = [job for job in dag.needrun_jobs() if later(job.rule.name)]
        if not waiting or not workflow.is_main_process:
            return
        for first in [job for job in [workflow.async_run(_job(dag, file)) for file in files] if dag.needrun(job)]:
            for job in waiting:
                # No file belongs to these edges, so Snakemake does not take them for a reason to run a job.
                dag.dependencies[job][first] = set()
                dag.depending[first][job] = set()
                dag._n_until_ready[job] += 1

    workflow._build_dag = build_in_order


async def _job(dag, file: str):
    """The job that makes ``file``, which joins the graph as a target if it is not in it yet."""
    for job in dag.jobs:
        if file in job.output:
            return job
    job = await dag.update(await dag.file2jobs(file), file=file)
    dag.targetfiles.add(file)
    dag.targetjobs.add(job)
    dag._derived_targetfiles = None  # computed from the targets
    await dag.update_needrun(create_inventory=True)
    return job
