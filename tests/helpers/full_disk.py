"""A file system that is really full."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

FILLER = "filler"
ROOM = 64 * 2**20  # bytes beside what is there, more than any job of a small study writes


@contextlib.contextmanager
def file_system(folder: Path) -> Iterator[None]:
    """Have ``folder`` on a file system of its own (tmpfs), with what is in it, until the block ends; then it is empty. Needs root."""
    before = folder.with_name(f"{folder.name}.before")
    folder.rename(before)
    folder.mkdir()
    used = sum(file.lstat().st_size + 4096 for file in before.rglob("*"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={used + ROOM}", "sft-atlas-test", folder], check=True)
    try:
        shutil.copytree(before, folder, symlinks=True, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, free: int = 0) -> None:
    """Fill the file system of ``folder`` but for ``free`` bytes."""
    with open(folder / FILLER, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**20))
    if free:
        os.truncate(folder / FILLER, max(0, (folder / FILLER).stat().st_size - free))


def make_room(folder: Path) -> None:
    (folder / FILLER).unlink()
