"""Columns that a source has inside others (`choices.text`) and columns that it lacks, with the same value in every row."""

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.study.schema import Columns


def used_names(columns: Columns) -> list[str]:
    """Every column that `columns` names."""
    keys = ("instruction", "input", "response", "conversation", "choices", "label", "choice_labels")
    given = [getattr(columns, key, None) for key in keys]
    return [name for value in given if value for name in (value if isinstance(value, list) else [value])]


def add_columns(frame: pl.DataFrame, columns: Columns, more: list[str], name: str) -> pl.DataFrame:
    """The frame with the constants of ``columns``, and every dotted name that they (or ``more``) use as a column of its own.

    `choices.text` is the field `text` of the objects in `choices`, or of each object in its lists; a number is a position in a list. A
    column that has the dotted name itself is left as it is. ``name``: of the source, for messages. Raises :class:`AtlasError` where a field
    does not exist, and where a constant has the name of a column that is there.
    """
    for column, value in columns.constants.items():
        if column in frame.columns:
            raise AtlasError(f"{name}: columns.constants has {column!r}, which is a column of the source; remove it, or use another name")
        frame = frame.with_columns(pl.Series(column, [value] * len(frame)))
    for dotted in dict.fromkeys([*used_names(columns), *more]):
        if dotted not in frame.columns and dotted.partition(".")[0] in frame.columns:
            frame = frame.with_columns(_nested(frame, dotted, name).alias(dotted))
    return frame


def is_nested_name(column: str, frame: pl.DataFrame) -> bool:
    """Whether a column of the frame is a copy, by :func:`add_columns`, of what another column holds."""
    root, dot, _ = column.partition(".")
    return bool(dot) and root in frame.columns


def inside(value: object, parts: list[str]) -> object:
    """What a row holds under the parts of a dotted name; None where it holds nothing."""
    for i, part in enumerate(parts):
        if isinstance(value, list) and not part.isdigit():
            return [inside(entry, parts[i:]) for entry in value]
        if isinstance(value, list):
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def _nested(frame: pl.DataFrame, dotted: str, name: str) -> pl.Series:
    root, *parts = dotted.split(".")
    series = frame[root]
    if series.dtype == pl.Object:
        return pl.Series(root, [inside(value, parts) for value in series])
    for i, part in enumerate(parts):
        above, kind = ".".join([root, *parts[:i]]), series.dtype
        if isinstance(kind, pl.List | pl.Array) and part.isdigit():
            series = (
                series.list.get(int(part), null_on_oob=True) if isinstance(kind, pl.List) else series.arr.get(int(part), null_on_oob=True)
            )
            continue
        struct = kind.inner if isinstance(kind, pl.List) else kind
        if not isinstance(struct, pl.Struct):
            raise AtlasError(f"{name}: no column {dotted!r}: {above!r} holds {kind}, not objects; correct `columns`")
        fields = [field.name for field in struct.fields]
        if part not in fields:
            raise AtlasError(f"{name}: no column {dotted!r}: {above!r} has {', '.join(fields)}; correct `columns`")
        series = series.list.eval(pl.element().struct.field(part)) if isinstance(kind, pl.List) else series.struct.field(part)
    return series
