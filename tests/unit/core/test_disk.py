"""Full disks are named, with what is free there. `/dev/full` is a disk that is always full."""

import errno
import os
import re
import time

import pytest

from sft_atlas.core.disk import DiskFull, disk_full, is_full, size_text, written_since
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import atomic


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3.25 * 2**20, "3.2 MiB"), (5 * 2**50, "5120.0 TiB")]
)
def test_sizes_have_the_unit_that_fits(size, text):
    assert size_text(size) == text


def test_a_full_disk_is_one_error_that_says_where_and_how_much(tmp_path):
    with pytest.raises(DiskFull) as raised, atomic(tmp_path / "scores.parquet") as part:
        part.write_bytes(bytes(2048))
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
    assert isinstance(raised.value, AtlasError) and isinstance(raised.value, OSError)
    text = str(raised.value)
    assert text.startswith("the file system /") and " is full: " in text and f"while writing below {tmp_path}" in text
    assert "more than 2.0 KiB is needed" in text and "Errno" not in text
    assert not list(tmp_path.iterdir())


def test_full_disks_are_recognised_as_libraries_report_them(tmp_path):
    import polars as pl
    import torch

    full = tmp_path / "full"  # a link, so that a library that renames its files over others cannot replace the device
    full.symlink_to("/dev/full")
    for write in (lambda: pl.DataFrame({"x": [1.0]}).write_parquet(full), lambda: torch.save({"x": torch.zeros(99999)}, full)):
        with pytest.raises(Exception) as raised:
            write()
        assert is_full(raised.value), raised.value
    assert is_full(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))  # safetensors
    assert not is_full(OSError(errno.EACCES, "denied")) and not is_full(RuntimeError("out of memory"))


def test_a_full_disk_says_how_much_is_needed_and_looks_behind_links(tmp_path):
    (tmp_path / "link").symlink_to("/proc")  # a file system of its own
    text = str(disk_full(OSError(errno.ENOSPC, ""), [tmp_path / "link/x"], written=1, needed=5 * 2**20))
    assert text.startswith("the file system /proc is full") and "about 5.0 MiB is needed" in text
    assert re.search(r"at least [1-9][\d.]* KiB is needed", str(disk_full(OSError(errno.ENOSPC, ""), [tmp_path])))


def test_what_a_job_wrote_before_is_counted(tmp_path):
    (tmp_path / "before").write_bytes(bytes(9999))
    os.utime(tmp_path / "before", (0, 0))
    start = time.time() - 5
    (tmp_path / "state").mkdir()
    (tmp_path / "state/optimizer.pt").write_bytes(bytes(2048))
    assert written_since([tmp_path, tmp_path / "not/there"], start) == 2048


def test_a_used_up_quota_is_called_so(tmp_path):
    assert str(disk_full(OSError(errno.EDQUOT, "Disk quota exceeded"), [tmp_path / "not/there"])).startswith(
        "your quota on the file system /"
    )
