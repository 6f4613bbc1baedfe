"""What `snakemake advise --config model=... datasets=...` asks: taken out of the configuration, and turned into names.

A base model is a name of the study file, a folder, or HUB_ID@REVISION; a training set is a name of the study file or a .jsonl,
.jsonl.gz or .parquet file with the columns instruction and response.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from sft_atlas.core.errors import ConfigError
from sft_atlas.study.messages import nearest

SOURCE = "--config"


@dataclass(frozen=True)
class Question:
    """A base model and candidate training sets: as given, later by name. Empty where nothing is asked."""

    model: str = ""
    datasets: list[str] = field(default_factory=list)


def take(config: dict, written: list[dict]) -> Question:
    """Remove the question from ``config``; its ``datasets`` are again those of the study files ``written``, which the question hid."""
    model, datasets = config.pop("model", None), config.get("datasets")
    if isinstance(datasets, dict) or (datasets is None and model is None):
        return Question(str(model or ""))
    config["datasets"] = {name: entry for part in written for name, entry in (part.get("datasets") or {}).items()}
    names = datasets if isinstance(datasets, list) else str(datasets or "").split(",")
    return Question(str(model or ""), list(dict.fromkeys(str(name).strip() for name in names if str(name).strip())))


def resolve(question: Question, config: dict) -> tuple[Question, dict[str, dict]]:
    """The question by name, and the entries that it adds to the study's ``models`` and ``datasets``; without training sets it asks
    about all that are not merged. ConfigError names what is wrong."""
    problems: list[str] = []
    added: dict[str, dict] = {"models": {}, "datasets": {}}
    if not question.model:
        if question.datasets:
            problems.append("datasets: name the base model as well, snakemake advise --config model=NAME datasets=NAME,NAME")
            raise ConfigError(SOURCE, problems)
        return question, {}
    model = _model(question.model, config, added["models"], problems)
    sources = [name for name, entry in config["datasets"].items() if not (entry or {}).get("merge")]
    datasets = [_dataset(name, sources, config, added["datasets"], problems) for name in question.datasets] or sources
    if problems:
        raise ConfigError(SOURCE, problems)
    return Question(model, datasets), {part: entries for part, entries in added.items() if entries}


def merged(config: dict, added: dict[str, dict]) -> dict:
    """The configuration with the added entries."""
    return {**config, **{part: {**config[part], **entries} for part, entries in added.items()}}


def _model(text: str, config: dict, added: dict, problems: list[str]) -> str:
    if text in config["models"]:
        return text
    if os.path.isdir(text):
        return _add(Path(text).resolve().name, {"path": os.path.abspath(text)}, config["models"], added, "model", problems)
    hub = re.fullmatch(r"([\w.-]+/[\w.-]+)@(\w+)", text)
    if hub:
        return _add(hub[1].split("/")[1], {"hub": hub[1], "revision": hub[2]}, config["models"], added, "model", problems)
    known = list(config["models"])
    problems.append(
        f"model: {text!r} is no base model of the study{nearest(text, known)} (defined: {', '.join(known)}), no folder, and not HUB_ID@REVISION"
    )
    return text


def _dataset(text: str, known: list[str], config: dict, added: dict, problems: list[str]) -> str:
    if text in known:
        return text
    if os.path.isfile(text):
        name = re.sub(r"(\.jsonl|\.parquet)(\.gz)?$", "", Path(text).name)
        return _add(name, {"path": os.path.abspath(text), "allow_fewer": True}, config["datasets"], added, "dataset", problems)
    problems.append(f"datasets: {text!r} is no source dataset of the study{nearest(text, known)} (defined: {', '.join(known)}) and no file")
    return text


def _add(name: str, entry: dict, existing: dict, added: dict, kind: str, problems: list[str]) -> str:
    if name in existing or name in added:
        problems.append(f"{kind}: {next(iter(entry.values()))} would be called {name!r}, which the study has; rename the file or folder")
    added[name] = entry
    return name
