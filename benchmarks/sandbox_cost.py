"""Score the reference programs of HumanEval and MBPP: how many pass, programs per second and CPU time of each.

    .venv/bin/python benchmarks/sandbox_cost.py --data ../shared/data
    .venv/bin/python benchmarks/sandbox_cost.py --data ../shared/data --every 1        all 1,138 programs
    .venv/bin/python benchmarks/sandbox_cost.py --data ../shared/data --code ../other  another checkout's code by turns with this one's

One program after another, each checkout in processes of its own. Names the programs that do not pass.
"""

import argparse
import gzip
import json
import sys
import tempfile
from pathlib import Path

from harness import ROOT, Usage, machine, print_table, run, take_turns

SCORE = """
import gzip, json, sys
checkout, data = sys.argv[1:]
sys.path.insert(0, f"{checkout}/workflow_scripts")
from sft_atlas.evaluate.metrics import code
failed = []
for row in json.load(gzip.open(data)):
    if "entry_point" in row:
        result = code.humaneval(row | {"answer": ""}, [row["canonical_solution"]])
    else:
        result = code.mbpp(row | {"answer": row["code"]}, [row["code"]])
    if result["pass@1"] != 1.0:
        failed.append(str(row["task_id"]))
print(json.dumps(failed))
"""


def programs(data: Path, every: int) -> list[dict]:
    """The items of both benchmarks, every so many of them."""
    rows = []
    for name in ("humaneval", "mbpp"):
        with gzip.open(data / f"bench/{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows += map(json.loads, lines)
    return rows[::every]


def main(args: argparse.Namespace) -> None:
    rows = programs(args.data, args.every)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.json.gz"
        with gzip.open(path, "wt", encoding="utf-8") as handle:
            json.dump(rows, handle)
        checkouts = {str(code): code.resolve() for code in (ROOT, *args.code)}
        calls = {name: lambda code=code: run([sys.executable, "-c", SCORE, str(code), str(path)]) for name, code in checkouts.items()}
        results: dict[str, list[Usage]] = take_turns(calls, args.repeats)
    print(f"{machine()}. {len(rows)} reference programs, best of {args.repeats}.\n")
    table = []
    for name, usages in results.items():
        failed = json.loads(usages[-1].text.splitlines()[-1])
        best, cpu = min(usage.wall for usage in usages), min(usage.cpu for usage in usages)
        table.append(
            (name, len(rows) - len(failed), ", ".join(failed) or "none", f"{len(rows) / best:.1f}", f"{cpu / len(rows) * 1000:.0f}")
        )
    print_table(["code", "pass", "fail", "programs per second", "CPU ms each"], table)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder with bench/humaneval.jsonl.gz and bench/mbpp.jsonl.gz")
    p.add_argument("--code", type=Path, nargs="*", default=[], help="other checkouts to compare with")
    p.add_argument("--every", type=int, default=10, help="take every so many programs")
    p.add_argument("--repeats", type=int, default=3)
    main(p.parse_args())
