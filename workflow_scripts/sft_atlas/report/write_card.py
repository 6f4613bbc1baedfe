"""Write the model card of one checkpoint from its provenance and scores."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import atomic
from sft_atlas.report import model_card


def main(args: argparse.Namespace) -> None:
    import polars as pl

    def rows(paths: list[Path]) -> list[dict]:
        return [row for path in paths for row in pl.read_parquet(path).to_dicts()]

    record, base = (json.loads(path.read_text(encoding="utf-8")) for path in (args.record, args.base))
    text = model_card.card(record, base, rows(args.scores), rows(args.base_scores), args.study, args.epoch)
    with atomic(args.output) as part:
        part.write_text(text, encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--record", type=Path, required=True, help="train.json of the run")
    p.add_argument("--base", type=Path, required=True, help="model.json of the base model")
    p.add_argument("--scores", type=Path, nargs="*", default=[], help="score tables of the checkpoint")
    p.add_argument("--base-scores", type=Path, nargs="*", default=[], help="score tables of the base model")
    p.add_argument("--study", required=True)
    p.add_argument("--epoch", type=int, required=True)
    p.add_argument("--output", type=Path, required=True, help="the card, Markdown")
    return p
