"""What Snakemake would run for a study, and why, from the graph that a run would use.

`snakemake plan` has Snakemake build that graph first, keeps what it decided about each job (:class:`Decision`), and then runs the job `plan`
alone. Nothing here decides whether a job must run.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from sft_atlas.core.files import write_text

DONE, TO_DO, AGAIN = "done", "to do", "again"
TARGET, WATCH = "plan", "watch"
FILE = ".snakemake/plan.json"
FILES = {
    "data": "set",
    "benchmarks": "benchmark",
    "runs": "result file",
    "tables": "table",
    "models": "model",
}  # folder of the results -> noun
NAMED = ("set", "benchmark", "model")  # which have a folder of their own
SHOWN = 3
DELETED = "weights that `keep_weights` deleted are needed: "


@dataclass(frozen=True)
class Decision:
    """What Snakemake decided about one job: ``state`` is DONE, TO_DO (it has no complete result) or AGAIN, then with the first causes.

    ``log`` is the job's log file, which tells jobs apart.
    """

    rule: str
    log: str
    state: str
    causes: tuple[str, ...] = ()


def read(file: Path) -> list[Decision]:
    """The decisions that :func:`plan_instead_of_running` wrote."""
    return [Decision(**entry | {"causes": tuple(entry["causes"])}) for entry in json.loads(Path(file).read_text())]


def is_asked(workflow) -> bool:
    """Whether a call is for a plan, so that it must change no result."""
    return workflow.is_main_process and TARGET in (workflow.dag_settings.targets or ())


def only_watches(workflow) -> bool:
    """Whether a call looks at another one that may be running, so that it must leave everything as it is."""
    return workflow.is_main_process and set(workflow.dag_settings.targets or ()) == {WATCH}


def only_looks(workflow) -> bool:
    """Whether a call runs no job of the study."""
    return is_asked(workflow) or only_watches(workflow)


def plan_instead_of_running(workflow, root: str) -> None:
    """Make a call with the target `plan` write what the other targets (default: everything) need to FILE, and run the job `plan` alone.

    ``root``: the folder of results. Call it last, because it builds the graph with everything that other code adds to it.
    """
    prepare, build, options = workflow._prepare_dag, workflow._build_dag, {}

    def prepare_the_others(**given) -> None:
        # With a lock of its own, a call that only looks would end by deleting those of a call beside it: Snakemake 9.27 empties the folder.
        options.update(given | ({"nolock": True} if only_looks(workflow) else {}))
        if is_asked(workflow):
            others = frozenset(workflow.dag_settings.targets) - {TARGET}
            with_targets(others, lambda: prepare(**options))
        else:
            prepare(**options)

    def build_and_keep() -> None:
        build()
        if not is_asked(workflow):
            return
        write_text(Path(FILE), json.dumps([asdict(decision) for decision in Graph(workflow, root).decisions()]))
        with_targets(frozenset({TARGET}), lambda: prepare(**options))
        type(workflow)._build_dag(workflow)

    def with_targets(targets: frozenset[str], action: Callable[[], None]) -> None:
        before = workflow.dag_settings.targets
        workflow.dag_settings.targets = targets
        try:
            action()
        finally:
            workflow.dag_settings.targets = before

    workflow._prepare_dag, workflow._build_dag = prepare_the_others, build_and_keep


class Graph:
    """Snakemake's graph with its reasons put into words."""

    def __init__(self, workflow, root: str):
        self.dag, self.persistence, self.root = workflow.dag, workflow.persistence, root
        self._causes = {}

    def decisions(self) -> list[Decision]:
        """One for each job with outputs or a command; targets have neither."""
        found = []
        for job in self.dag.jobs:
            if job.rule.norun:
                continue
            state = self.state(job)
            causes = tuple(sorted(self.causes(job))) if state == AGAIN else ()
            found.append(Decision(job.rule.name, str(job.log[0]) if job.log else "", state, causes))
        return found

    def state(self, job) -> str:
        """Whether a job is done, to be done, or to be done again."""
        if not self.dag.needrun(job):
            return DONE
        killed = self.dag.reason(job)._incomplete_output
        return AGAIN if not killed and any(os.path.exists(file) for file in job.output) else TO_DO

    # ------------------------------------------------------------ causes

    def causes(self, job) -> frozenset[str]:
        """Why a job runs: its own causes, and those of the jobs that make its inputs anew."""
        if job not in self._causes:
            self._causes[job] = frozenset(self.traced(job) or {str(self.dag.reason(job))[:200]})
        return self._causes[job]

    def traced(self, job, without=None) -> set[str]:
        """The causes of a job that can be put into words, leaving out those that come from the job ``without``, which reads a file of it."""
        found = self.direct(job)
        reason = self.dag.reason(job)
        changed = reason.updated_input_run
        for producer, files in self.dag.dependencies[job].items():
            if producer is not without and self.dag.needrun(producer) and not changed.isdisjoint(files):
                if reason.input_changed and self.state(producer) == TO_DO:
                    continue  # that its file is new is what the changed set of inputs says
                found |= self.causes(producer) if without is None else self.traced(producer, without)
        if not found and without is None:
            found = {DELETED + cause for reader in self.readers_of_deleted(job) for cause in self.traced(reader, without=job)}
        if not found and self.state(job) == TO_DO:
            return {f"{label(job)} has no result yet"}
        return {cause for cause in found if cause.removeprefix(DELETED) == cause or cause.removeprefix(DELETED) not in found}

    def readers_of_deleted(self, job) -> list:
        """Jobs for which temporary files of ``job`` are made again."""
        temporary = {file for file in self.dag.reason(job).missing_output if is_flagged(file, "temp")}
        return [reader for reader, files in self.dag.depending[job].items() if self.dag.needrun(reader) and temporary & files]

    def direct(self, job) -> set[str]:
        """Causes that lie in a job itself, not in jobs before it."""
        reason, found = self.dag.reason(job), set()
        if reason.forced:
            found.add(f"{label(job)} is forced on the command line")
        found |= {f"`{file}` has changed" for file in reason.updated_input - reason.updated_input_run}
        if reason.input_changed:
            found.add(self.input_change(job))
        elif reason.params_changed:  # other inputs are other parameters too
            found.add(settings_change(job.rule.name, reason.params_changed))
        if reason.software_stack_changed:
            found.add(f"the software environment of `{job.rule.name}` has changed")
        if self.state(job) == AGAIN:
            found |= {f"`{file}` is missing" for file in reason.missing_output if not is_flagged(file, "temp")}
        return found

    def input_change(self, job) -> str | None:
        """Which inputs a job has now that it had not when it last ran, and the reverse."""
        before = set()
        for file in job.output:
            before |= set(self.persistence.input(file) or ())
        now = {str(file) for file in job.input}
        parts = [*counted(now - before, self.root, "more"), *counted(before - now, self.root, "fewer")]
        return f"{subject(job)} now has {' and '.join(parts)}" if parts else f"the order of inputs of {subject(job)} has changed"


def is_flagged(file, flag: str) -> bool:
    """Whether the workflow marks a file, as `temp` for example."""
    return bool(getattr(file, "flags", {}).get(flag))


def label(job) -> str:
    """A job's rule and wildcards."""
    return f"`{' '.join([job.rule.name, '/'.join(job.wildcards_dict.values())]).strip()}`"


def subject(job) -> str:
    """What a job makes, where a name says it: the set `all`, the suite `short`; else its rule."""
    names = job.wildcards_dict
    if "model" not in names:
        for kind in ("suite", "table", "dataset"):
            if kind in names:
                return f"`{names[kind]}`" if kind == "dataset" else f"{kind} `{names[kind]}`"
    return f"`{job.rule.name}`"


def counted(files: Iterable[str], root: str, word: str) -> list[str]:
    """`2 sets more (red, blue)` for each kind of file."""
    kinds: dict[str, set[str]] = {}
    for file in files:
        folder, *rest = os.path.relpath(file, root).split(os.sep)
        noun = FILES.get(folder, "file") if rest else "file"
        kinds.setdefault(noun, set()).add(rest[0] if noun in NAMED else file)
    return [
        f"{len(names):,} {noun}{'s' if len(names) > 1 else ''} {word}{f' ({first_of(sorted(names), SHOWN)})' if noun in NAMED else ''}"
        for noun, names in sorted(kinds.items())
    ]


def settings_change(rule: str, change) -> str:
    """What changed among the settings of a rule's job, key by key where they are JSON."""
    old, new = (sorted(map(plain, values)) for values in (change.only_old, change.only_new))
    if len(old) == len(new) == 1 and isinstance(before := as_json(old[0]), dict) and isinstance(after := as_json(new[0]), dict):
        return f"{first_of(differences(before, after), SHOWN)} (`{rule}`)"
    return f"a setting of `{rule}` is {shortened(', '.join(new) or 'left out')}, was {shortened(', '.join(old) or 'left out')}"


def differences(before: dict, after: dict, at: str = "") -> list[str]:
    """`recipes.full.rows is 8, was 16` for each value that differs."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{at}{key}.")
        elif key not in before or key not in after:
            found.append(f"{at}{key} is {'new' if key in after else 'gone'}")
        elif old != new:
            found.append(f"{at}{key} is {shortened(json.dumps(new))}, was {shortened(json.dumps(old))}")
    return found


def plain(value: object) -> str:
    """A recorded parameter as text; Snakemake records texts in quotes."""
    text = str(value)
    return text[1:-1] if text[:1] == text[-1:] and text[:1] in "'\"" and len(text) > 1 else text


def as_json(text: str) -> object:
    """The content of a JSON text, None for any other."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def shortened(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def first_of(names: Iterable[str], most: int = 6, between: str = ", ") -> str:
    """The first names, and how many more there are."""
    names = list(names)
    return between.join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def in_words(causes: Iterable[str]) -> str:
    """Causes as one phrase, those of deleted weights together."""
    plain_ones = [cause for cause in causes if not cause.startswith(DELETED)]
    deleted = [cause.removeprefix(DELETED) for cause in causes if cause.startswith(DELETED)]
    parts = [first_of(plain_ones, SHOWN, "; ")] if plain_ones else []
    return "; ".join([*parts, DELETED + first_of(deleted, SHOWN, "; ")] if deleted else parts)
