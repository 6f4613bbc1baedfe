"""Write the reference trajectories: `python tests/helpers/trajectories.py`. Only after a change that is meant to move them.

A trajectory is the loss and gradient norm of every optimiser step of a tiny Llama. It holds across CPUs within a tolerance, so that
a new version of torch, transformers, trl or peft that trains differently is noticed.
"""

import json
import sys
import tempfile
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "invariants/trajectories.json"
RECIPES = {
    "full": {"epochs": 4, "batch_size": 4, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "weight_decay": 0.1},
    "lora": {
        "method": "lora",
        "epochs": 4,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "lora": {"rank": 4, "alpha": 8},
    },
}


def trajectory(case, folder: Path, recipe: str) -> dict[str, list[float]]:
    """Loss, gradient norm and learning rate of each step."""
    facts, _ = case.train(folder / recipe, **RECIPES[recipe])
    steps = [entry for entry in facts["log"] if "loss" in entry]
    return {key: [round(float(step[key]), 6) for step in steps] for key in ("loss", "grad_norm", "learning_rate")}


def main() -> None:
    root = Path(__file__).parents[1]
    sys.path[:0] = [str(root), str(root.parent / "workflow_scripts")]
    from helpers.tiny import make
    from helpers.tokenizer import make_tokenizer
    from sft_atlas.core.provenance import record_provenance

    with tempfile.TemporaryDirectory() as scratch:
        case = make("llama", Path(scratch) / "llama", make_tokenizer())
        found = {recipe: trajectory(case, Path(scratch), recipe) for recipe in RECIPES}
    FILE.write_text(json.dumps({"versions": record_provenance(None)["versions"], "trajectories": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
