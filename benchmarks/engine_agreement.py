"""Agreement of two inference engines, item by item, on several finished checkpoints of a study: one `snakemake compare_backends` each.

    .venv/bin/python benchmarks/engine_agreement.py --study config/demo.yaml --checkpoints llama-strings/spelling/full llama-strings/spelling/lora

Checkpoints are MODEL/DATASET/RECIPE, each at its last epoch, and of the study's first suite. Run it in a clone that has finished the study;
answers and `backends.md` are written there. Several study files are merged in their order, as by `snakemake --configfile`.
"""

import argparse
import re
from collections.abc import Iterator

from harness import machine, print_table, run, snakemake

NUMBERS = r"\| *([\d,]+) *\| *([\d,]+) *\| *([\d,]+) *\| *(\S+) *\| *(\S+) *\| *(\S+) *\| *(\S+) *\|"  # of compare_backends.HEAD
ROW = re.compile(rf"^\| *(\S+) *{NUMBERS}$", re.MULTILINE)
HEAD = (
    "checkpoint",
    "items",
    "same answers",
    "same scores",
    "mean score 1",
    "mean score 2",
    "largest difference of likelihoods",
    "largest lead that changed",
)


def compared(args: argparse.Namespace, name: str) -> tuple[list[tuple[str, ...]], str]:
    """The rows of the table that `compare_backends` prints for a checkpoint, and the line that says what was compared."""
    model, dataset, recipe = name.split("/")
    asked = f"{{backends: [{', '.join(args.backends)}], model: {model}, dataset: {dataset}, recipe: {recipe}}}"
    text = run(snakemake("compare_backends", "--cores", "1", "--configfile", *args.study, "--config", f"compare_backends={asked}")).text
    if not (rows := ROW.findall(text)):
        raise SystemExit(f"{name}: `compare_backends` printed no table:\n{text[-3000:]}")
    return rows, next(line for line in text.splitlines() if line.startswith(f"{name}, epoch "))


def largest(values) -> float | None:
    """The largest number in a column; None where it has none."""
    return max((float(value) for value in values if value not in ("-", None)), default=None)


def main(args: argparse.Namespace) -> None:
    table, told = [], []

    def rows() -> Iterator[list[str]]:
        for name in args.checkpoints:
            found, what = compared(args, name)
            told.append(what)
            _, *columns = zip(*found, strict=True)
            counts = [[int(number.replace(",", "")) for number in column] for column in columns[:3]]
            scored = [[(n, float(mean)) for n, mean in zip(counts[0], column, strict=True) if mean != "-"] for column in columns[3:5]]
            means = [f"{sum(n * mean for n, mean in pairs) / sum(n for n, _ in pairs):.4f}" for pairs in scored]
            table.append((*map(sum, counts), *map(largest, columns[5:])))
            yield shown(name, means, table[-1])
        *counts, gaps, leads = zip(*table, strict=True)
        yield shown(f"all {len(table)}", ["", ""], (*map(sum, counts), largest(gaps), largest(leads)))

    print_table(list(HEAD), rows())
    print(f"\n{machine()}.", *told, sep="\n")


def shown(name: str, means: list[str], numbers: tuple) -> list[str]:
    """A line of the table."""
    return [name, *(f"{number:,}" for number in numbers[:3]), *means, *("-" if gap is None else f"{gap:.2g}" for gap in numbers[3:])]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", nargs="+", default=["config/demo.yaml"], help="study files")
    parser.add_argument("--checkpoints", nargs="+", required=True, help="MODEL/DATASET/RECIPE")
    parser.add_argument("--backends", nargs=2, default=["hf", "hf-paged"])
    main(parser.parse_args())
