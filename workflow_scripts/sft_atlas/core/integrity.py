"""Whether files still are what was written: cut files, and SHA-256 hashes that were recorded when files were made.

A large file is hashed once per machine. Its hash is kept in ``.snakemake``, outside the results, under its inode, and is good as long as size and
time stamps are the same; the kernel changes the last of them (ctime) with every write, also where a program sets the others back.
"""

import contextlib
import json
import os
import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import sha256, write_json
from sft_atlas.core.snakemake_records import FOLDER

HASHES = FOLDER / "sft-atlas/hashes"
REMEMBERED_BYTES = 2**24  # smaller files are hashed each time, in about 10 ms
THREADS = 8


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits, remembered where the file is large."""
    stat = os.stat(path)
    if stat.st_size < REMEMBERED_BYTES:
        return sha256(path)
    entry, state = HASHES / f"{platform.node()}-{stat.st_dev}-{stat.st_ino}.json", _state(stat)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(entry.read_text(encoding="utf-8"))
        if known["state"] == state:
            return known["sha256"]
    digest = sha256(path)
    if _state(os.stat(path)) == state:
        with contextlib.suppress(OSError):  # no place to remember it: it is hashed again next time
            write_json(entry, {"state": state, "sha256": digest})
    return digest


def _state(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def hash_files(paths: list[Path]) -> list[str]:
    """:func:`file_hash` of each file, several at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(file_hash, paths))


def damage(folder: Path, recorded: Mapping[str, str]) -> str | None:
    """What is wrong with the first file of ``folder`` that is not as ``recorded`` (SHA-256 by file name); None where all are."""
    names = sorted(recorded)
    for name in names:
        if not (folder / name).is_file():
            return f"{folder / name} is missing"
    for name, digest in zip(names, hash_files([folder / name for name in names]), strict=True):
        if digest != recorded[name]:
            what = "damaged" if (folder / name).stat().st_size else "empty"
            return f"{folder / name} is {what}: its SHA-256 is {digest}, but {recorded[name]} was recorded when it was made"
    return None


def require_whole_weights(folder: Path, remedy: str) -> None:
    """AtlasError where a safetensors file of ``folder`` is empty or cut short. Reads the files' heads only."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            safetensors_header(path)
        except AtlasError as error:
            raise AtlasError(f"{error}; {remedy}") from error


def safetensors_header(path: Path) -> tuple[int, dict[str, dict]]:
    """Where the tensors begin, in bytes, and the header of a safetensors file: dtype, shape, data_offsets of each tensor by its name.

    AtlasError where the file is shorter than its header says. The format: https://github.com/huggingface/safetensors#format
    """
    size = path.stat().st_size
    with open(path, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 0 < length <= size - 8:
            raise AtlasError(f"{path} is no complete safetensors file: it is {'cut short or damaged' if size else 'empty'}")
        try:
            header = json.loads(handle.read(length))
            header.pop("__metadata__", None)
            end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise AtlasError(f"{path} is no complete safetensors file: its header is damaged") from error
    if end != size:
        raise AtlasError(
            f"{path} is cut short: its header announces {end:,} bytes, it has {size:,}"
            if end > size
            else f"{path} is damaged: {size - end} bytes too many"
        )
    return 8 + length, header
