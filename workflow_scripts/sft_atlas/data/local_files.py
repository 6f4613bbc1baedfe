"""Rows of local files and folders of every format that the workflow reads."""

import codecs
import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.hub import first_line
from sft_atlas.data.columns import inside, used_names
from sft_atlas.study.schema import Columns

FORMATS = (
    "local data are JSON lines or one JSON array of objects (.jsonl, .json), CSV or TSV with a header (.csv, .tsv), each also compressed"
    " (.gz, .zst, .bz2), Parquet, Arrow, or a folder of `Dataset.save_to_disk`; convert others with datasets, pandas or polars"
)
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}  # by the first bytes of a file


def read_file(path: Path, columns: Columns | None = None, split: str = "train") -> pl.DataFrame:
    """The rows of a local file of one of the FORMATS; of a folder with several splits, those of ``split``.

    Values of the text ``columns`` are as the file has them: 72 beside 12.5 stays "72". Such a column that holds lists or objects among
    texts, and a conversation whose contents are not all text, have the type Object. AtlasError, with the row where there is one, where
    the path does not exist or cannot be read.
    """
    if not path.exists():
        raise AtlasError(f"{path}: there is no such file (relative paths start at `data_root`, or the current directory)")
    if path.is_dir():
        return _read_saved_dataset(path, split)
    ending = next((suffix for suffix in reversed(path.suffixes) if suffix.lower() not in (".gz", ".zst", ".bz2")), "").lower()
    kind = "text"
    try:
        with open(path, "rb") as handle:
            start = handle.read(8)
        if ending == ".parquet" or start.startswith(b"PAR1"):
            kind = "Parquet"
            return pl.read_parquet(path, glob=False)
        if ending in (".arrow", ".feather", ".ipc") or start.startswith(b"ARROW1"):
            kind = "Arrow"
            return (pl.read_ipc if start.startswith(b"ARROW1") else pl.read_ipc_stream)(path.read_bytes())
        kind = next((name for magic, name in COMPRESSED.items() if start.startswith(magic)), "text")
        raw = _uncompressed(path, kind)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise AtlasError(f"{path}: not readable as {kind}: {first_line(error)}. Is the file whole? ({FORMATS})") from None
    raw = check_start(raw, path)
    return _read_csv(raw, path, ending) if ending in (".csv", ".tsv") else read_json(raw, path, columns or Columns())


def _read_saved_dataset(folder: Path, split: str) -> pl.DataFrame:
    if not (folder / "dataset_dict.json").exists() and not (folder / "state.json").exists():
        raise AtlasError(f"{folder}: a folder that `Dataset.save_to_disk` did not write; {FORMATS}")
    from datasets import DatasetDict, load_from_disk

    try:
        data = load_from_disk(folder)
        if isinstance(data, DatasetDict):
            name = split.partition("[")[0]
            if name not in data:
                raise AtlasError(f"{folder}: no split {name!r}; it has {', '.join(data)}. Choose with `split:`")
            data = data[name]
        return data.to_polars()
    except (OSError, ValueError, KeyError, TypeError) as error:  # files that are missing, cut or of another version
        raise AtlasError(f"{folder}: not readable as a saved dataset: {type(error).__name__}: {first_line(error)}") from None


def _uncompressed(path: Path, kind: str) -> bytes:
    if kind == "text":
        return path.read_bytes()
    import pyarrow

    with open(path, "rb") as handle, pyarrow.CompressedInputStream(handle, kind) as stream:
        return stream.read()


def check_start(raw: bytes, path: Path) -> bytes:
    """The bytes of a text file without a byte order mark. AtlasError where they are no text."""
    if raw.startswith(b"version https://git-lfs"):
        raise AtlasError(f"{path}: a pointer of Git LFS, not the file itself; run `git lfs pull`")
    if raw.startswith(b"PK\x03\x04"):
        raise AtlasError(f"{path}: a ZIP archive or an Excel file; {FORMATS}")
    return raw.removeprefix(codecs.BOM_UTF8)


def _decode(raw: bytes, path: Path) -> str:
    """UTF-8 as text. AtlasError that says how to convert the file where it is in another encoding."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = "UTF-16" if wide else "WINDOWS-1252"
        what = "UTF-16" if wide else f"not UTF-8 but probably Latin-1 or Windows-1252 (byte 0x{raw[error.start]:02x})"
        line = raw.count(b"\n", 0, error.start) + 1
        raise AtlasError(f"{path}: line {line} is {what}; convert the file: iconv -f {encoding} -t UTF-8 {path.name} > NEW_FILE") from None


def _read_csv(raw: bytes, path: Path, ending: str) -> pl.DataFrame:
    """Every column as text, null where a field is empty."""
    first = raw.partition(b"\n")[0]
    delimiter = "\t" if ending == ".tsv" else ";" if b";" in first and b"," not in first else ","
    text = _decode(raw, path)
    csv.field_size_limit(sys.maxsize)
    header, number, rows = None, 0, []
    try:
        for fields in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            if header is None:
                header = fields
            elif fields:
                number += 1
                if len(fields) != len(header):
                    raise AtlasError(f"{path}: row {number} has {len(fields)} fields, the header has {len(header)} ({', '.join(header)})")
                rows.append([field or None for field in fields])
    except csv.Error as error:
        raise AtlasError(f"{path}: row {number + 1} is not CSV: {error}") from None
    if len(set(header or [])) < len(header or []):
        raise AtlasError(f"{path}: two columns have the same name in the header ({', '.join(header)})")
    return pl.DataFrame(rows, schema=dict.fromkeys(header or [], pl.String), orient="row")


class Number(float):
    """A number with a fraction or an exponent, with the digits that the file has."""

    def __new__(cls, digits: str):
        number = super().__new__(cls, digits)
        number.digits = digits
        return number


def read_json(raw: bytes, path: Path, columns: Columns) -> pl.DataFrame:
    """JSON lines or an array of objects. Polars reads them; the rows are parsed one by one only where it would change a value or fails."""
    raw, array = _without_lone_surrogates(raw), re.match(rb"\s*\[", raw) is not None
    try:
        frame = pl.read_json(io.BytesIO(raw), infer_schema_length=None) if array else pl.read_ndjson(raw, infer_schema_length=None)
    except pl.exceptions.PolarsError:
        _decode(raw, path)
        frame = None
    if frame is not None and not _changes_values(raw, frame, columns):
        return frame
    rows = list(_objects(raw, array, path))
    names = list(dict.fromkeys(key for row in rows for key in row))
    texts = [name for name in text_columns(columns) if name in names]
    exact = [_exact_series(name, [row.get(name) for row in rows]) for name in texts]
    nested = [name.split(".") for name in used_names(columns) if name not in names and name.partition(".")[0] in names]
    exact += [_exact_series(".".join(parts), [inside(row, parts) for row in rows]) for parts in nested]
    if columns.conversation in names:
        exact.append(pl.Series(columns.conversation, [row.get(columns.conversation) for row in rows], dtype=pl.Object))
    if frame is None or len(frame) != len(rows):
        frame = pl.DataFrame([_series(name, [row.get(name) for row in rows]) for name in names])
    return frame.with_columns(exact)


def text_columns(columns: Columns) -> list[str]:
    """The columns whose values are used as text."""
    choices = getattr(columns, "choices", None) or []
    several = [choices] if isinstance(choices, str) else choices
    return [column for column in (columns.instruction, columns.input, columns.response, *several) if column]


def _changes_values(raw: bytes, frame: pl.DataFrame, columns: Columns) -> bool:
    """Whether polars may change values: a column's numbers take one form, and lists or objects among texts become JSON text."""
    texts, value = text_columns(columns), rb"[\[{]|-?\d+[.eE]|true|false"
    if columns.conversation:
        kind = frame.schema.get(columns.conversation)
        if not (isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct)):
            return True
        texts, value = ["content", "value"], rb"[\[{\d.-]|true|false"
    fields = {name for column in texts for name in (column, column.rpartition(".")[2])}  # of `a.b` the field is spelled "b"
    spellings = {re.escape(json.dumps(name, ensure_ascii=ascii).encode()) for name in fields for ascii in (True, False)}
    return re.search(rb"(?:" + rb"|".join(sorted(spellings)) + rb")\s*:\s*(?:" + value + rb")", raw) is not None


def _without_lone_surrogates(raw: bytes) -> bytes:
    """JSON with U+FFFD for every escaped half of a surrogate pair, for which polars would put NUL."""
    if not re.search(rb"\\u[dD][89a-fA-F]", raw):
        return raw
    escapes = rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u([dD][89a-fA-F]..)|[^u])"
    return re.sub(escapes, lambda match: rb"\ufffd" if match[1] else match[0], raw, flags=re.DOTALL)


def _objects(raw: bytes, array: bool, path: Path) -> Iterator[dict]:
    """The rows of JSON lines or of an array; AtlasError with the number of the row that is no object."""
    decoder = json.JSONDecoder(parse_float=Number, parse_constant=_refuse_constant)
    values, number = _array_items(raw.decode(), decoder) if array else _line_values(raw, decoder), 0
    while True:
        number += 1
        try:
            value = next(values, None)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} (column {error.colno})" if isinstance(error, json.JSONDecodeError) else error
            raise AtlasError(f"{path}: row {number} is not JSON: {reason}" + (f" ({FORMATS})" if number == 1 else "")) from None
        if value is None:
            return
        if not isinstance(value[0], dict):
            raise AtlasError(f"{path}: row {number} is not an object with the columns as keys, but {shown(value[0])}")
        yield value[0]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no value of JSON; write null")


def _line_values(raw: bytes, decoder: json.JSONDecoder) -> Iterator[tuple]:
    for line in raw.split(b"\n"):  # not splitlines, which also splits at U+2028
        if line.strip():
            yield (decoder.decode(line.decode()),)


def _array_items(text: str, decoder: json.JSONDecoder) -> Iterator[tuple]:
    between = re.compile(r"[\s,]*")
    position = between.match(text, text.index("[") + 1).end()
    while not text.startswith("]", position):
        value, position = decoder.raw_decode(text, position)
        yield (value,)
        position = between.match(text, position).end()
    if text[position + 1 :].strip():
        raise json.JSONDecodeError("Text after the end of the array", text, position + 1)


def _exact_series(name: str, values: list) -> pl.Series:
    """Texts; lists of texts where all values are such lists; else the Python values, for an error with the row where one is used."""
    nested = [isinstance(value, list | dict) for value in values if value is not None]
    if not any(nested):
        return pl.Series(name, [as_text(value) for value in values], dtype=pl.String)
    lists = [value for value in values if isinstance(value, list)]
    if len(lists) == len(nested) and not any(isinstance(item, list | dict) for value in lists for item in value):
        return pl.Series(name, [value and [as_text(item) for item in value] for value in values], dtype=pl.List(pl.String))
    return pl.Series(name, values, dtype=pl.Object)


def as_text(value: object) -> str | None:
    """A value that is no list or object as text: as a JSON file spells it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return json.dumps(value)
    return value.digits if isinstance(value, Number) else str(value)


def _series(name: str, values: list) -> pl.Series:
    """Numbers or truth values as such; every other column as text, with lists and objects as JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds in ({bool}, {Number}, {Number, int}):
        return pl.Series(name, values, dtype=pl.Boolean if kinds == {bool} else pl.Float64, strict=False)
    if kinds == {int} and max(map(abs, filter(None, values)), default=0) < 2**63:
        return pl.Series(name, values, dtype=pl.Int64)
    texts = [json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else as_text(value) for value in values]
    return pl.Series(name, texts, dtype=pl.String)


def shown(value: object) -> str:
    """A value in a message, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
