"""Check a suite's items against its task files, and list the files that it is made of, with the hash of each, for the jobs that score it."""

import argparse
import json
from pathlib import Path

from sft_atlas.evaluate.item_checks import check_items
from sft_atlas.evaluate.tasks import BenchmarkFiles, SuiteFile
from sft_atlas.study.lm_eval_registry import RegistryTask


def main(args: argparse.Namespace) -> None:
    shots = {name: (Path(path), None if by == "-" else by) for name, path, by in args.shots}
    lengths = {name: int(length) for name, length in args.max_new_tokens}
    registered = {name: RegistryTask(**json.loads(text)) for name, text in args.lm_eval}
    files = [
        BenchmarkFiles(name, Path(task), Path(items), *shots.get(name, (None, None)), lengths.get(name), registered.get(name))
        for name, task, items in args.benchmark
    ]
    for benchmark in files:
        check_items(benchmark)
    SuiteFile(args.name, files).write(args.output)


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--name", required=True, help="name of the suite")
    p.add_argument("--benchmark", nargs=3, action="append", required=True, metavar=("NAME", "TASK", "ITEMS"), help="a benchmark's files")
    help = "examples of a benchmark; BY: the field that they share with the item, or - for none"
    p.add_argument("--shots", nargs=3, action="append", default=[], metavar=("NAME", "FILE", "BY"), help=help)
    p.add_argument(
        "--max-new-tokens", nargs=2, action="append", default=[], metavar=("NAME", "TOKENS"), help="longest answer to a benchmark"
    )
    help = "a task or group of lm-eval's registry, as JSON"
    p.add_argument("--lm-eval", nargs=2, action="append", default=[], metavar=("NAME", "JSON"), help=help)
    p.add_argument("--output", type=Path, required=True, help="JSON")
