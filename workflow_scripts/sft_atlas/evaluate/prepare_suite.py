"""Check a suite's items against its task files, and list the files that it is made of, with the hash of each, for the jobs that score it."""

import argparse
from pathlib import Path

from sft_atlas.evaluate.item_checks import check_items
from sft_atlas.evaluate.tasks import BenchmarkFiles, SuiteFile


def main(args: argparse.Namespace) -> None:
    shots = {name: (Path(path), None if by == "-" else by) for name, path, by in args.shots}
    files = [BenchmarkFiles(name, Path(task), Path(items), *shots.get(name, (None, None))) for name, task, items in args.benchmark]
    for benchmark in files:
        check_items(benchmark)
    SuiteFile(args.name, files).write(args.output)


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--name", required=True, help="name of the suite")
    p.add_argument("--benchmark", nargs=3, action="append", required=True, metavar=("NAME", "TASK", "ITEMS"), help="a benchmark's files")
    help = "examples of a benchmark; BY: the field that they share with the item, or - for none"
    p.add_argument("--shots", nargs=3, action="append", default=[], metavar=("NAME", "FILE", "BY"), help=help)
    p.add_argument("--output", type=Path, required=True, help="JSON")
