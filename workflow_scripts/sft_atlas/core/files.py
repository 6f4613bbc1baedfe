"""Atomic outputs, locked folders, and hashes of files."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sft_atlas.core.log import LOG


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` for a file or folder, and rename it into place on success only."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            _remove(path)
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, atomically."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def write_table(path: Path, frame) -> None:
    """Write a polars frame as Parquet, atomically."""
    with atomic(path) as part:
        frame.write_parquet(part)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[int]:
    """Lock ``folder`` for this process and children that inherit the file descriptor, waiting while another process here holds it.

    That may be an orphan of a killed workflow. The kernel releases the lock when its holder dies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.warning("%s is in use by another process; waiting for it to end", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()


def text_hash(text: str) -> str:
    """SHA-256 of a text, without regard to case and white space, in hexadecimal digits."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hash of a file's bytes, or of the names and hashes of a folder's files, as hexadecimal digits."""
    if path.is_dir():
        lines = [f"{file.relative_to(path)} {sha256(file)}\n" for file in sorted(path.rglob("*")) if file.is_file()]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_weights(folder: Path) -> dict[str, str]:
    """SHA-256 of each safetensors file of a folder, by file name."""
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.suffix == ".safetensors"}
