"""Full disks: which file system it is, and how much is free there."""

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from sft_atlas.core.errors import AtlasError

FULL = (errno.ENOSPC, errno.EDQUOT)
# Libraries in other languages report these numbers in texts; torch reports that a write failed or ended early, and no reason.
SAID = re.compile(rf"no space left on device|disk quota exceeded|os error ({'|'.join(map(str, FULL))})\b", re.IGNORECASE)
TORCH = re.compile(r"PytorchStreamWriter failed writing file|inline_container\.cc.*unexpected pos")
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class DiskFull(AtlasError, OSError):
    """No room is left on a file system, or the user's quota there is used up."""


def size_text(size: float) -> str:
    """Bytes in the unit that fits: ``3.2 GiB``."""
    power = next((power for power in range(len(UNITS)) if size < 1024 ** (power + 1)), len(UNITS) - 1)
    return f"{size / 1024**power:.{min(power, 1)}f} {UNITS[power]}"


def is_full(error: BaseException) -> bool:
    """Whether a file could not be written for lack of room, by the error or one that caused it."""
    return any(
        (isinstance(each, OSError) and each.errno in FULL) or SAID.search(str(each)) or TORCH.search(str(each)) for each in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def disk_full(error: BaseException, paths: Iterable[Path], written: int = 0, needed: int | None = None) -> DiskFull:
    """The error to raise instead of ``error``. It names the fullest of the file systems of ``paths`` and of the file in ``error``.

    ``written``: bytes that the file or folder had when it failed; ``needed``: those that it would have had, about, where that is known.
    """
    named = [each.filename for each in _causes(error) if isinstance(each, OSError) and isinstance(each.filename, str)]
    folders = {_existing(Path(path)) for path in [*paths, *named]}
    folder = min(folders, key=lambda folder: shutil.disk_usage(folder).free)
    usage, mount = shutil.disk_usage(folder), folder
    while not os.path.ismount(mount):
        mount = mount.parent
    quota = any(isinstance(each, OSError) and each.errno == errno.EDQUOT for each in _causes(error)) or "quota" in str(error).lower()
    what = f"your quota on the file system {mount} is used up" if quota else f"the file system {mount} is full"
    if needed and needed > written:
        size = f"about {size_text(needed)}"
    elif written:
        size = f"more than {size_text(written)}"
    else:
        size = f"at least {size_text(os.statvfs(folder).f_frsize or 4096)}"  # a block
    return DiskFull(
        f"{what}: {size_text(usage.free)} free of {size_text(usage.total)}, while writing below {folder}; {size} is needed for what was being"
        " written. Make room there, or put it on a larger disk, and run again: what is finished is kept"
    )


def written_since(paths: Iterable[Path], start: float) -> int:
    """Bytes of the files at and below ``paths`` that were written after ``start``, in seconds since 1970."""
    files = [file for path in paths for file in [path, *path.rglob("*")] if file.is_file()]
    return sum(file.stat().st_size for file in files if file.stat().st_mtime >= start)


def _existing(path: Path) -> Path:
    path = Path(os.path.realpath(path))  # behind links, which may lead to another file system
    while not path.is_dir():
        path = path.parent
    return path
