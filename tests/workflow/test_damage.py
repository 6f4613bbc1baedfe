"""A job that reads an emptied, cut or damaged file says which and what to do, without a traceback; or its result is right all the same.

`make test` damages a few files of the small study. SFT_ATLAS_EVERY_DAMAGE=1 takes one job of each rule, every kind of file that it reads, and
every damage.
"""

import os
import random
import re
import subprocess
from pathlib import Path

import polars as pl

from helpers.faults import DAMAGES, damage
from helpers.waiting import HANG
from sft_atlas.core import warm

EVERY = "SFT_ATLAS_EVERY_DAMAGE" in os.environ
SOME = 8
CLOCK = ("seconds", "tokens_per_second")
OWN = ("workflow_scripts/", "config/", "tests/")  # sources, and files of the user, whose content before nobody knows


def files_of(folder, rule: str, inputs: list[str]) -> list[Path]:
    """One file of each kind that a job reads, weights behind a manifest and records beside tables too."""
    paths = [folder.path / name for name in inputs if not name.startswith(OWN)]
    paths += [path.with_name("weights") for path in paths if path.name == "model.json" and rule in warm.RULES]
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    kinds = {(file.parent.parent.name if file.parent.name == "weights" else "", file.name): file for file in files if file.is_file()}
    return [file for file in kinds.values() if file.stat().st_size and file.name != ".snakemake_timestamp"]


def content(path: Path) -> object:
    if path.suffix == ".parquet":
        return pl.read_parquet(path, hive_partitioning=False).drop(CLOCK, strict=False)
    return path.read_bytes() if path.suffix in (".jsonl", ".md") else None


def differs(path: Path, before: object) -> bool:
    now = content(path)
    return not now.equals(before) if isinstance(now, pl.DataFrame) else now != before


def test_damaged_files_are_errors_with_a_remedy(served):
    listed = served.jobs("all", "contamination", "cards")
    cases = [
        (rule, file, kind) for rule, (inputs, _, _) in sorted(listed.items()) for file in files_of(served, rule, inputs) for kind in DAMAGES
    ]
    rng, failed, counts = random.Random(0), [], {"refused": 0, "right": 0}
    for rule, file, kind in cases if EVERY else rng.sample(cases, SOME):
        _, outputs, command = listed[rule]
        name, stat, bytes_before = str(file.relative_to(served.path)), file.stat(), file.read_bytes()
        made = [path for path in map(served.path.joinpath, outputs) if path.is_file()]
        before = {path: content(path) for path in made}
        kept = {path: path.read_bytes() for path in made}
        damage(file, kind, rng)
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=HANG)
        text = done.stdout + done.stderr
        if done.returncode == 0:
            counts["right"] += 1
            failed += [f"{rule}, {name} {kind}: {path} is another" for path in made if differs(path, before[path])]
        else:
            counts["refused"] += 1
            if "Traceback" in text or "error: " not in text or not re.search(r"run again|restore", text):
                failed.append(f"{rule}, {name} {kind}: {text[-700:]}")
        for path, old in {**kept, file: bytes_before}.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(old)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    print(f"{sum(counts.values())} damaged files: {counts}, {len(failed)} failed")
    assert not failed, "\n\n".join(failed)
