"""Measure how close every training set is to every benchmark: in words, and in meaning where the study names a sentence encoder."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import write_json, write_table
from sft_atlas.core.provenance import record_provenance
from sft_atlas.measure import similarity


def main(args: argparse.Namespace) -> None:
    """Write one row per training set, benchmark and space (lexical, semantic), and a JSON with provenance beside them."""
    import polars as pl

    from sft_atlas.study.items import sample_items

    def text(instruction: str, answer: str) -> str:
        return instruction if args.text == "instruction" else f"{instruction}\n{answer}"

    training, benchmarks = {}, {}
    for name, path in args.dataset:
        frame = pl.read_parquet(path, columns=["instruction", "response"])
        frame = frame.sample(min(args.rows, frame.height), seed=args.seed)
        training[name] = [text(*row) for row in frame.iter_rows()]
    for name, path in args.benchmark:
        benchmarks[name] = [text(item["instruction"], item["answer"]) for item in sample_items(name, path, args.rows, args.seed)]
    groups = [*training.values(), *benchmarks.values()]
    spaces = {"lexical": similarity.lexical(groups)}
    if args.encoder:
        folder = Path(json.loads(args.encoder.read_text(encoding="utf-8"))["path"])
        spaces["semantic"] = similarity.semantic(groups, folder, args.pooling, args.batch_size, args.max_length)
    rows = []
    for space, vectors in spaces.items():
        named = (
            dict(zip([*training], vectors[: len(training)], strict=True)),
            dict(zip([*benchmarks], vectors[len(training) :], strict=True)),
        )
        rows += [row | {"space": space} for row in similarity.similarities(*named, args.seed)]
    schema = {"dataset": pl.String, "benchmark": pl.String, "space": pl.String} | dict.fromkeys(similarity.MEASURES, pl.Float64)
    frame = pl.DataFrame(rows, schema=schema | {"n_dataset": pl.Int64, "n_benchmark": pl.Int64})
    settings = {key: getattr(args, key) for key in ("rows", "text", "pooling", "batch_size", "max_length", "seed")}
    inputs = dict([*args.dataset, *args.benchmark]) | ({"encoder": args.encoder} if args.encoder else {})
    write_json(args.output.with_suffix(".json"), record_provenance(settings, inputs, spaces=list(spaces), rows=frame.height))
    write_table(args.output, frame)


def named_file(text: str) -> tuple[str, Path]:
    """An argument of the form NAME=FILE."""
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FILE")
    return name, Path(path)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=named_file, action="append", required=True, help="NAME=FILE, repeatable; Parquet")
    parser.add_argument("--benchmark", type=named_file, action="append", required=True, help="NAME=FILE, repeatable; JSON Lines")
    parser.add_argument("--rows", type=int, default=1000, help="texts sampled from each")
    parser.add_argument("--text", choices=("instruction", "full"), default="full", help="the instruction alone, or with its answer")
    parser.add_argument("--encoder", type=Path, help="manifest of the sentence encoder (default: lexical similarity only)")
    parser.add_argument("--pooling", choices=("mean", "cls"), default="mean")
    parser.add_argument("--batch-size", type=int, default=64, help="texts per forward pass")
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a text that the encoder sees")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples")
    parser.add_argument("--output", type=Path, required=True, help="Parquet, one row per training set, benchmark and space")
    return parser


def gpus(args) -> int:
    """GPUs that the job takes in a local run."""
    return 1 if args.encoder else 0
