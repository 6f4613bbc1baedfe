"""The resolved study as plain JSON: what `results/{study}/study.json` holds, and tables, figures and the plan are made from."""

import json

from sft_atlas.study.runs import Run
from sft_atlas.study.study import Study

LABELLED = ("models", "benchmarks", "recipes", "blocks")


def resolve(study: Study) -> dict[str, object]:
    """Everything of a study with defaults, labels and kept epochs filled in, its datasets with their members, and its runs."""
    entry = json.loads(study.file.model_dump_json(exclude={"select", "plan"}))
    kept = {**{part: entry[part] for part in LABELLED}, "models": study.models}
    labelled = {part: {name: _labelled(entry[part][name], name) for name in names} for part, names in kept.items()}
    for name, recipe in labelled["recipes"].items():
        recipe["save_epochs"] = list(study.kept_epochs(name))
    return {
        **entry,
        **labelled,
        "results": f"results/{study.name}",
        "datasets": {name: _dataset(study, name) for name in study.datasets},
        "runs": [_run(run) for run in study.runs.values()],
    }


def _labelled(entry: dict, name: str) -> dict[str, object]:
    return {**entry, "label": entry.get("label") or name}


def _dataset(study: Study, name: str) -> dict[str, object]:
    own = name in study.file.datasets
    entry = json.loads(study.file.datasets[name].model_dump_json()) if own else {"group": "leave-one-out"}
    members = study.members(name)
    sizes = {"smallest_rows": study.smallest_rows(name)}
    return {**_labelled(entry, name), **sizes, "merged": bool(members), "members": list(members), "without": study.without(name)}


def _run(run: Run) -> dict[str, object]:
    return {
        "model": run.model,
        "dataset": run.dataset,
        "recipe": run.recipe,
        **run.settings.model_dump(include={"method", "rows", "epochs"}),
        "schedule": run.settings.lr_scheduler_type,
        "save_epochs": list(run.settings.kept_epochs),
        "blocks": list(run.blocks),
        "measure_representation": run.measure_representation,
        "settings": run.settings.model_dump(),
    }
