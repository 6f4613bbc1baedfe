"""Put the atlas into one file, to attach to a paper: the same bytes whenever and wherever it is made from the same pages."""

import argparse
import zipfile
from pathlib import Path

from sft_atlas.core.files import atomic
from sft_atlas.core.log import print_to_terminal
from sft_atlas.report import shared_atlas

LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can name


def write(archive: Path, content: dict[str, bytes], top: str) -> None:
    """Write files, by name, below the folder ``top`` of a zip file."""
    with atomic(archive) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name, data in sorted(content.items()):
            entry = zipfile.ZipInfo(f"{top}/{name}", LONG_AGO)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
            packed.writestr(entry, data)


def main(args: argparse.Namespace) -> None:
    folder = args.atlas.parent
    content = shared_atlas.files(folder, shared_atlas.study_beside(folder))
    write(args.output, content, args.name)
    print_to_terminal(
        f"{args.output}: {len(content):,} files, {args.output.stat().st_size / 1e6:,.1f} MB. Unpack it and open {args.name}/index.html"
    )


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--atlas", type=Path, required=True, help="index.html of the atlas")
    p.add_argument("--name", required=True, help="the folder inside the archive")
    p.add_argument("--output", type=Path, required=True, help="archive to write, .zip")
