"""The published CSV: where it is, what it must be, and how to get it."""

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.retry import retry

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
