"""What a reader finds in a file of scores, and how numbers and JSON of files that anybody may have written are read."""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from sft_atlas.core.errors import AtlasError

LARGEST = 100 * 2**20  # bytes of a file that is read as a whole; samples are read line by line
MISSING = ("", "-", "none", "nan", "null", "na", "n/a")


@dataclass
class Score:
    """One number of a file. ``name``: of the checkpoint, as the file names it; ``task``: of the benchmark, likewise. ``where``: for messages.

    ``metric``: with its filter after a comma where the file has one. ``place``: (document, task, key) of lm-eval's number.
    """

    name: str
    task: str
    metric: str
    score: float | None
    where: str
    stderr: float | None = None
    n: int | None = None
    shots: int | None = None
    template: str | None = None
    file: str = ""
    facts: dict[str, object] = field(default_factory=dict)  # columns of scores that the file states, such as the backend
    place: tuple[int, str, str] | None = None


@dataclass
class Found:
    """``scores``; ``samples``: rows of items, see :mod:`sft_atlas.evaluate.imports.lm_eval_files`; ``documents``: what lm-eval's files hold beside
    numbers and samples; ``left_out``: what is not imported, and why, one line each; ``version``: what the files say of themselves."""

    scores: list[Score]
    version: str | None = None
    left_out: list[str] = field(default_factory=list)
    documents: list[dict] = field(default_factory=list)
    samples: object = None


def content(path: Path) -> bytes:
    """The bytes of a file that is read as a whole; AtlasError where that is more than a table of scores has."""
    size = path.stat().st_size
    if size > LARGEST:
        raise AtlasError(
            f"{path}: {size / 2**20:.0f} MiB, more than a file of scores has (at most {LARGEST // 2**20} MiB); keep the rows that you need"
        )
    return path.read_bytes()


def decoded(data: bytes, where: object) -> str:
    """Text in UTF-8, or in what its byte order mark says; lines end with a line feed."""
    bom = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
    encoding = next((name for mark, name in bom.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise AtlasError(f"{where}, line {line}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parsed(text: str, where: object) -> object:
    """JSON; AtlasError where it is none, is nested too deeply, or has a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise AtlasError(f"{where}: nested too deeply for a file of scores") from None
    except json.JSONDecodeError as error:
        place = (
            f", line {error.lineno}, column {error.colno}" if error.lineno > 1 or "line" not in str(where) else f", column {error.colno}"
        )
        raise AtlasError(f"{where}{place}: not JSON: {error.msg}; the file may be cut short. Get it again") from None
    except ValueError as error:
        raise AtlasError(f"{where}: {error}") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice; keep the right one")
    return found


def number(value: object, where: str) -> float | None:
    """A cell as a number; None where it is missing (empty, NaN, `N/A`); AtlasError where it is anything else or infinite."""
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
        return None
    if isinstance(value, str):
        text = value.strip()
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", text, re.IGNORECASE):
            hint = (
                "; write a decimal point"
                if re.fullmatch(r"-?\d+,\d+", text)
                else "; write the number alone, and state `unit: percent`"
                if text.endswith("%")
                else ""
            )
            raise AtlasError(f"{where}: {value[:80]!r} is not a number{hint}")
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AtlasError(f"{where}: {str(value)[:80]!r} is not a number")
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    if math.isinf(value):
        raise AtlasError(f"{where}: an infinite score; correct it, or leave the cell empty where there is no score")
    return None if math.isnan(value) else value


def whole(value: object) -> int | None:
    """A whole number that a file states, or None."""
    return (
        int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value == int(value)
        else None
    )
