"""Bring the published scores to disk from their public address, hash checked, or from a local file (may use the network)."""

import argparse
from pathlib import Path

from sft_atlas.core.files import atomic, sha256, write_json
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.published import fetch

NETWORK = True


def main(args: argparse.Namespace) -> None:
    """Write the CSV as it is, and where it came from beside it."""
    content = fetch.local(args.path) if args.path else fetch.download()
    with atomic(args.output) as part:
        part.write_bytes(content)
    facts = {
        "source": str(args.path or fetch.ADDRESS),
        "sha256": sha256(args.output),
        "authors_file": fetch.is_published(content),
    }
    write_json(args.output.with_suffix(".json"), record_provenance({"published_csv": str(args.path) if args.path else None}, **facts))
    LOG.info("%s: %s", facts["source"], "the authors' file" if facts["authors_file"] else "not the authors' file")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, help="local file instead of the public address")
    parser.add_argument("--output", type=Path, required=True, help="CSV file; its JSON says where it came from")
    return parser
