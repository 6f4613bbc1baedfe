"""Download the published scores and check their hash, or copy a local CSV (may use the network)."""

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
TRIES, WAIT, TIMEOUT = 4, 2.0, 30  # seconds


def download(address: str = ADDRESS, sha256: str = SHA256, wait: float = WAIT) -> bytes:
    """The bytes at ``address``; AtlasError if all tries fail or the hash differs."""

    def may_pass(error: BaseException) -> bool:
        gone = isinstance(error, urllib.error.HTTPError) and error.code in (403, 404, 410)
        return isinstance(error, OSError) and not gone

    try:
        content = retry(lambda: _read(address), address, tries=TRIES, wait=wait, passes=may_pass)
    except OSError as error:
        raise AtlasError(
            f"{address} could not be downloaded ({error}). Without network access, download it elsewhere and name the copy: "
            "published_csv: path/to/evaluation_result.csv in the study file, or --config published_csv=path/to/evaluation_result.csv"
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise AtlasError(
            f"{address} is not the file that was audited: its sha256 is {digest}, expected {sha256}. It was changed or truncated on the "
            "way; to analyse it anyway, save it and name it with published_csv"
        )
    return content


def _read(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
        return answer.read()


def main(args: argparse.Namespace) -> None:
    """Write the CSV unchanged, and a JSON beside it that says where it came from."""
    with atomic(args.output) as part:
        part.write_bytes(args.path.read_bytes() if args.path else download())
    digest = sha256(args.output)
    facts = {"source": str(args.path or ADDRESS), "sha256": digest, "authors_file": digest == SHA256}
    write_json(args.output.with_suffix(".json"), record_provenance({"published_csv": str(args.path) if args.path else None}, **facts))
    LOG.info("%s: %s", facts["source"], "the authors' file" if facts["authors_file"] else "not the authors' file")


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--path", type=Path, nargs="?", help="local file, instead of the download")
    p.add_argument("--output", type=Path, required=True, help="output: CSV; a JSON beside it says where it came from")
