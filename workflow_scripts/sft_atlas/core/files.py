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
from typing import TextIO

from sft_atlas.core import checksums
from sft_atlas.core.disk import DiskFull, disk_full, is_full
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG


@contextlib.contextmanager
def atomic(path: Path, durable: bool = False, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` for a file or folder, and rename it into place on success only.

    DiskFull, an AtlasError, where there is no room for it.
    ``durable``: it is on the disk when this returns, and survives a power cut. That costs some milliseconds per file. ``size``: bytes that it
    will have, about, for that error.
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
            raise disk_full(error, [path.parent], _size(temporary), size) from error
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
    content = text.encode()
    with atomic(path, durable, len(content)) as part:
        part.write_bytes(content)


def write_json(path: Path, value: object, durable: bool = False) -> None:
    """Write indented JSON with sorted keys, atomically; an object with a checksum of itself (:mod:`sft_atlas.core.checksums`)."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_text(path, checksums.seal_json(text), durable)


def write_table(path: Path, frame) -> None:
    """Write a polars frame as Parquet with a checksum of itself, atomically."""
    size = frame.estimated_size() + 128 * (frame.width + 1)  # what Parquet notes of each column, and of all
    with atomic(path, size=size) as part:
        try:
            frame.write_parquet(part, metadata=checksums.NOTE)
        except Exception as error:
            # On a full disk polars may say "Invalid thrift: transport error", without the system's error.
            if "transport error" in str(error) and shutil.disk_usage(part.parent).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part)) from error
            raise
        checksums.seal_table(part)


def read_json(path: Path, remedy: str = "delete it and run again"):
    """The content of a JSON file of the results. AtlasError with ``remedy`` where it is empty, cut short or damaged."""
    content = Path(path).read_bytes()
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        what = f"is cut short or damaged ({error})" if content else "is empty"
        raise AtlasError(f"{path} {what}; {remedy}") from error
    if not checksums.json_is_whole(content):
        raise AtlasError(f"{path} is damaged: its checksum is not that of its content; {remedy}")
    if isinstance(value, dict):
        value.pop(checksums.KEY, None)
    return value


def read_table(path: Path, remedy: str = "delete it and run again", **options: object):
    """A Parquet file of the results as a polars frame; ``options`` of ``polars.read_parquet``.

    AtlasError with ``remedy`` where it is empty, cut short or damaged, or, of a file of data, is not what its manifest recorded.
    """
    import polars as pl

    path = Path(path)
    try:
        if not checksums.table_is_whole(path):
            what = "is cut short or damaged: its checksum is not that of its content" if path.stat().st_size else "is empty"
            raise AtlasError(f"{path} {what}; {remedy}")
        require_recorded(path, remedy)
        return pl.read_parquet(path, glob=False, hive_partitioning=False, **options)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise AtlasError(f"{path} cannot be read ({str(error).splitlines()[0]}); {remedy}") from error


def require_recorded(path: Path, remedy: str = "delete it and run again") -> None:
    """AtlasError where a file of data is not the one whose SHA-256 was recorded in the manifest beside it, if there is one."""
    for record in (path.with_name("manifest.json"), *([path.with_suffix(".json")] if path.suffix == ".jsonl" else [])):
        known = read_json(record, f"delete {record} and {path} and run again") if record.is_file() else None
        if isinstance(known, dict) and known.get("file") == path.name and known.get("sha256") != sha256(path):
            raise AtlasError(f"{path} is damaged or was changed: its SHA-256 is not the one in {record}; {remedy}")


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[int]:
    """Lock ``folder`` for this process and children that inherit the file descriptor, waiting while another process here holds it.

    That may be an orphan of a killed workflow. The kernel releases the lock when its holder dies. A folder in which nothing else is left
    is removed at the end, with the folders above it that are empty then.
    """
    file = folder / ".lock"
    while (handle := _locked(file)) is None:
        pass
    with handle:
        try:
            yield handle.fileno()
        finally:
            if file.exists() and os.listdir(folder) == [file.name]:
                file.unlink()
                with contextlib.suppress(OSError):
                    os.removedirs(folder)


def _locked(file: Path) -> TextIO | None:
    """The open, locked file; None where the process that held the lock removed the file meanwhile."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        handle = open(file, "w")  # noqa: SIM115 - stays open as long as it is locked
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.warning("%s is in use by another process; waiting for it to end", file.parent)
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.samestat(os.fstat(handle.fileno()), os.stat(file)):
            return handle
        handle.close()
    return None


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, which costs no room; a copy where that is not possible."""
    source = Path(source).resolve()  # a link to a link would be cut where the first one is removed
    try:
        os.link(source, target)
    except OSError:  # another file system, one without links, or a file that belongs to another user
        shutil.copy2(source, target)


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
