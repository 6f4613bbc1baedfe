"""Rows of a source (a file, the hub, or generated tasks), normalised to instruction and response."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import dropwhile, repeat, takewhile
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, sha256, write_json
from sft_atlas.core.hub import first_line
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.data import hub, procedural
from sft_atlas.data.columns import add_columns
from sft_atlas.data.local_files import as_text, read_file, shown
from sft_atlas.study.paths import MANIFEST
from sft_atlas.study.schema import Columns, Source

ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system", "developer": "system"}
ROW = "row of the source"  # column with the number of each row, from 1, for messages


def at_commit(source: Source, record: Path, key: str) -> Source:
    """The source with its revision resolved to a commit; unchanged where it is not on the hub.

    AtlasError where ``record``, which :func:`fetched` is kept in, has another commit for the same branch. ``key``: of the study file.
    """
    if not source.hub:
        return source
    commit = hub.resolve_commit("dataset", source.hub, source.revision)
    hub.require_recorded_commit(_known(record), source, commit, key, record)
    return source.model_copy(update={"revision": commit})


def fetched(asked: Source, entry: Source, content: str, record: Path, key: str) -> dict[str, object]:
    """What ``record`` keeps of a fetch from the hub, so that the next one can be compared with it; nothing of other sources.

    ``entry``: ``asked`` with its commit; ``content``: what was made of it. AtlasError where the same entry gave other content before.
    """
    if not entry.hub:
        return {}
    settings = hashlib.sha256(entry.model_dump_json(exclude={"label", "group", "chance", "task"}).encode()).hexdigest()[:12]
    now = hub.record_of(asked, entry.revision, {f"content ({settings})": hashlib.sha256(content.encode()).hexdigest()})
    cache = "a cache is damaged: delete that of `datasets` (HF_DATASETS_CACHE, ~/.cache/huggingface/datasets)"
    remedy = f"{cache} and run again. If the new content is right (another version of `datasets`), delete {record} and run again"
    hub.require_recorded_content(_known(record), now, key, record, remedy)
    return {"fetched": now}


def _known(record: Path) -> dict:
    return read_json(record).get("fetched", {}) if record.exists() else {}


def read_rows(source: Source, path: Path | None, side: str) -> pl.DataFrame:
    """The rows of a source that its ``filter`` selects, with its own columns, those of ``add_columns`` and ROW; generated rows have instruction, response, task (choices, label).

    ``path``: the local file, where the source is one. ``side`` of generated items: ``train`` or ``benchmark``. Raises AtlasError where the
    source does not exist, cannot be read or has no rows.
    """
    if source.tasks is not None:
        frame = pl.DataFrame(procedural.generate(source.tasks, source.size, source.seed, side), infer_schema_length=None)
    elif source.hub is not None:
        frame = _from_hub(source)
    else:
        frame = read_file(path, source.columns, source.split)
    frame = frame.with_row_index(ROW, offset=1)
    if source.path is not None:
        frame = select_slice(frame, source.split, path)
    if frame.is_empty():
        raise AtlasError(f"{path or source.hub or 'tasks'}: no rows")
    frame = add_columns(frame, source.columns, list(source.filter), str(path or source.hub or "tasks"))
    return filter_rows(frame, source.filter, str(path or source.hub))


def filter_rows(frame: pl.DataFrame, allowed: dict[str, list[str]], name: str) -> pl.DataFrame:
    """Rows whose columns hold one of the ``allowed`` values, which are given by column. ``name``: of the source, for messages.

    Raises AtlasError for a value that never occurs, so that a misspelt one is noticed, and where no row is left.
    """
    require_columns(frame, list(allowed), name)
    texts = {column: _texts(frame, column, name) for column in allowed}
    for column, values in allowed.items():
        present = texts[column].unique().sort().drop_nulls().to_list()
        absent = sorted(set(values) - set(present))
        if absent:
            some = ", ".join(present[:12]) + ", ..." * (len(present) > 12)
            raise AtlasError(f"{name}: column {column!r} never holds {', '.join(absent)}; it holds {some}")
    rows = frame.filter(*[texts[column].is_in(values) for column, values in allowed.items()]) if allowed else frame
    if rows.is_empty():
        raise AtlasError(f"{name}: no row has all the values of `filter`")
    return rows


def require_columns(frame: pl.DataFrame, columns: list[str], name: str) -> None:
    """Raise AtlasError where a column is missing."""
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        there = f"no column {absent[0]!r}; the columns are {', '.join(column for column in frame.columns if column != ROW)}"
        raise AtlasError(f"{name}: {there}. Name them with `columns: {{instruction: ..., response: ...}}` (or `filter:`)")


def row_numbers(frame: pl.DataFrame) -> Iterable[int]:
    """The number of each row in its source, from 1."""
    return frame[ROW] if ROW in frame.columns else range(1, len(frame) + 1)


def select_slice(frame: pl.DataFrame, split: str, path: Path) -> pl.DataFrame:
    """The rows of a split such as ``train[10:510]``, which the datasets library reads in the same way; all rows without a slice."""
    match = re.search(r"\[(\d*):(\d*)\]$", split)
    if "[" in split and not match:
        raise AtlasError(f"{path}: split {split!r} is not of the form name[first:last]; first counts from 0, last is left out")
    return frame[slice(*(int(text) if text else None for text in match.groups()))] if match else frame


def _from_hub(source: Source) -> pl.DataFrame:
    from datasets import load_dataset, load_dataset_builder

    def load():
        given = {"data_files": source.files, "revision": source.revision}
        config = load_dataset_builder(source.hub, source.subset, **given).config
        if hasattr(config, "keep_default_na"):  # CSV: pandas would read the texts "None", "NA" and "null" as missing
            given |= {"keep_default_na": False, "na_values": [""]}
        return load_dataset(source.hub, source.subset, split=source.split, **given)

    try:
        return hub.request(load, "dataset", source.hub, source.revision).to_polars()
    except ValueError as error:  # an unknown split or configuration; the message lists those that exist
        raise AtlasError(f"dataset {source.hub}: {first_line(error)}; correct `split`, `subset` or `files`") from None


def to_pairs(frame: pl.DataFrame, columns: Columns, name: str, turns: str = "first") -> pl.DataFrame:
    """Columns instruction, response and source (null where unknown), one row for each row of ``frame``. ``name``: for messages.

    With ``turns`` all of a conversation, instruction and response are its first ones, and a column messages has the whole of it.
    """
    more = []
    if columns.conversation:
        conversations = frame
        column = columns.conversation
        frame, columns = first_exchange(frame, column, name), Columns()
        if turns == "all":
            more, frame = ["messages"], frame.with_columns(all_turns(conversations, column, name))
    texts = [columns.instruction, columns.response, *([columns.input] if columns.input else [])]
    require_columns(frame, texts, name)
    frame = frame.with_columns(_texts(frame, column, name) for column in texts)
    instruction = pl.col(columns.instruction)
    if columns.input:
        extra = pl.col(columns.input).fill_null("").str.strip_chars()
        instruction = pl.when(extra == "").then(instruction).otherwise(instruction + "\n" + extra)
    labels = [column for column in ("source", "task") if column in frame.columns and not frame.schema[column].is_nested()]
    source = pl.col(labels[0]).cast(pl.String) if labels else pl.lit(None, pl.String)
    return frame.select(instruction.alias("instruction"), pl.col(columns.response).alias("response"), source.alias("source"), *more)


def _texts(frame: pl.DataFrame, column: str, name: str) -> pl.Series:
    """A column as text. AtlasError where it holds lists or objects, with the row where other values are texts."""
    kind = frame.schema[column]
    if kind.is_nested():
        raise AtlasError(f"{name}: column {column!r} holds {kind}, not text; prepare a file with one text per row")
    if kind != pl.Object:
        try:
            return frame[column].cast(pl.String)
        except pl.exceptions.PolarsError:  # bytes that are no UTF-8
            raise AtlasError(f"{name}: column {column!r} holds {kind} that is not text") from None
    for number, value in zip(row_numbers(frame), frame[column], strict=True):
        if isinstance(value, list | dict):
            raise AtlasError(
                f"{name}: row {number} has {shown(value)} in column {column!r}, not text; prepare a file with one text per row"
            )
    return pl.Series(column, [as_text(value) for value in frame[column]], dtype=pl.String)


def first_exchange(frame: pl.DataFrame, column: str, name: str) -> pl.DataFrame:
    """Columns instruction and response: the first user turn of each conversation and the reply that follows it, null where there is none.

    A conversation is a list of texts (user and assistant in turn), of ``{role, content}`` or of ``{from, value}``; content may be a list
    of text parts. Raises AtlasError with the row for other turns, and with their names for roles that are not in ROLES.
    """
    pairs = _of_conversations(frame, column, name, _first_exchange)
    others = [other for other in ("source", "task") if other in frame.columns and other != column]
    texts = pl.DataFrame(pairs, schema={"instruction": pl.String, "response": pl.String}, orient="row")
    return texts.with_columns(frame[other] for other in others)


def all_turns(frame: pl.DataFrame, column: str, name: str) -> pl.Series:
    """Each conversation as JSON, a list of {role, content}; its format and errors are those of :func:`first_exchange`.

    It may begin with system turns; what the assistant says before the first user turn, and user turns after the last reply, are left out.
    Null where user and assistant do not take turns, a turn has no text, or there is no reply.
    """
    return pl.Series("messages", _of_conversations(frame, column, name, _messages), dtype=pl.String)


def turns_by_speaker(frame: pl.DataFrame) -> Iterator[tuple[list[str], list[str]]]:
    """(instructions, responses) of each row of a training set: of a conversation, all its user and assistant turns."""
    conversations = frame["messages"] if "messages" in frame.columns else repeat(None)
    for instruction, response, listed in zip(frame["instruction"], frame["response"], conversations, strict=False):
        turns = json.loads(listed) if listed else []
        spoken = [[turn["content"] for turn in turns if turn["role"] == role] for role in ("user", "assistant")]
        yield (spoken[0], spoken[1]) if turns else ([instruction], [response])


def _of_conversations(frame: pl.DataFrame, column: str, name: str, take) -> list:
    """``take`` of the turns (speaker, text) of each conversation. AtlasError with the row for what is no turn, and for unknown roles."""
    require_columns(frame, [column], name)
    unknown: dict[str, int] = {}  # role -> first row with it
    results = []
    for number, turns in zip(row_numbers(frame), frame[column].to_list(), strict=True):
        try:
            results.append(take(_turns(turns or [], lambda role, row=number: unknown.setdefault(role, row))))
        except ValueError as error:
            raise AtlasError(f"{name}: row {number}, column {column!r}: {error}") from None
    if unknown:
        roles = ", ".join(f"{role!r} (first in row {number})" for role, number in unknown.items())
        raise AtlasError(f"{name}: column {column!r} has turns with the role {roles}; rename it to one of {', '.join(ROLES)}")
    return results


def _turns(turns: list, report_unknown) -> Iterator[tuple[str, str | None]]:
    """Speaker (user, assistant or system) and text of each turn; unknown roles are reported. ValueError where a turn is no turn."""
    if not isinstance(turns, list):
        raise ValueError(f"{shown(turns)} is not a list of turns")
    for position, turn in enumerate(turns):
        content = turn
        role = "assistant" if position % 2 else "user"
        if isinstance(turn, dict):
            role = turn.get("role") or turn.get("from")
            key = next((key for key in ("content", "value") if turn.get(key) is not None), None)
            content = turn.get(key)
            if role is None or (key is None and not turn.keys() & {"content", "value", "tool_calls"}):
                raise ValueError(f"the turn {shown(turn)} needs `role` and `content`, or `from` and `value`")
        speaker = ROLES.get(str(role).strip().lower())
        if speaker is None:
            report_unknown(str(role))
        else:
            yield speaker, _turn_text(content)


def _first_exchange(turns: Iterator[tuple[str, str | None]]) -> tuple[str | None, str | None]:
    """The first user turn and the next assistant turn."""
    instruction, asked = None, False
    for speaker, text in turns:
        if speaker == "user" and not asked:
            instruction, asked = text, True
        elif speaker == "assistant" and asked:
            return instruction, text
    return instruction, None


def _messages(turns: Iterator[tuple[str, str | None]]) -> str | None:
    listed = [(speaker, (text or "").strip()) for speaker, text in turns]
    system = list(takewhile(lambda turn: turn[0] == "system", listed))
    spoken = list(dropwhile(lambda turn: turn[0] == "assistant", listed[len(system) :]))
    while spoken and spoken[-1][0] == "user":
        spoken.pop()
    in_turn = [speaker for speaker, _ in spoken] == ["user", "assistant"] * (len(spoken) // 2)
    if not spoken or not in_turn or not all(text for _, text in spoken):
        return None
    begin = [("system", "\n\n".join(text for _, text in system))] if any(text for _, text in system) else []
    return json.dumps([{"role": speaker, "content": text} for speaker, text in (*begin, *spoken)], ensure_ascii=False)


def _turn_text(content: object) -> str | None:
    """The text of a turn, whose content may be a list of text parts. ValueError for images and other content."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else part for part in parts]
    if isinstance(content, dict) or any(isinstance(text, list | dict) or (text is None and content is not None) for text in texts):
        raise ValueError(f"the content {shown(content)} is not text")
    return None if content is None else "".join(map(as_text, texts))


def write_manifest(table: Path, frame: pl.DataFrame, settings: object, inputs: dict[str, Path], **facts: object) -> None:
    """Write ``manifest.json`` beside a data file: its provenance, number of rows, rows by source, and SHA-256."""
    sources = dict(sorted(Counter(value or "unknown" for value in frame["source"]).items()))
    manifest = record_provenance(settings, inputs, rows=len(frame), sources=sources, file=table.name, sha256=sha256(table), **facts)
    write_json(table.parent / MANIFEST, manifest)
    LOG.info("%s: %d rows %s", table, len(frame), facts or "")
