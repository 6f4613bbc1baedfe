"""Check that every file of a study's results is what was written, by the checksums and hashes that were recorded when it was made.

    python workflow_scripts/run.py verify_results --results results/demo

Jobs check the files that they read. This reads all, for results that come from a backup, another machine or an old disk.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from sft_atlas.core import snapshot
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table, sha256
from sft_atlas.core.log import print_to_terminal
from sft_atlas.models.base_model import ModelFolder, verify_checkpoint
from sft_atlas.study.items import read_items
from sft_atlas.study.paths import RECORD

READERS = {".parquet": read_table, ".json": read_json, ".jsonl": read_items}


def main(args: argparse.Namespace) -> None:
    if not args.results.is_dir():
        raise AtlasError(f"there are no results in {args.results}; name the folder of a study, such as results/demo")
    count, problems = verify(args.results)
    for problem in problems:
        print_to_terminal(problem)
    if problems:
        raise AtlasError(
            f"{len(problems)} of {count:,} files of {args.results} are damaged; do what the lines above say"
            " (a file that nothing needs any more is made again when you name it: `snakemake FILE`)"
        )
    print_to_terminal(f"{count:,} files of {args.results} are as they were written")


def verify(root: Path) -> tuple[int, list[str]]:
    """(number of files, what is wrong with each damaged one). What trainings and judges keep in ``state`` is checked when it is used."""
    files = list(snapshot.result_files(root))
    problems: dict[Path, str] = {}
    for path, check in _checks(root, files):
        try:
            check()
        except AtlasError as error:
            problems.setdefault(path, str(error))
    for path in snapshot.changed(root):
        problems.setdefault(
            path, f"{path} is damaged: it differs from what the last run left, its time stamp does not; delete it and run again"
        )
    return len(files), list(problems.values())


def _checks(root: Path, files: list[Path]) -> Iterator[tuple[Path, object]]:
    """A function that raises AtlasError where a file, or weights that it describes, are damaged."""
    for path in files:
        if path.suffix in READERS and "weights" not in path.parts:
            yield path, lambda path=path: READERS[path.suffix](path)
        if path.parent.parent.name == "imported" and path.name == "record.json":
            yield path, lambda path=path: _check_sources(path)
        if path.name == "model.json":
            yield path.parent / "weights", lambda path=path: ModelFolder.read(path).verify()
        elif path.name == RECORD:
            for weights in sorted(path.parent.glob("epoch-*/weights")):
                yield weights, lambda weights=weights: verify_checkpoint(weights)


def _check_sources(record: Path) -> None:
    """AtlasError where a file that scores were imported from is here and is another one now; it may be elsewhere."""
    for file in read_json(record)["inputs"].values():
        if Path(file["path"]).is_file() and sha256(Path(file["path"])) != file["sha256"]:
            raise AtlasError(f"{record}: {file['path']} has changed since its scores were imported; run `snakemake import_scores`")


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--results", type=Path, required=True, help="folder of a study's results")
