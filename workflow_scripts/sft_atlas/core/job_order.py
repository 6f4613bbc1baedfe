"""Order between jobs of one Snakemake call that is no reason to run them again.

An input is both in Snakemake: it orders jobs, and when it is made again, so is everything behind it. ``ancient`` does not help: while the
job that makes an ancient file is waiting to run, Snakemake 9.27 looks at no other reason to run the jobs behind it.

Both functions add edges to the graph to which no file belongs, so that Snakemake does not take them for a reason to run a job.
"""

from collections.abc import Callable, Iterable


def run_first(workflow, *files: str, later: Callable[[str], bool]) -> None:
    """In each call, start jobs of the rules for which ``later(name)`` holds only when the jobs that make ``files`` have succeeded.

    A call that runs such a job also makes ``files`` where they are missing or out of date, whatever the targets are. They are no inputs of
    those jobs, so a new one is no reason to run them. The order must be added after every reason to run a job is known.
    """
    build = workflow._build_dag

    def build_in_order() -> None:
        build()
        dag = workflow.dag
        waiting = [job for job in dag.needrun_jobs() if later(job.rule.name)]
        if not waiting or not workflow.is_main_process:
            return
        for first in [job for job in workflow.async_run(_jobs(dag, files)) if dag.needrun(job)]:
            for job in waiting:
                _add_edge(dag, first, job)

    workflow._build_dag = build_in_order


def run_together(workflow, batches: Callable[[list], dict[str, list]]) -> None:
    """In each call, do for several jobs at once what each would do alone: before them runs a job that makes a file which none of them needs.

    ``batches`` gets the jobs that a call runs, and returns the files to make, each with the jobs that wait for it. The job that makes a file
    waits for everything that these jobs wait for.
    """
    build = workflow._build_dag

    def build_with_batches() -> None:
        build()
        dag = workflow.dag
        chosen = batches(list(dag.needrun_jobs())) if workflow.is_main_process else {}
        if not chosen:
            return
        for first, jobs in zip(workflow.async_run(_jobs(dag, chosen)), chosen.values(), strict=True):
            for job in jobs:
                for needed in [other for other in dag.dependencies[job] if dag.needrun(other) and other is not first]:
                    _add_edge(dag, needed, first)
                _add_edge(dag, first, job)

    workflow._build_dag = build_with_batches


def _add_edge(dag, first, job) -> None:
    """Start ``job`` only after ``first``, which will run."""
    if first not in dag.dependencies[job]:
        dag.dependencies[job][first] = set()
        dag.depending[first][job] = set()
        dag._n_until_ready[job] += 1


async def _jobs(dag, files: Iterable[str]) -> list:
    """The job that makes each file; those that are not in the graph yet join it as targets."""
    found, added = [], False
    for file in files:
        job = next((job for job in dag.jobs if file in job.output), None)
        if job is None:
            job, added = await dag.update(await dag.file2jobs(file), file=file), True
            dag.targetfiles.add(file)
            dag.targetjobs.add(job)
        found.append(job)
    if added:
        dag._derived_targetfiles = None  # computed from the targets
        await dag.update_needrun(create_inventory=True)
    return found
