"""Measure `snakemake -n` on the paper's grid against a generic Snakefile with the same graph of jobs and files.

    .venv/bin/python benchmarks/dry_run.py --repeats 3

The generic Snakefile is written from what the dry run reports: as many jobs, dependencies, inputs, outputs and logs, and the same
profile, but no configuration, no settings, and a dictionary look-up as its only input function. Three states: nothing exists, everything
exists, one recipe has changed. Files are empty and recorded with `snakemake --touch`, all in a temporary folder.

Prints Markdown for benchmarks/README.md (best of the repeats; the two workflows take turns). Exits with status 1 where the dry run takes
more than 450 MiB or 1.5 times the CPU time of the generic Snakefile.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from harness import copy_workflow, machine, print_table, run, snakemake, take_turns

MAX_MIB = 450
MAX_CPU = 1.5  # times the generic Snakefile
RECIPE = "constant-20k"
# The recipe's change: file, text before, text after. In the generic Snakefile each rule has one parameter, its name.
CHANGES = {
    "generic": ("Snakefile", f'params: "train_{RECIPE}"', 'params: "changed"'),
    "sft-atlas": ("config/paper.yaml", "rows: 20000}", "rows: 20000, learning_rate: 9.0e-6}"),
}
JOB = re.compile(r"^rule (\S+):\n(?:    input: (.*)\n)?(?:    output: (.*)\n)?(?:    log: (.*)\n)?", re.M)
# Snakemake's command without the tenth of a second that it sleeps before it touches the outputs of a job.
FAST_TOUCH = "from snakemake.executors.touch import Executor; Executor.SLEEPING_TIME = 0; from snakemake.cli import main; main()"


class DryRunJob(NamedTuple):
    rule: str
    inputs: list[str]
    outputs: list[str]
    logs: list[str]


class Workflow(NamedTuple):
    folder: Path
    arguments: list[str]

    def dry_run(self):
        return run(snakemake("-n", *self.arguments), cwd=self.folder)


def parse(text: str) -> list[DryRunJob]:
    """The jobs of a dry run."""
    return [DryRunJob(rule, *(files.split(", ") if files else [] for files in lists)) for rule, *lists in JOB.findall(text)]


def count(jobs: list[DryRunJob]) -> dict[str, int]:
    """How many jobs there are, and how many inputs, outputs and logs they name."""
    return {"jobs": len(jobs)} | {kind: sum(len(getattr(job, kind)) for job in jobs) for kind in ("inputs", "outputs", "logs")}


def write_generic(folder: Path, jobs: list[DryRunJob]) -> None:
    """Write a Snakefile with the same graph: job i of a rule has the outputs out/RULE/i.0, out/RULE/i.1, ..."""
    names = {file: f"out/{job.rule}/{i}.{k}" for i, job in enumerate(jobs) for k, file in enumerate(job.outputs)}
    inputs = {i: [names.setdefault(file, f"sources/{len(names)}") for file in job.inputs] for i, job in enumerate(jobs)}
    (folder / "sources").mkdir(parents=True)
    for name in names.values():
        if name.startswith("sources/"):
            (folder / name).touch()
    (folder / "inputs.json").write_text(json.dumps(inputs))
    lines = ["import json", "with open('inputs.json') as file: INPUTS = json.load(file)"]
    for i, job in {job.rule: (i, job) for i, job in enumerate(jobs)}.values():
        outputs = [f"out/{job.rule}/{{i}}.{k}" for k in range(len(job.outputs))]
        logs = [f"logs/{job.rule}/{{i}}.{k}" for k in range(len(job.logs))]
        lines += ["rule:", f'    name: "{job.rule}"', f'    params: "{job.rule}"']
        if outputs:
            lines += ["    input: lambda wildcards: INPUTS[wildcards.i]", f"    output: {outputs}", f"    log: {logs}"]
        else:
            lines += [f'    input: INPUTS["{i}"]', "    default_target: True"]
    (folder / "Snakefile").write_text("\n".join(lines) + "\n")


def make_everything(workflow: Workflow) -> None:
    """Create all outputs as empty files and have Snakemake record them as up to date; it deletes temporary ones."""
    for job in parse(workflow.dry_run().text):
        for output in job.outputs:
            path = workflow.folder / output
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if path.name == "weights" else path.touch()
    touch = ["--touch", "--forceall", "--cores", "500", "--quiet", "all"]
    run([sys.executable, "-c", FAST_TOUCH, *touch, *workflow.arguments], cwd=workflow.folder)


def change_recipe(name: str, workflow: Workflow) -> None:
    """Edit the recipe; ends the benchmark if the text to replace is no longer there."""
    file, before, after = CHANGES[name]
    path = workflow.folder / file
    text = path.read_text(encoding="utf-8")
    if before not in text:
        sys.exit(f"{file} of {name} has no {before!r}: update CHANGES in benchmarks/dry_run.py")
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def measure(state: str, workflows: dict[str, Workflow], repeats: int, exceeded: list[str]):
    """Measure both workflows in one state; yields rows of the table, and adds to ``exceeded`` what is over budget."""
    runs = take_turns({name: workflow.dry_run for name, workflow in workflows.items()}, repeats)
    generic = min(usage.cpu for usage in runs["generic"])
    for name, usages in runs.items():
        wall, cpu, peak = min(u.wall for u in usages), min(u.cpu for u in usages), max(u.peak for u in usages)
        if peak > MAX_MIB or cpu > MAX_CPU * generic:
            exceeded.append(f"{name}, {state}: {peak:.0f} MiB, {cpu / generic:.2f} times the generic Snakefile's CPU time")
        yield state, name, f"{len(parse(usages[0].text)):,}", f"{wall:.1f}", f"{cpu:.1f}", f"{cpu / generic:.2f}", f"{peak:.0f}"


def measure_all(workflows: dict[str, Workflow], repeats: int, exceeded: list[str]):
    yield from measure("nothing exists", workflows, repeats, exceeded)
    for workflow in workflows.values():
        make_everything(workflow)
    yield from measure("everything exists", workflows, repeats, exceeded)
    for name, workflow in workflows.items():
        change_recipe(name, workflow)
    yield from measure("one recipe changed", workflows, repeats, exceeded)


def main(repeats: int) -> None:
    exceeded = []
    with tempfile.TemporaryDirectory(prefix="sft-atlas-") as scratch:
        real, generic = Path(scratch) / "real", Path(scratch) / "generic"
        workflows = {"generic": Workflow(generic, []), "sft-atlas": Workflow(real, ["--configfile", "config/paper.yaml"])}
        copy_workflow(real)
        jobs = parse(workflows["sft-atlas"].dry_run().text)
        write_generic(generic, jobs)
        shutil.copytree(real / "profiles", generic / "profiles")
        counts, written = count(jobs), count(parse(workflows["generic"].dry_run().text))
        if counts != written:
            sys.exit(f"the generic Snakefile has {written} instead of {counts}: correct write_generic")
        print(f"{machine()}. {', '.join(f'{number:,} {kind}' for kind, number in counts.items())}.\n")
        header = ["state", "workflow", "jobs to run", "wall s", "CPU s", "times generic", "peak MiB"]
        print_table(header, measure_all(workflows, repeats, exceeded))
    if exceeded:
        sys.exit(f"over the budget of {MAX_MIB} MiB and {MAX_CPU} times the generic CPU time:\n" + "\n".join(exceeded))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    main(parser.parse_args().repeats)
