"""Bring the published scores to disk from their public address, hash checked, or from a local file (may use the network)."""

import argparse
import hashlib
import urllib.error
import urllib.request
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import atomic, sha256, write_json
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.core.retry import retry

NETWORK = True

COMMIT = "cc63dcb071679f074f8bfe6283fd590f84fae9d9"
ADDRESS = f"https://raw.githubusercontent.com/llm-jp/massive-sft/{COMMIT}/evaluation_result.csv"
SHA256 = "de156c07817e2c8c2702d5475add0f759c11cd839367ad656ccfd2640a494c73"
RETRIES, WAIT, TIMEOUT = 4, 2.0, 30  # seconds


def download(address: str = ADDRESS, sha256: str = SHA256, wait: float = WAIT) -> bytes:
    """The bytes at ``address``; retried, AtlasError if they cannot be had or are not those of ``sha256``."""
    try:
        content = retry(
            lambda: _read(address), address, tries=RETRIES, wait=wait, passes=lambda error: isinstance(error, OSError) and not _gone(error)
        )
    except OSError as error:
        tries = 1 if _gone(error) else RETRIES
        raise AtlasError(
            f"{address} could not be read ({error}; {tries} tries). Without network, download it elsewhere and name the copy: "
            "published_csv: path/to/evaluation_result.csv in the study file, or --config published_csv=path/to/evaluation_result.csv"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise AtlasError(
            f"{address} is not the file that was audited: sha256 {found}, expected {sha256}. It was changed or cut on the way; "
            "to analyse it all the same, save it and name it with published_csv"
        )
    return content


def _read(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
        return answer.read()


def _gone(error: OSError) -> bool:
    """Whether the server says that waiting is of no use."""
    return isinstance(error, urllib.error.HTTPError) and error.code in (403, 404, 410)


def local(path: Path) -> bytes:
    """The bytes of a local file; AtlasError where there is none."""
    if not path.is_file():
        raise AtlasError(
            f"published_csv: there is no file {path} (a relative path starts at the current directory); correct it or remove it"
        )
    return path.read_bytes()


def is_published(content: bytes) -> bool:
    """Whether these are the authors' bytes."""
    return hashlib.sha256(content).hexdigest() == SHA256


def main(args: argparse.Namespace) -> None:
    """Write the CSV as it is, and where it came from beside it."""
    content = local(args.path) if args.path else download()
    with atomic(args.output) as part:
        part.write_bytes(content)
    facts = {
        "source": str(args.path or ADDRESS),
        "sha256": sha256(args.output),
        "authors_file": is_published(content),
    }
    write_json(args.output.with_suffix(".json"), record_provenance({"published_csv": str(args.path) if args.path else None}, **facts))
    LOG.info("%s: %s", facts["source"], "the authors' file" if facts["authors_file"] else "not the authors' file")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, nargs="?", help="local file instead of the public address")
    parser.add_argument("--output", type=Path, required=True, help="CSV file; its JSON says where it came from")
    return parser
