"""The candidates of ``advise``: a base model and the training sets to rank for it, as names of the study or as new entries."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from sft_atlas.study.messages import nearest
from sft_atlas.study.schema import NAME, Advise, Dataset, Model, StudyFile


@dataclass(frozen=True)
class Candidates:
    """Names of the base model and of the training sets, and the entries of those that are not in the study file."""

    model: str
    datasets: tuple[str, ...]
    new_models: dict[str, Model] = field(default_factory=dict)
    new_datasets: dict[str, Dataset] = field(default_factory=dict)


def resolve_candidates(advise: Advise, file: StudyFile) -> tuple[Candidates, list[str]]:
    """The candidates, and what is wrong with them. Without ``datasets`` they are all source datasets of the study."""
    problems: list[str] = []
    new_models: dict[str, Model] = {}
    new_datasets: dict[str, Dataset] = {}
    sources = [name for name, entry in file.datasets.items() if entry.merge is None]

    def add(path: str, value: str, name: str, entry: Model | Dataset, taken: dict, new: dict) -> str:
        if name in taken or name in new:
            problems.append(f"{path}: {value} would be called {name!r}, a name that is in use; rename the file or folder")
        if not re.fullmatch(NAME, name):
            problems.append(
                f"{path}: {value} would be called {name!r}, but names hold letters, digits, '.', '_' and '-', 64 at most, and begin with a letter "
                "or digit; rename the file or folder"
            )
        new[name] = entry
        return name

    def path_of(value: str) -> str:
        # As given, so that a copied clone reads its own file, unless the study looks for relative paths elsewhere.
        return os.path.abspath(value) if file.data_root else os.path.normpath(value)

    def model(value: str) -> str:
        if value in file.models:
            return value
        if os.path.isdir(value):
            return add("advise.model", value, Path(value).resolve().name, Model(path=path_of(value)), file.models, new_models)
        if hub := re.fullmatch(r"([\w.-]+/([\w.-]+))@(\w+)", value):
            return add("advise.model", value, hub[2], Model(hub=hub[1], revision=hub[3]), file.models, new_models)
        known = ", ".join(file.models)
        problems.append(
            f"advise.model: {value!r} is not a base model of the study{nearest(value, file.models)} (defined: {known}), a folder or HUB_ID@REVISION"
        )
        return value

    def dataset(path: str, value: str) -> str:
        if value in sources:
            return value
        if os.path.isfile(value) or any(Path(value, name).exists() for name in ("state.json", "dataset_dict.json")):  # a saved dataset
            name = re.sub(r"\.(jsonl?|csv|tsv|parquet|arrow|feather)(\.(gz|zst|bz2))?$", "", Path(value).name, flags=re.IGNORECASE)
            return add(path, value, name, Dataset(path=path_of(value), allow_fewer=True), file.datasets, new_datasets)
        known = ", ".join(sources)
        problems.append(
            f"{path}: {value!r} is not a source dataset of the study{nearest(value, sources)} (defined: {known}), a file or a saved dataset"
        )
        return value

    names = [dataset(f"advise.datasets[{i}]", value) for i, value in enumerate(dict.fromkeys(advise.datasets))]
    return Candidates(model(advise.model), tuple(names or sources), new_models, new_datasets), problems
