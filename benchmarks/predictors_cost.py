"""Measure analyse_predictors against the number of training sets, on the tables of an invented study of three base models and 8 benchmarks.

    .venv/bin/python benchmarks/predictors_cost.py --times 2 4 17 50

A study of six training sets is written once; its tables are multiplied.
"""

import argparse
import os
import sys
import time

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

from harness import ROOT, machine, print_table

sys.path.insert(0, str(ROOT / "tests"))

from helpers import synthetic
from sft_atlas.analyse import analyse_predictors


def main(args: argparse.Namespace) -> None:
    study, _, frames = synthetic.collected()
    rows = []
    for times in args.times:
        larger, tables = synthetic.multiplied(study, frames, times)
        started = time.process_time()
        result = analyse_predictors.table(tables, larger)
        seconds = time.process_time() - started
        rows.append([str(6 * times), f"{result.height}", f"{seconds:.1f}", f"{seconds / 6 / times:.2f}"])
    print(machine())
    print_table(["training sets", "statistics", "CPU s", "CPU s per set"], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs="+", default=[2, 4, 17, 50], help="how often the six training sets are repeated")
    main(parser.parse_args())
