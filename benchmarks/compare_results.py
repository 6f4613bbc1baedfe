"""Compare two result folders of one study: weights, their recorded hashes, and every Parquet file cell by cell.

    .venv/bin/python benchmarks/compare_results.py /before/results/demo results/demo --renamed n_of=unit

Run it after a change that must not change results, such as moving code or a new version of a library. Prints what differs and exits 1
where anything does. Columns that measure time are left out.
"""

import argparse
import filecmp
import json
import sys
from pathlib import Path

import polars as pl

TIMES = ("seconds", "tokens_per_second")


def frame_difference(one: Path, other: Path, renamed: dict[str, str]) -> str | None:
    """What differs between two Parquet files, in words; None where nothing does."""
    left, right = (pl.read_parquet(path, hive_partitioning=False) for path in (one, other))
    left = left.rename({old: new for old, new in renamed.items() if old in left.columns and new in right.columns})
    left, right = (frame.drop([name for name in TIMES if name in frame.columns]) for frame in (left, right))
    if set(left.columns) != set(right.columns):
        return f"columns {sorted(set(left.columns) ^ set(right.columns))} are in one of them only"
    if left.height != right.height:
        return f"{left.height} and {right.height} rows"
    right = right.select(left.columns)
    unequal = [name for name in left.columns if not left[name].equals(right[name])]
    return f"columns {unequal} differ" if unequal else None


def hash_difference(one: Path, other: Path) -> str | None:
    """Whether two runs published the same weights, also those that were deleted since; None where they did."""
    left, right = (json.loads(path.read_text(encoding="utf-8"))["weights_sha256"] for path in (one, other))
    return None if left == right else "hashes of published weights differ"


def states(root: Path) -> set[Path]:
    """Files that are no results: states of unfinished runs, answers and judgements that are kept for later jobs."""
    return {path.relative_to(root) for path in (root / "state").rglob("*")}


def compare(one: Path, other: Path, renamed: dict[str, str]) -> tuple[int, list[str]]:
    """(number of files compared, what differs)."""
    differences, compared = [], 0
    kinds = {
        "**/*.parquet": lambda left, right: frame_difference(left, right, renamed),
        "**/*.safetensors": lambda left, right: None if filecmp.cmp(left, right, shallow=False) else "weights differ",
        "runs/**/train.json": hash_difference,
    }
    for pattern, difference in kinds.items():
        left, right = ({path.relative_to(root) for path in root.glob(pattern)} - states(root) for root in (one, other))
        differences += [f"{path}: is in one of the folders only" for path in sorted(left ^ right)]
        for path in sorted(left & right):
            compared += 1
            text = difference(one / path, other / path)
            differences += [f"{path}: {text}"] if text else []
    return compared, differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument(
        "--renamed",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="a column of the first folder that has another name in the second, repeatable",
    )
    args = parser.parse_args()
    compared, differences = compare(args.one, args.other, dict(pair.split("=") for pair in args.renamed))
    print("\n".join(differences))
    print(f"{compared} files compared, {len(differences)} differ")
    sys.exit(bool(differences) or not compared)


if __name__ == "__main__":
    main()
