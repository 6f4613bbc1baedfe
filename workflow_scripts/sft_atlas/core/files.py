"""Atomic outputs, locked folders, and hashes of files."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sft_atlas.core.disk import DiskFull, disk_full, is_full
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG


@contextlib.contextmanager
def atomic(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` for a file or folder, and rename it into place on success only.

    DiskFull, an AtlasError, where there is no room for it.
    ``durable``: it is on the disk when this returns, and survives a power cut. That costs some milliseconds per file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    _remove(temporary)
    try:
        yield temporary
        if durable:
            flush(temporary)
        if temporary.is_dir():
            _remove(path)
        os.replace(temporary, path)
        if durable:
            _flush_one(path.parent)
    except Exception as error:
        if is_full(error) and not isinstance(error, DiskFull):
            raise disk_full(error, [path.parent], _size(temporary)) from error
        raise
    finally:
        _remove(temporary)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def flush(path: Path) -> None:
    """Write a file, or all that is in a folder, to the disk."""
    for inside in path.rglob("*") if path.is_dir() else ():
        _flush_one(inside)
    _flush_one(path)


def _flush_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():  # some file systems cannot flush a folder
            raise
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Write UTF-8 text, atomically."""
    with atomic(path, durable) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object, durable: bool = False) -> None:
    """Write indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", durable)


def write_table(path: Path, frame) -> None:
    """Write a polars frame as Parquet, atomically."""
    with atomic(path) as part:
        frame.write_parquet(part)


def read_json(path: Path, remedy: str = "delete it and run again"):
    """The content of a JSON file of the results. AtlasError with ``remedy`` where it is empty, cut short or damaged."""
    content = Path(path).read_bytes()
    try:
        return json.loads(content)
    except ValueError as error:
        what = f"is cut short or damaged ({error})" if content else "is empty"
        raise AtlasError(f"{path} {what}; {remedy}") from error


def read_table(path: Path, **options: object):
    """A Parquet file of the results as a polars frame; ``options`` of ``polars.read_parquet``. AtlasError where it is no whole one."""
    import polars as pl

    try:
        return pl.read_parquet(path, glob=False, hive_partitioning=False, **options)
    except (pl.exceptions.PolarsError, OSError) as error:
        is_empty = Path(path).exists() and not Path(path).stat().st_size
        what = "is empty" if is_empty else f"cannot be read ({str(error).splitlines()[0]})"
        raise AtlasError(f"{path} {what}; delete it and run again") from error


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
