"""A study's results as the last run left them, so that their folder can be copied, moved, sent and unpacked, and stays finished.

Snakemake decides by time stamps and by records that it keeps outside the results (:mod:`sft_atlas.core.snakemake_records`). Both are lost on
the way: ``cp -r`` stamps files in the order in which it copies them, and whoever brings only ``results/{study}`` leaves the records behind.
So each run writes both into the results when it ends (:func:`save`): size, time stamp and hash of every file, and the records.

When the Snakefile is read, :func:`restore` compares a few bytes in ``.snakemake`` with where the results are now. Where they differ, it gives
files the time stamps that they had, but only those whose size and hash agree: a file that was changed on the way, or before, keeps its time
and triggers what it would trigger in the original. Above ``WHOLE_BYTES`` the hash covers 64 blocks spread over the file. Then it
replaces Snakemake's records of this study by those of the snapshot, unless its own came along with the results.

Inputs outside the results that Snakemake compares by time alone (folders, and files larger than its ``max-checksum-file-size``) are
treated alike if they are named relative to the clone. Inputs named by an absolute path are not touched.
"""

import contextlib
import gzip
import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sft_atlas.core import processes, snakemake_records
from sft_atlas.core.files import atomic, sha256, write_json
from sft_atlas.core.snakemake_records import FOLDER, HERE, Record, is_below

NAME = "snapshot.json.gz"
FORMAT = 1
ENVS = FOLDER / "conda"
WHOLE_BYTES = 100_000_000  # as `max-checksum-file-size` in profiles/default
BLOCKS, BLOCK_BYTES = 64, 2**16
UNTIMED = ("logs", "state")  # folders of results that are no outputs: their time stamps decide nothing
FOLDER_TIME = ".snakemake_timestamp"  # the file whose time stamp Snakemake takes for that of the folder, if a folder is an output


@dataclass(frozen=True)
class Entry:
    """A file: bytes, time stamps of its content and its inode in nanoseconds, and its hash; of an input folder without the last two."""

    size: int
    modified: int
    changed: int
    digest: str


@dataclass
class Restored:
    """What :func:`restore` did: how many files got their time stamps back, and which differ from the snapshot or are missing."""

    times: int = 0
    records: int = 0
    differing: list[str] = field(default_factory=list)
    missing: int = 0
    forbidden: int = 0

    def message(self, root: str) -> str:
        """One line for the user; empty where there was nothing to do, for example after a plain `mv` of the whole clone."""
        if not (self.times or self.records or self.forbidden):
            return ""
        done = [f"the time stamps of {self.times:,} files"] * bool(self.times) + [f"{self.records:,} records of Snakemake"] * bool(
            self.records
        )
        text = f"{root} was copied or moved here: restored {' and '.join(done)}"
        if self.differing:
            named = ", ".join(self.differing[:3]) + (", ..." if len(self.differing) > 3 else "")
            text += f"; {len(self.differing)} files differ from the last run and count as new ({named})"
        if self.forbidden:
            text += f"; {self.forbidden:,} files belong to another user and keep wrong time stamps: let the owner run snakemake -n once"
        return text + (f"; {self.missing:,} files did not come along" if self.missing else "")


# ---------------------------------------------------------------- a run


def begin(root: Path, envs: Path = ENVS, folder: Path = FOLDER) -> None:
    """Note that this process starts a run. Where an earlier run was killed, or none has written a snapshot, write one now.

    Several runs may go on side by side: Snakemake's lock keeps only those apart that make the same files. ``envs``, here and below: the
    folder of Snakemake's conda environments.
    """
    others = _runs(root, folder)
    going_on = [run for run in others if processes.is_running(run) is not False]
    # A run on another machine may have been killed too.
    if root.exists() and (not all(map(processes.is_running, others)) or not (root / NAME).exists()):
        save(root, envs, folder)
    _change_stamp(root, folder, running=[*going_on, processes.this_process()])


def end(root: Path, changed: bool, envs: Path = ENVS, folder: Path = FOLDER) -> None:
    """Note that the run of this process ended, and write the snapshot where it may have ``changed`` results."""
    if changed:
        save(root, envs, folder)
    own = processes.this_process()
    others = [run for run in _runs(root, folder) if (run["pid"], run["host"]) != (own["pid"], own["host"])]
    _change_stamp(root, folder, running=others)


def save(root: Path, envs: Path = ENVS, folder: Path = FOLDER, moved: bool = False) -> None:
    """Write the snapshot of ``root``, if it exists. Only files that changed since the last one are read.

    ``moved``: the files came here since then, so that the times of their inodes say nothing.
    """
    if not root.exists():
        return
    before = _read(root)
    known = {path: Entry(*entry) for part in ("files", "inputs") for path, entry in before.get(part, {}).items()}

    def unchanged(stat: os.stat_result, entry: Entry | None) -> bool:
        times = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        return entry is not None and times == (entry.size, entry.modified, stat.st_ctime_ns if moved else entry.changed)

    records = snakemake_records.read([str(root)], folder)
    snapshot = {
        "format": FORMAT,
        "root": str(root),
        "id": secrets.token_hex(8),
        "files": _entries({str(path.relative_to(root)): path for path in result_files(root)}, known, unchanged),
        "inputs": _entries({str(path): path for path in _timed_inputs(records, root)}, known, unchanged),
        "records": {output: snakemake_records.without_place(record, envs) for output, record in records.items()},
    }
    with atomic(root / NAME) as part:
        part.write_bytes(gzip.compress(json.dumps(snapshot).encode(), compresslevel=3))
    _change_stamp(root, folder, id=snapshot["id"], place=_place(root))


def restore(root: Path, envs: Path = ENVS, folder: Path = FOLDER) -> Restored | None:
    """Restore time stamps and records where ``root`` is in another place than in the last call; None where it is not, at the cost of a look."""
    stamp = _stamp(root, folder)
    if stamp.get("place") == _place(root):
        return None
    snapshot, restored = _read(root), Restored()
    if not snapshot:
        return None
    old, new = snapshot["root"], str(root)
    _restore_times({root / path: Entry(*entry) for path, entry in snapshot["files"].items()}, restored)
    _restore_times({Path(path): Entry(*entry) for path, entry in snapshot["inputs"].items()}, restored, count_missing=False)
    records = snakemake_records.rename(snapshot["records"], {old: new} if old != new else {})
    here = snakemake_records.read([new], folder)
    if stamp.get("id") == snapshot["id"]:  # they came along, and may be newer
        records = {
            output: here[output] | {"software_stack_hash": HERE}
            for output, record in records.items()
            if record.get("software_stack_hash") == HERE and here.get(output, {}).get("conda_env") == record["conda_env"]
        }
    else:  # those in .snakemake are of other results, or there are none
        snakemake_records.delete(here.keys() - records.keys(), folder)
        restored.records = len(records)
    placed = {output: snakemake_records.with_place(record, envs) for output, record in records.items()}
    snakemake_records.write({output: record for output, record in placed.items() if here.get(output) != record}, folder)
    with contextlib.suppress(OSError):  # a folder of someone else; the next call tries again
        save(root, envs, folder, moved=True)
    return restored


def changed(root: Path) -> list[Path]:
    """Files whose time stamp is that of the snapshot and whose content is not: nothing that Snakemake started changed them."""
    files = {root / path: Entry(*entry) for path, entry in _read(root).get("files", {}).items()}
    same_time = [path for path, entry in files.items() if path.is_file() and os.stat(path).st_mtime_ns == entry.modified]
    agreeing = _map(lambda path: _agrees(path, os.path.getsize(path), files[path]), same_time)
    return [path for path, agrees in zip(same_time, agreeing, strict=True) if not agrees]


# ---------------------------------------------------------------- time stamps


def _restore_times(entries: dict[Path, Entry], restored: Restored, count_missing: bool = True) -> None:
    """Give files and folders the recorded times where their content agrees; a folder's time only where all that is in it agrees."""
    stats = {path: os.stat(path) for path in entries if path.exists()}
    restored.missing += (len(entries) - len(stats)) * count_missing
    moved = [path for path, stat in stats.items() if stat.st_mtime_ns != entries[path].modified]
    agreeing = {
        path for path, same in zip(moved, _map(lambda path: _agrees(path, stats[path].st_size, entries[path]), moved), strict=True) if same
    }
    differing = [path for path in moved if path not in agreeing]
    incomplete = {parent for path in [*differing, *(entries.keys() - stats.keys())] for parent in path.parents}
    for path in moved:
        if path in agreeing and not (path.name == FOLDER_TIME and path.parent in incomplete):
            try:
                os.utime(path, ns=(stats[path].st_atime_ns, entries[path].modified))
                restored.times += 1
            except OSError:
                restored.forbidden += 1
    restored.differing += map(str, differing)


def _agrees(path: Path, size: int, entry: Entry) -> bool:
    return (path.is_dir() or size == entry.size) and digest(path) == entry.digest


def _entries(paths: dict[str, Path], known: dict[str, Entry], unchanged: Callable) -> dict[str, list]:
    """[size, modified, changed, digest] of each file or folder; the digest is the known one where a file is unchanged."""

    def entry(name: str) -> list:
        stat, last = os.stat(paths[name]), known.get(name)
        same = unchanged(stat, last) and not paths[name].is_dir()
        return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, last.digest if same else digest(paths[name])]

    return dict(zip(paths, _map(entry, paths), strict=True))


def _map(function: Callable, values: Iterable) -> list:
    """Apply a function that waits for disks in threads."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(function, values))


def digest(path: Path) -> str:
    """SHA-256 of a file up to WHOLE_BYTES; of a larger one, of blocks spread over it; of a folder, of the names and digests of its files."""
    if path.is_dir():
        lines = [f"{file.relative_to(path)} {digest(file)}\n" for file in sorted(path.rglob("*")) if file.is_file()]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    size = os.path.getsize(path)
    if size <= WHOLE_BYTES:
        return sha256(path)
    blocks = hashlib.sha256()
    with open(path, "rb") as file:
        for i in range(BLOCKS):
            file.seek((size - BLOCK_BYTES) * i // (BLOCKS - 1))
            blocks.update(file.read(BLOCK_BYTES))
    return f"{BLOCKS} blocks: {blocks.hexdigest()}"


def result_files(root: Path) -> Iterator[Path]:
    """The files of a study whose time stamps count."""
    for parent, folders, names in os.walk(root):
        if parent == str(root):
            folders[:] = [name for name in folders if name not in UNTIMED]
        for name in names:
            path = Path(parent, name)
            if name != NAME and not name.endswith(".part") and path.is_file():
                yield path


def _timed_inputs(records: dict[str, Record], root: Path) -> Iterator[Path]:
    """Inputs outside the results, named relative to the clone, of which Snakemake has no checksum."""
    inputs = {
        path for record in records.values() for path in record.get("input") or () if path not in (record.get("input_checksums") or {})
    }
    for path in map(Path, sorted(inputs)):
        if not path.is_absolute() and not is_below(str(path), str(root)) and path.exists():
            yield path


# ---------------------------------------------------------------- places


def _place(root: Path) -> list | None:
    """Where the snapshot is. Its inode and the time of its last change tell also whether it was replaced by another at the same path."""
    try:
        stat = os.stat(root / NAME)
    except FileNotFoundError:
        return None
    return [os.path.abspath(root), stat.st_ino, stat.st_ctime_ns]


def _stamp_file(root: Path, folder: Path) -> Path:
    return folder / "sft-atlas" / f"{root.name}.json"


def _stamp(root: Path, folder: Path) -> dict[str, object]:
    """Which snapshot the records in ``.snakemake`` belong to, where it was, and the processes of runs that began and did not end."""
    try:
        return json.loads(_stamp_file(root, folder).read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _runs(root: Path, folder: Path) -> list[dict]:
    """The processes whose runs began and did not end."""
    found = _stamp(root, folder).get("running")
    return found if isinstance(found, list) else []  # earlier versions wrote true or false


def _change_stamp(root: Path, folder: Path, **values: object) -> None:
    write_json(_stamp_file(root, folder), _stamp(root, folder) | values)


def _read(root: Path) -> dict:
    """The snapshot of ``root``; empty where there is none, or one that this version cannot read."""
    try:
        snapshot = json.loads(gzip.decompress((root / NAME).read_bytes()))
    except (FileNotFoundError, EOFError, gzip.BadGzipFile, zlib.error, ValueError):
        return {}
    return snapshot if snapshot.get("format") == FORMAT else {}
