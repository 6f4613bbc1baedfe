"""The candidates of ``advise``: a base model and the training sets to rank for it, as names of the study or as new entries."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from sft_atlas.study.messages import nearest
from sft_atlas.study.paper import DATASETS, KEYS, dataset_key, model_key, set_key
from sft_atlas.study.schema import NAME, Advise, Dataset, Model, StudyFile


@dataclass(frozen=True)
class Candidates:
    """Names of the base model and of the training sets that the study can measure, and the entries of those that are not in the study file.

    ``published_model`` and ``published_datasets`` are names among the published scores; None: no such base model, all training sets.
    ``measurable``: whether there are weights of the base model. ``family`` and ``language`` are None where they are not known.
    """

    model: str
    datasets: tuple[str, ...]
    published_model: str | None = None
    published_datasets: tuple[str, ...] | None = None
    measurable: bool = True
    family: str | None = None
    language: str | None = None
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
        if key := model_key(value):
            return key
        if os.path.isdir(value):
            return add("advise.model", value, Path(value).resolve().name, Model(path=path_of(value)), file.models, new_models)
        if hub := re.fullmatch(r"([\w.-]+/([\w.-]+))@(\w+)", value):
            return add("advise.model", value, hub[2], Model(hub=hub[1], revision=hub[3]), file.models, new_models)
        name = re.fullmatch(r"(?:[\w.-]+/)?([\w.-]+)", value)
        if name and re.fullmatch(NAME, name[1]) and ("/" in value or file.published_csv):  # a name is enough for published scores
            return name[1]
        known = ", ".join(file.models)
        problems.append(
            f"advise.model: {value!r} is not a base model of the study{nearest(value, [*file.models, *KEYS])} (defined: {known}), a folder or "
            f"HUB_ID@REVISION; for advice from the published scores a HUB_ID or one of the paper's is enough ({', '.join(KEYS)})"
        )
        return value

    def dataset(path: str, value: str) -> str:
        if value in sources:
            return value
        if os.path.isfile(value) or any(Path(value, name).exists() for name in ("state.json", "dataset_dict.json")):  # a saved dataset
            name = re.sub(r"\.(jsonl?|csv|tsv|parquet|arrow|feather)(\.(gz|zst|bz2))?$", "", Path(value).name, flags=re.IGNORECASE)
            return add(path, value, name, Dataset(path=path_of(value), allow_fewer=True), file.datasets, new_datasets)
        if key := dataset_key(value):
            return key
        if file.published_csv and value not in file.datasets and re.fullmatch(NAME, value):  # the job knows what that file holds
            return value
        known = ", ".join(sources)
        problems.append(
            f"{path}: {value!r} is not a source dataset of the study{nearest(value, [*sources, *DATASETS])} (defined: {known}), a file or a saved "
            f"dataset, nor one of the paper's training sets ({', '.join(DATASETS)})"
        )
        return value

    names = list(dict.fromkeys(dataset(f"advise.datasets[{i}]", value) for i, value in enumerate(dict.fromkeys(advise.datasets))))
    own = {*sources, *new_datasets}

    def among_published(name: str) -> str | None:
        if name in own:
            return set_key(name, file.datasets[name].hub if name in file.datasets else None)
        return name if name in DATASETS or file.published_csv else None

    published = tuple(dict.fromkeys(key for name in names if (key := among_published(name))))
    name = model(advise.model)
    entry = file.models.get(name) or new_models.get(name)
    key = model_key(entry.hub) if entry and entry.hub else model_key(name)
    traits = dict(zip(("family", "language"), KEYS[key][1:], strict=True)) if key else {}
    for trait in ("family", "language"):
        said = getattr(advise, trait) or (getattr(entry, trait) if entry else None)
        traits[trait] = said if said not in (None, "unknown") else traits.get(trait)
    return Candidates(
        name, tuple(name for name in names if name in own) if names else tuple(sources), key or (None if entry else name),
        published if names else None, entry is not None, **traits, new_models=new_models, new_datasets=new_datasets,
    ), problems  # fmt: skip
