"""Pack a study's results into one archive that can be unpacked in any clone of the same version; say what it holds."""

import argparse
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sft_atlas.core import snapshot
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import atomic, write_text
from sft_atlas.core.job import long_text
from sft_atlas.core.log import LOG, print_to_terminal
from sft_atlas.study.paths import Paths

STUDY = "study.yaml"
STATE = "state (unfinished runs)"


def weights_pattern() -> re.Pattern:
    """Matches files of base models, encoder and checkpoints, named relative to the results."""
    names = Paths("").model_weights, Paths("").encoder_weights, Paths("").weights
    return re.compile("|".join(re.sub(r"{\w+}", "[^/]+", f"{name.lstrip('/')}/") for name in names))


def contents(root: Path, weights: bool) -> tuple[list[Path], dict[str, list[Path]]]:
    """Files to pack, the snapshot first, and those to leave out by what they are."""
    packed, left_out, pattern = [], {}, weights_pattern()
    for path in sorted(_files(root)):
        name = str(path.relative_to(root))
        if pattern.match(name):
            kind = "weights"
        elif name.startswith("state/") and not name.startswith("state/judgements/"):  # judgements are paid for
            kind = STATE
        else:
            kind = None
        if kind is None or (weights and kind == "weights"):
            packed.append(path)
        else:
            left_out.setdefault(kind, []).append(path)
    first = root / snapshot.NAME
    return [first, *(path for path in packed if path != first)], left_out


def _files(root: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(root, followlinks=True):
        yield from (path for name in names if not name.endswith(".part") and (path := Path(parent, name)).is_file())


def write(archive: Path, root: Path, files: list[Path]) -> None:
    """A plain tar: what is large in it is compressed already. Links become what they point to."""
    with atomic(archive) as part, tarfile.open(part, "w", format=tarfile.PAX_FORMAT, dereference=True) as tar:
        for path in files:
            tar.add(path, arcname=f"results/{root.name}/{path.relative_to(root)}", recursive=False)


def describe(root: Path, files: list[Path]) -> list[str]:
    """A line for each part of the results: files and megabytes."""
    counts, sizes, pattern = Counter(), Counter(), weights_pattern()
    for path in files:
        name = path.relative_to(root)
        part = "weights" if pattern.match(str(name)) else name.parts[0] if len(name.parts) > 1 else "pages"
        counts[part] += 1
        sizes[part] += path.stat().st_size
    return [f"  {part:12} {counts[part]:7,} files {sizes[part] / 1e6:12,.1f} MB" for part in sorted(counts)]


def main(args: argparse.Namespace) -> None:
    import yaml

    root, archive = args.results, args.output
    if not (root / snapshot.NAME).exists():
        raise AtlasError(f"{root} has no results yet; run snakemake first")
    write_text(root / STUDY, yaml.safe_dump(json.loads(args.study), sort_keys=False, allow_unicode=True))
    files, left_out = contents(root, args.weights)
    write(archive, root, files)
    lines = [f"{archive}: {len(files):,} files of {root}, {archive.stat().st_size / 1e6:,.1f} MB", *describe(root, files)]
    for kind, paths in left_out.items():
        lines.append(f"Not in it: {kind}, {sum(path.stat().st_size for path in paths) / 1e6:,.1f} MB.")
    if "weights" in left_out:
        lines.append("  Finished results stay finished without weights; whatever needs them (a new benchmark, cards) trains again.")
    if args.local:
        lines.append(f"Not in it: files of yours that the study reads, which must be at the same paths: {', '.join(args.local)}.")
    lines.append(f"In a clone of the same version: tar -xf {archive.name}, then snakemake --configfile {root}/{STUDY}")
    for line in lines:
        LOG.info("%s", line)
    print_to_terminal("\n".join(lines))


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--results", type=Path, required=True, help="folder of the study's results")
    p.add_argument(
        "--study", type=long_text, required=True, help="the study file's content, as JSON; -: standard input; packed as study.yaml"
    )
    p.add_argument("--local", nargs="*", default=[], help="local files and folders that the study names")
    p.add_argument("--weights", action="store_true", help="pack weights of base models and checkpoints too")
    p.add_argument("--output", type=Path, required=True, help="archive to write, .tar")
