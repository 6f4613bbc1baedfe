"""A part of the paper's grid, as a study and as planted results: some of its base models, training sets and benchmarks under their names."""

import copy
from pathlib import Path

import pytest

from helpers import synthetic
from sft_atlas.core.provenance import ROOT
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.study import Study, from_config

MODELS = ("olmo-7b", "llama3-8b", "mistral-7b", "qwen2.5-7b", "chinese-llama3-8b", "llama3-swallow-8b")
DATASETS = ("alpaca_cleaned", "lima", "code_alpaca", "magicoder", "openmath", "flan_knowledge")
BENCHMARKS = ("math", "gsm8k", "mbpp", "boolq", "nq-open", "truthfulqa", "mmlu", "mmlu-zh")
ROWS = 256


def config(models: int = len(MODELS), **blocks: dict) -> dict:
    """The study file: single sets and the merged set, by full fine-tuning and LoRA; ``blocks`` in place of these."""
    paper = strict_yaml(Path(ROOT / "config/paper.yaml"))
    recipe = {"rows": ROWS, "epochs": 3, "save_epochs": [1, 2, 3]}
    single = {"models": "*", "datasets": "*", "recipes": ["full", "lora"]}
    part = {key: paper[key] for key in ("allow_code_execution", "on_overlap", "plan")} | {
        "study": "part",
        "models": {name: paper["models"][name] for name in MODELS[:models]},
        "datasets": {name: paper["datasets"][name] for name in (*DATASETS, "all")},
        "benchmarks": {name: paper["benchmarks"][name] for name in BENCHMARKS},
        "suites": {"short": {"benchmarks": list(BENCHMARKS[:5])}, "long": {"benchmarks": list(BENCHMARKS[5:])}},
        "recipes": {name: {**paper["recipes"][name], **recipe} for name in ("full", "lora")},
        "blocks": blocks or {"single": single, "merged": single | {"datasets": ["all"]}},
    }
    return copy.deepcopy(part)


def write(root: Path, part: Study, effect: float = 1.0, seed: int = 0) -> Path:
    """Write planted results of every run: :mod:`helpers.synthetic` says what is planted."""
    groups = {name: entry["group"] for name, entry in part.resolved()["benchmarks"].items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "BENCHMARKS", groups)
        return synthetic.write(root, part.resolved(), effect, seed)


def study(models: int = len(MODELS), **blocks: dict) -> Study:
    return from_config(config(models, **blocks), "part.yaml")
