"""Rows of the Open LLM Leaderboard: version 1 (2023-05 to 2024-06) and version 2 (2024-06 to 2025-03), as its tables and its API name columns.

Metrics and numbers of examples are those of its pages about, archive and normalization (huggingface/leaderboards,
docs/source/en/open_llm_leaderboard); columns of version 1 those of the card of open-llm-leaderboard-old/contents. Columns of version 2 and keys of the
API are as public programs read them (evaleval/every_eval_ever, adapters/hfopenllm_v2).
"""

import re
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate.imports import wide_table
from sft_atlas.evaluate.imports.found import Found

# Column -> benchmark, metric and examples. Scores of version 1 are percentages.
VERSION_1 = {
    "ARC": ("arc_challenge", "acc_norm", 25),
    "HellaSwag": ("hellaswag", "acc_norm", 10),
    "MMLU": ("mmlu", "acc", 5),
    "TruthfulQA": ("truthfulqa_mc2", "mc2", 0),
    "Winogrande": ("winogrande", "acc", 5),
    "GSM8K": ("gsm8k", "acc", 5),
}
# Those of version 2 are fractions in "... Raw"; the column without it is rescaled so that chance is 0 and all right is 100.
VERSION_2 = {
    "IFEval": ("ifeval", "mean of inst_level_strict_acc and prompt_level_strict_acc", 0),
    "BBH": ("bbh", "acc_norm", 3),
    "MATH Lvl 5": ("math_lvl_5", "exact_match", 4),
    "GPQA": ("gpqa", "acc_norm", 0),
    "MUSR": ("musr", "acc_norm", 0),
    "MMLU-PRO": ("mmlu_pro", "acc", 5),
}
API = {"ifeval": "IFEval", "bbh": "BBH", "math": "MATH Lvl 5", "gpqa": "GPQA", "musr": "MUSR", "mmlu_pro": "MMLU-PRO"}
RAW, RESCALED = " Raw", "rescaled "
NAMES = ("fullname", "model_name_for_query", "Model", "model")


def read(path: Path, settings: dict) -> Found:
    """Every score of the rows; AtlasError where the columns are those of neither version."""
    table = [(where, _flat(row)) for where, row in wide_table.rows(path)]
    names = list(dict.fromkeys(name for _, row in table for name in row))
    key = settings.get("checkpoint") or next((name for name in NAMES if name in names), None)
    if key is None:
        raise AtlasError(
            f"{path}: no column {' or '.join(NAMES)} names the model; state `checkpoint`. There are {', '.join(map(repr, names[:30]))}"
        )
    wide_table.require(key, names, "checkpoint", path)
    second = [name for name in VERSION_2 if name in names or name + RAW in names]
    first = [name for name in VERSION_1 if name in names]
    if bool(first) == bool(second):
        raise AtlasError(
            f"{path}: has {'columns of both versions' if first else 'no column of scores'} of the Open LLM Leaderboard: v1 {', '.join(VERSION_1)}; v2 "
            f"{', '.join(f'{name}{RAW}' for name in VERSION_2)}. For other tables there is `format: csv`"
        )
    version, columns = _version_2(second, names) if second else _version_1(first)
    stated = settings.get("benchmarks") or {}
    for name in stated:
        wide_table.require(name, [*columns, *names], "benchmarks", path)
    columns = {
        name: {**entry, **{part: value for part, value in stated.get(name, {}).items() if value is not None}}
        for name, entry in columns.items()
        if not stated or name in stated
    }
    found = wide_table.scores(path, table, key, columns, settings.get("unit"), _plain)
    chats = [row.get("Chat Template") for _, row in table for _ in columns]
    for score, chat in zip(found.scores, chats, strict=True):
        score.template = score.template or f"Open LLM Leaderboard {version}" + (", chat template" if str(chat).lower() == "true" else "")
        score.facts = {"dtype": None}
    found.scores = wide_table.once(found.scores, path, found.left_out)
    rescaled = [name for name in second if name + RAW in names and name in names]
    if rescaled:
        found.left_out.append(f"{path}: {', '.join(rescaled)} are rescaled from chance to 100; the scores are those of the columns{RAW}")
    found.version = f"Open LLM Leaderboard {version}"
    return found


def _version_1(names: list[str]) -> tuple[str, dict[str, dict]]:
    return "v1", {name: dict(zip(("benchmark", "metric", "shots"), VERSION_1[name], strict=True)) | {"unit": "percent"} for name in names}


def _version_2(listed: list[str], names: list[str]) -> tuple[str, dict[str, dict]]:
    columns = {}
    for name in listed:
        benchmark, metric, shots = VERSION_2[name]
        raw = name + RAW in names
        columns[name + RAW if raw else name] = {
            "benchmark": benchmark, "metric": metric if raw else RESCALED + metric, "shots": shots, "unit": "fraction" if raw else "percent",
        }  # fmt: skip
    return "v2", columns


def _flat(row: dict) -> dict:
    """A row of the API in the columns of the table: `{"model": {"name": ...}, "evaluations": {"ifeval": {"value": ...}}}`."""
    if not (isinstance(row.get("model"), dict) and isinstance(row.get("evaluations"), dict)):
        return row
    model = row["model"]
    flat = {
        "fullname": model.get("name"),
        "eval_name": row.get("id"),
        "Precision": model.get("precision"),
        "Model sha": model.get("sha"),
        "Chat Template": model.get("has_chat_template"),
    }
    for name, value in row["evaluations"].items():
        if name in API and isinstance(value, dict):
            flat |= {API[name] + RAW: value.get("value"), API[name]: value.get("normalized_score")}
    return flat


def _plain(name: object) -> str:
    """The name of a model, which version 1 wrote as a link."""
    link = re.search(r"<a[^>]*>([^<]*)</a>", str(name))
    return link[1] if link else str(name)
