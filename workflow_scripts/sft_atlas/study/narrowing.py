"""`select`: the part of a study that a call asks for."""

from sft_atlas.study.messages import nearest
from sft_atlas.study.runs import Run
from sft_atlas.study.schema import Select

Key = tuple[str, str, str]


def narrow(runs: dict[Key, Run], select: Select) -> tuple[dict[Key, Run], list[str]]:
    """The runs that match every given part of ``select``, and what is wrong with it: unknown names, or nothing that matches.

    A run keeps its identity, so its results are those of the whole study; of its blocks only those asked for remain.
    """
    existing = {
        "models": dict.fromkeys(run.model for run in runs.values()),
        "datasets": dict.fromkeys(run.dataset for run in runs.values()),
        "recipes": dict.fromkeys(run.recipe for run in runs.values()),
        "blocks": dict.fromkeys(block for run in runs.values() for block in run.blocks),
    }
    problems = [
        f"select.{part}: no run has the {part[:-1]} {name!r}{nearest(name, existing[part])} (there are {', '.join(existing[part])})"
        for part in existing
        for name in getattr(select, part) or ()
        if name not in existing[part]
    ]
    if problems:
        return {}, problems
    wanted = {part: set(getattr(select, part) or names) for part, names in existing.items()}
    matching = {
        key: run.within(wanted["blocks"])
        for key, run in runs.items()
        if run.model in wanted["models"]
        and run.dataset in wanted["datasets"]
        and run.recipe in wanted["recipes"]
        and wanted["blocks"].intersection(run.blocks)
    }
    if not matching:
        parts = [f"{len(names)} {part} ({', '.join(names)})" for part, names in existing.items()]
        return {}, [f"select: matches no run; each of its names exists, but no run has them all. The study has {'; '.join(parts)}"]
    return matching, []
