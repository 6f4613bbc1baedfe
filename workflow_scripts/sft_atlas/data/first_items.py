"""The first items of local benchmarks against their task files, while the study is read: before any job, and without reading whole files."""

import json
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.study.rendering import check_rows
from sft_atlas.study.schema import Benchmark
from sft_atlas.study.study import Study

COUNT = 5  # items that are rendered
HEAD = 1 << 20  # bytes that are read of a file of JSON lines


def problems(study: Study) -> list[str]:
    """One line for each benchmark of a suite whose local split is not there, or whose first items lack a column or cannot be rendered.

    Items are JSON lines or Parquet. Of other formats, of the hub and of generators they are rendered when they are fetched; so they are where
    the study selects rows, since the first ones may not be among them.
    """
    found = {}
    for name in dict.fromkeys(name for suite in study.file.suites.values() for name in suite.benchmarks):
        entry = study.file.benchmarks[name]
        path = Path(study.path(entry.path)) if entry.path else None
        if path and (problem := _split_problem(entry, path, name)):
            found[problem] = None
        elif path and not entry.lm_eval and not entry.filter and "[" not in entry.split:
            try:
                check_rows(entry.task, first_items(entry, path, f"benchmarks.{name}"))
            except AtlasError as error:
                found[str(error)] = None
    return list(found)


def _split_problem(entry: Benchmark, path: Path, name: str) -> str | None:
    """What is wrong with the split of a saved `DatasetDict`; None where nothing is, or the path is something else."""
    splits = path / "dataset_dict.json"
    if not splits.is_file():
        return None
    there, wanted = json.loads(splits.read_text(encoding="utf-8")).get("splits", []), entry.split.partition("[")[0]
    return None if wanted in there else f"benchmarks.{name}.split: {path} has no split {wanted!r}; it has {', '.join(there)}"


def first_items(entry: Benchmark, path: Path, name: str) -> list[dict]:
    """At most COUNT items of a local benchmark, made as its job makes them; [] for formats that cannot be read in part."""
    if not path.is_file():
        return []
    with open(path, "rb") as file:
        lines = file.read(HEAD).split(b"\n")
    if lines[0][:4] != b"PAR1" and not lines[0].lstrip(b"\xef\xbb\xbf \t\r").startswith(b"{"):
        return []
    import polars as pl  # most studies name no local benchmark, and are read without it

    from sft_atlas.data.columns import add_columns
    from sft_atlas.data.fetch_benchmark import benchmark_items
    from sft_atlas.data.local_files import check_start, read_json
    from sft_atlas.data.records import ROW

    if lines[0][:4] == b"PAR1":
        try:
            frame = pl.read_parquet(path, n_rows=COUNT, glob=False)
        except pl.exceptions.PolarsError as error:
            raise AtlasError(f"{name}.path: {path} is not readable as Parquet: {str(error).splitlines()[0]}. Is the file whole?") from None
    else:
        whole = lines if path.stat().st_size < HEAD else lines[:-1]
        frame = read_json(check_start(b"\n".join([line for line in whole if line.strip()][:COUNT]), path), path, entry.columns)
    if frame.is_empty():
        return []
    frame = add_columns(frame.with_row_index(ROW, offset=1), entry.columns, [], name)
    # Whether numbers of options begin at 1 shows in the whole column only.
    columns = entry.columns.model_copy(update={"label_base": entry.columns.label_base or 0})
    return benchmark_items(frame, entry.model_copy(update={"items": None, "columns": columns}), name)
