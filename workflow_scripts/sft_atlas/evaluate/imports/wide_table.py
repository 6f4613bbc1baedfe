"""Tables with a row for each checkpoint and a column for each benchmark: CSV, JSON, JSON lines or Parquet."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate.imports.found import Found, Score, content, decoded, number, parsed

HEAD = re.compile(r"(?P<benchmark>[A-Za-z0-9][A-Za-z0-9._-]*):(?P<metric>[^:]+):(?P<shots>\d+)")  # of a column that says what it is
Rows = list[tuple[str, dict[str, object]]]  # where each row is ("line 3"), and its cells


def rows(path: Path) -> Rows:
    """The rows of a file, by the kind that its ending names."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        return _of_parquet(path)
    text = decoded(content(path), path)
    if ending == ".jsonl":
        listed = [(f"line {line}", parsed(each, f"{path}, line {line}")) for line, each in enumerate(text.split("\n"), 1) if each.strip()]
    elif ending == ".json":
        value = parsed(text, path)
        value = value.get("rows", value) if isinstance(value, dict) else value
        if not isinstance(value, list):
            raise AtlasError(f"{path}: is no list of rows")
        listed = [(f"row {place}", each.get("row", each) if isinstance(each, dict) else each) for place, each in enumerate(value, 1)]
    else:
        listed = _of_csv(text, path)
    for where, row in listed:
        if not isinstance(row, dict):
            raise AtlasError(f"{path}, {where}: is {str(row)[:40]!r}, not a row with names and values")
    if not listed:
        raise AtlasError(f"{path}: no rows")
    return listed


def _of_parquet(path: Path) -> Rows:
    import polars as pl

    content(path)
    try:
        frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise AtlasError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]}); get it again") from None
    if frame.is_empty():
        raise AtlasError(f"{path}: no rows")
    return [(f"row {place}", row) for place, row in enumerate(frame.iter_rows(named=True), 1)]


def _of_csv(text: str, path: Path) -> Rows:
    """Cells as texts. The separator is the most frequent of comma, semicolon and tab in the first line."""
    head = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=head.count), strict=True)
    names: list[str] = []
    found: Rows = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = [cell.strip() for cell in cells]
                if twice := next((name for name in names if names.count(name) > 1), None):
                    raise AtlasError(f"{path}, line 1: two columns are called {twice!r}; rename one")
            elif len(cells) != len(names):
                raise AtlasError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells instead of {len(names)}; the file was cut off or edited"
                )
            else:
                found.append((f"line {reader.line_num}", dict(zip(names, cells, strict=True))))
    except csv.Error as error:
        raise AtlasError(f"{path}, line {reader.line_num}: not a CSV: {error}") from None
    return found


def read(path: Path, settings: dict) -> Found:
    """Every cell of the columns that ``settings`` (keys of an import) or their heads say are scores."""
    table = rows(path)
    names = list(dict.fromkeys(name for _, row in table for name in row))
    key = settings.get("checkpoint") or names[0]
    stated = settings.get("benchmarks") or {}
    for column, what in (
        (key, "checkpoint"),
        *((column, "benchmarks") for column in stated),
        *((column, "facts") for column in (settings.get("facts") or {}).values()),
    ):
        require(column, names, what, path)
    heads = stated or {name: match.groupdict() for name in names if (match := HEAD.fullmatch(name.strip()))}
    if not heads:
        raise AtlasError(
            f"{path}: no column says that it holds scores. State `benchmarks` of the import, such as {{{names[-1]}: {{benchmark: mmlu, metric: acc, shots: 5}}}}, or "
            f"head columns as `mmlu:acc:5`; there are {', '.join(names[:20])}"
        )
    columns = {name: {**entry, "shots": None if entry.get("shots") is None else int(entry["shots"])} for name, entry in heads.items()}
    for entry in columns.values():
        if entry.get("stderr"):
            require(entry["stderr"], names, "stderr", path)
    used = {key, *columns, *(entry.get("stderr") for entry in columns.values()), *(settings.get("facts") or {}).values()}
    found = scores(path, table, key, columns, settings.get("unit"))
    for score, row in zip(found.scores, (row for _, row in table for _ in columns), strict=True):
        score.facts = (
            {"known": {fact: row.get(column) for fact, column in (settings.get("facts") or {}).items()}} if settings.get("facts") else {}
        )
    found.scores = once(found.scores, path, found.left_out)
    found.left_out += [f"{path}: column {name} is said to hold no scores" for name in names if name not in used]
    return found


def require(column: str, names: list[str], what: str, path: Path) -> None:
    """AtlasError where a file has no such column."""
    if column not in names:
        raise AtlasError(f"{path}: {what}: there is no column {column!r}; there are {', '.join(map(repr, names[:30]))}")


def scores(path: Path, table: Rows, key: str, columns: dict[str, dict], unit: str | None, name: Callable[[object], str] = str) -> Found:
    """A score for each row and column, missing cells too. ``columns``: by name, the keys of a benchmark of an import.

    AtlasError for a row without a checkpoint, and where the unit of a column is not clear (:func:`units`).
    """
    cells = {column: [number(row.get(column), f"{path}, {where}, column {column}") for where, row in table] for column in columns}
    found_units = units(
        {f"{path}, column {column}": (values, columns[column].get("unit")) for column, values in cells.items()},
        unit,
        [where for where, _ in table],
    )
    found = Found([])
    for place, (where, row) in enumerate(table):
        checkpoint = name(row.get(key) if row.get(key) is not None else "").strip()
        if not checkpoint:
            raise AtlasError(f"{path}, {where}: no checkpoint in column {key!r}; fill it in, or remove the row")
        for (column, entry), of in zip(columns.items(), found_units, strict=True):
            where_cell, scale = f"{path}, {where}, column {column}", 100 if of == "percent" else 1
            score, error = cells[column][place], number(row.get(entry.get("stderr")), f"{path}, {where}, column {entry.get('stderr')}")
            found.scores.append(
                Score(
                    checkpoint,
                    column,
                    entry.get("metric") or "unknown",
                    None if score is None else score / scale,
                    where_cell,
                    None if error is None else error / scale,
                    entry.get("items"),
                    entry.get("shots"),
                    entry.get("template"),
                    path.name,
                )
            )
    return found


def units(columns: dict[str, tuple[list[float | None], str | None]], stated: str | None, places: list[str]) -> list[str]:
    """`fraction` or `percent` for each column (values, and the unit that is stated for it), by these rules.

    1. A stated unit holds: percentages are from 0 to 100, fractions from 0 to 1. Only where a file is said to be in percent and all values of a
       column are at most 1 although others are not, the column must have a unit of its own.
    2. Without one, a file whose values are all from 0 to 1 holds fractions; one in which every column has a value above 1, and no value
       above 0 and at most 1, percentages. Anything else is an error.
    """
    known = {name: [value for value in values if value is not None] for name, (values, _) in columns.items()}
    everything = [value for values in known.values() for value in values]
    small = {name: [value for value in values if 0 < value <= 1] for name, values in known.items()}
    fractions = max(everything, default=0) <= 1
    found = []
    for name, (values, own) in columns.items():
        chosen = own or stated or ("fraction" if fractions else "percent")
        most = 100 if chosen == "percent" else 1
        wrong = next((place for place, value in enumerate(values) if value is not None and not 0 <= value <= most), None)
        if wrong is not None:
            raise AtlasError(
                f"{name}, {places[wrong]}: {values[wrong]:g} is no {'percentage' if chosen == 'percent' else 'fraction'} from 0 to {most}"
                + ("; correct it, or state another `unit`" if own or stated else "; state `unit: percent` or `fraction`, or correct it")
            )
        unclear = (
            not fractions
            and not own
            and small[name]
            and (not stated or (stated == "percent" and len(small[name]) == len([value for value in known[name] if value])))
        )
        if unclear and chosen == "percent":
            place = next(place for place, value in enumerate(values) if value is not None and 0 < value <= 1)
            raise AtlasError(
                f"{name}, {places[place]}: {values[place]:g} may be a fraction or a percentage, as other values of the file are above 1; state "
                "`unit: percent` or `unit: fraction` of this column in `benchmarks` of the import"
            )
        found.append(chosen)
    return found


def once(found: list[Score], path: Path, left_out: list[str]) -> list[Score]:
    """The scores without repeated ones; AtlasError for two different scores of one checkpoint."""
    kept: dict[tuple, Score] = {}
    for score in found:
        first = kept.setdefault((score.name, score.task, score.metric), score)
        if first is score:
            continue
        if (first.score, first.stderr, first.facts) != (score.score, score.stderr, score.facts):
            raise AtlasError(
                f"{score.where}: {score.name} is there twice, with another score before ({first.where}); keep one row, or name with `checkpoint` a column "
                "that tells them apart"
            )
        left_out.append(f"{score.where}: repeats {first.where}")
    return list(kept.values())
