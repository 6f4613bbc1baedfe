"""Pre-train a tiny base model on procedural tasks and save it as an ordinary Hugging Face folder."""

import argparse
from pathlib import Path

from sft_atlas.core.files import atomic
from sft_atlas.study.schema import Pretraining


def main(args: argparse.Namespace) -> None:
    import torch

    from sft_atlas.data import model_manifest, pretraining

    torch.set_num_threads(args.threads)
    settings = Pretraining.model_validate_json(args.settings)
    model, tokenizer, facts = pretraining.pretrain(settings)
    with atomic(args.weights) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
    model_manifest.write_manifest(args.output, args.name, args.weights, "float32", False, {"pretrain": settings.model_dump(), **facts})


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--name", required=True)
    p.add_argument("--settings", required=True, help="the `pretrain` entry of the study file, as JSON")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--weights", type=Path, required=True, help="folder to write")
    p.add_argument("--output", type=Path, required=True, help="manifest to write")
    return p
