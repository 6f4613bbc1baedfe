"""Ways in which files are damaged on a disk, with the time stamp that they had."""

import os
from pathlib import Path


def _replace(path: Path, content: bytes) -> None:
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def invert(path: Path) -> None:
    """Invert 4 kB, or all of a smaller file, at its end."""
    content = path.read_bytes()
    _replace(path, content[:-4096] + bytes(byte ^ 0xFF for byte in content[-4096:]))


def cut(path: Path) -> None:
    """Keep the first half."""
    content = path.read_bytes()
    _replace(path, content[: len(content) // 2])


def empty(path: Path) -> None:
    """Keep nothing."""
    _replace(path, b"")
