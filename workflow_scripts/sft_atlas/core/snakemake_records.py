"""Snakemake's records of finished outputs, and moving results together with them.

For every output Snakemake keeps a record in ``.snakemake/metadata``: the inputs of its job with their checksums, its parameters and its
software environment. The next call compares them with what it would do now. An output without a record counts as finished whatever its
settings are, so results must not move without their records:

    move({"results/demo/runs/llama/arithmetic/old": "results/demo/runs/llama/arithmetic/new"})

moves files or folders and rewrites every record that names them, also those of the jobs that read them, so that all of them stay up to
date. Time stamps stay. What the files say about themselves (a recipe in a table, say) is the caller's business; who rewrites a file should
give it its former time stamp (:func:`keep_time`), or Snakemake takes it for new.

Paths are spelled as in the rules, relative to the folder in which Snakemake runs. Call this in Snakemake's main process only, while the
Snakefile is read or after the last job: during a run Snakemake has records in memory. These are the records of its default, a folder of
files; those that ``--persistence-backend db`` keeps in a database are not read.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sft_atlas.core.errors import AtlasError

FOLDER = Path(".snakemake")
HERE = "here"
SORTED = ("input", "log")  # Snakemake compares these lists as they are, in alphabetical order
Record = dict[str, object]


def read(prefixes: Iterable[str] = ("",), folder: Path = FOLDER) -> dict[str, Record]:
    """The record of every output that is at or below one of the ``prefixes``, by the output's path; deleted outputs have one too.

    A record that is cut off, because Snakemake was killed while it wrote, is left out; Snakemake ignores it as well.
    """
    chosen, records = tuple(prefixes), {}
    for output, file in _files(folder):
        if any(is_below(output, prefix) for prefix in chosen):
            with contextlib.suppress(ValueError):
                records[output] = json.loads(file.read_text(encoding="utf-8"))
    return records


def write(records: Mapping[str, Record], folder: Path = FOLDER) -> None:
    """Write records by the paths of their outputs, over those that are there."""
    store = _store(folder)
    for output, record in records.items():
        store._io_write(store._metadata_path, record, output)


def delete(outputs: Iterable[str], folder: Path = FOLDER) -> None:
    """Delete the records of outputs."""
    store = _store(folder)
    for output in outputs:
        store._delete_record(output)


def incomplete(outputs: Iterable[str], folder: Path = FOLDER) -> set[str]:
    """Those of the outputs whose job was killed while it wrote them."""
    return _store(folder)._filter_incomplete_keys(outputs)


def move(paths: Mapping[str, str], folder: Path = FOLDER) -> None:
    """Move files or folders (``{old: new}``) and rewrite all records that name them.

    What does not exist is not moved, but its records are: Snakemake keeps those of outputs that it has deleted. AtlasError, before anything
    is moved, where a new path is taken.
    """
    for old, new in paths.items():
        if os.path.lexists(old) and os.path.lexists(new):
            raise AtlasError(f"{old} cannot become {new}, which exists; delete or rename one of them")
    before = read(folder=folder)
    for old, new in paths.items():
        if os.path.lexists(old):
            os.makedirs(os.path.dirname(new) or ".", exist_ok=True)
            os.rename(old, new)
    after = rename(before, paths)
    write({output: record for output, record in after.items() if before.get(output) != record}, folder)
    delete(before.keys() - after.keys(), folder)


def rename(records: Mapping[str, Record], paths: Mapping[str, str]) -> dict[str, Record]:
    """Records in which every path at or below an old one (``{old: new}``) is spelled with the new one: outputs, inputs and parameters."""
    if not paths:
        return dict(records)
    # The longest first, so that a file can go elsewhere than its folder. A path ends where no further character of a name follows.
    olds = "|".join(re.escape(old) for old in sorted(paths, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w./-])(?:{olds})(?![\w.-])")

    def replaced(text: str) -> str:
        return pattern.sub(lambda found: paths[found[0]], text)

    renamed = {replaced(output): json.loads(replaced(json.dumps(record, ensure_ascii=False))) for output, record in records.items()}
    for record in renamed.values():
        record |= {key: sorted(record[key]) for key in SORTED if record.get(key)}
    return renamed


def without_place(record: Record, envs: Path) -> Record:
    """A record whose hash of a conda environment is replaced by HERE if the environment is one in ``envs``.

    Snakemake hashes an environment's file together with the folder of environments, so that a moved clone creates its environments again.
    That is no reason to repeat finished jobs.
    """
    if record.get("conda_env") and record.get("software_stack_hash") == _stack_hash(record, envs):
        return record | {"software_stack_hash": HERE}
    return record


def with_place(record: Record, envs: Path) -> Record:
    """The record that :func:`without_place` was given, for environments in ``envs``."""
    return record | {"software_stack_hash": _stack_hash(record, envs)} if record.get("software_stack_hash") == HERE else record


def _stack_hash(record: Record, envs: Path) -> str:
    """What Snakemake records for an environment file without pins and scripts."""
    environment = hashlib.md5(os.path.realpath(envs).encode() + base64.b64decode(record["conda_env"]), usedforsecurity=False)
    return hashlib.md5(environment.hexdigest().encode(), usedforsecurity=False).hexdigest()


def is_below(path: str, prefix: str) -> bool:
    """Whether a path is a prefix or something below it; everything is below the empty prefix."""
    return not prefix or path == prefix or path.startswith(f"{prefix}/")


@contextlib.contextmanager
def keep_time(path: Path) -> Iterator[None]:
    """Give a file that the block rewrites the time stamp that it had before, so that Snakemake does not take it for new."""
    before = os.stat(path)
    yield
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(output, file of its record). The name is the output in base 64; a long one is cut, and all parts but the last are folders ``@...``."""
    root = folder / "metadata"
    for parent, _, names in os.walk(root):
        pieces = [] if parent == str(root) else [piece.removeprefix("@") for piece in Path(parent).relative_to(root).parts]
        for name in names:
            with contextlib.suppress(ValueError):  # some other file
                yield base64.urlsafe_b64decode("".join([*pieces, name])).decode(), Path(parent, name)


def _store(folder: Path):
    """Snakemake's own writer of records, without a workflow."""
    from snakemake.persistence.file import FilePersistence

    return FilePersistence(nolock=True, path=folder.absolute())
