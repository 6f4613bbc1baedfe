"""Two judged benchmarks, and how a checkpoint answers them."""

import json

from sft_atlas.core.provenance import ROOT
from sft_atlas.evaluate.tasks import BenchmarkFiles, SuiteFile

MT = [
    {"instruction": "Write a line.", "answer": "", "turns": ["Write a line.", "Write {another}."], "category": "writing"},
    {
        "instruction": "2+2?",
        "answer": "",
        "turns": ["2+2?", "Twice that?"],
        "category": "math",
        "reference_gpt4": ["4", "8"],
        "reference": ["x", "y"],
    },
    {
        "instruction": "Sort.",
        "answer": "",
        "turns": ["Sort.", "Reverse."],
        "category": "coding",
        "reference_gpt4": None,
        "reference": ["[1]", "[0]"],
    },
]


PAIRS = [{"instruction": f"Do {i}.", "answer": "the baseline " * (i + 1)} for i in range(4)]


def suite(folder):
    """A suite of both benchmarks as a file in ``folder``, and the options that name it and its checkpoint."""
    for name, items in (("mt", MT), ("ae", PAIRS)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    tasks = {"mt": "mt_bench", "ae": "alpaca_eval"}
    files = [BenchmarkFiles(name, ROOT / f"config/benchmarks/{task}.yaml", folder / f"{name}.jsonl") for name, task in tasks.items()]
    SuiteFile("judged", files).write(folder / "judged.json")
    return {"model": "tiny", "dataset": "base", "recipe": "base", "epoch": 0, "suite": folder / "judged.json"}
