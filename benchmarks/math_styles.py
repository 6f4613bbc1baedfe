"""MATH in the twelve styles of the tests: what math-verify alone counts as right, and what we count, which read the answer and let it compare.

    .venv/bin/python benchmarks/math_styles.py --data ../shared/data --every 50

Every output says the right answer in a way that a reader would accept. Where the two differ, an example is printed.
"""

import argparse
import gzip
import json
import sys
from pathlib import Path

from harness import ROOT, machine, print_table

sys.path[:0] = [str(ROOT / "workflow_scripts"), str(ROOT / "tests")]


def alone(gold: str, output: str) -> bool:
    """math-verify as its README uses it: it reads both texts and compares."""
    from math_verify import parse, verify

    return verify(parse(f"${gold}$"), parse(output))


def main(args: argparse.Namespace) -> None:
    from helpers import styles
    from sft_atlas.evaluate.metrics import mathematics

    with gzip.open(args.data / "bench/math_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines][:: args.every]
    rows, examples = [], []
    for style in styles.MATH:
        counts, wrong = [0, 0], [None, None]
        for item in items:
            doc = {"answer": item.get("answer") or item["solution"]}
            output = style.format(**styles.of_math(doc))
            right = alone(styles.of_math(doc)["g"], output), mathematics.math(doc, [output])["exact_match"] == 1.0
            for i, found in enumerate(right):
                counts[i] += found
                wrong[i] = wrong[i] if found or right[1 - i] == found else wrong[i] or output
        rows.append((f"`{' '.join(style.split())}`", len(items), *(f"{count / len(items):.1%}" for count in counts)))
        examples += [
            (style, who, " ".join(output.split())[-100:]) for who, output in zip(("math-verify", "ours"), wrong, strict=True) if output
        ]
    print(machine())
    print_table(("style", "n", "math-verify alone", "ours"), rows)
    for style, who, output in examples:
        print(f"only {who} misses, in the style {' '.join(style.split())!r}: ...{output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with bench/math_test.jsonl.gz")
    parser.add_argument("--every", type=int, default=50, help="every how many items")
    main(parser.parse_args())
