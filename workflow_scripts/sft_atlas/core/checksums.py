"""A checksum inside each Parquet and JSON file of the results, so that a file which was damaged later is refused, wherever it was copied.

JSON: the last key is ``checksum``, the SHA-256 of the file without that line. Parquet: 8 bytes of MARK and a SHA-256 stand before the footer.
Readers of Parquet follow offsets from the start of the file and never look there. The footer says that they must be there (NOTE).
Files without a checksum, such as those of former versions, are not checked. Standard library only.
"""

import hashlib
import re
from pathlib import Path

KEY = "checksum"
LINE = re.compile(rb',\n "checksum": "([0-9a-f]{64})"\n}\n$')
MARK = b"sftatlas"
NOTE = {"sft_atlas": "checksum before the footer"}  # key-value metadata of the file
END = 8  # bytes of the footer's length and of PAR1
CHUNK = 2**20


def seal_json(text: str) -> str:
    """JSON text of an object, indented by one, with its checksum as the last key; other JSON as it is."""
    if not text.startswith("{\n"):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{text.removesuffix(chr(10) + "}" + chr(10))},\n "{KEY}": "{digest}"\n}}\n'


def json_is_whole(content: bytes) -> bool:
    """Whether JSON is as :func:`seal_json` left it, or has no checksum."""
    match = LINE.search(content)
    return match is None or hashlib.sha256(content[: match.start()] + b"\n}\n").hexdigest() == match[1].decode()


def seal_table(path: Path) -> None:
    """Put its checksum into a Parquet file that was written with the metadata NOTE."""
    with open(path, "r+b") as file:
        start, footer = _footer(file)
        digest = _digest(file, start, footer)
        file.seek(start)
        file.write(MARK + digest + footer)


def table_is_whole(path: Path) -> bool:
    """Whether a Parquet file is as :func:`seal_table` left it, or has no checksum. False for files that are no Parquet."""
    with open(path, "rb") as file:
        if (found := _footer(file)) is None:
            return False
        end, footer = found
        start = end - len(MARK) - hashlib.sha256().digest_size
        if start < 0:
            return True
        file.seek(start)
        block = file.read(end - start)
        if not block.startswith(MARK):
            return NOTE["sft_atlas"].encode() not in footer
        return block.removeprefix(MARK) == _digest(file, start, footer)


def _footer(file) -> tuple[int, bytes] | None:
    """Where the footer of an open Parquet file begins, and all bytes from there on; None where there is none."""
    size = file.seek(0, 2)
    if size < END + 4:
        return None
    file.seek(size - END)
    end = file.read(END)
    start = size - END - int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or start < 4:
        return None
    file.seek(start)
    return start, file.read()


def _digest(file, size: int, footer: bytes) -> bytes:
    """SHA-256 of the first ``size`` bytes of an open file and of ``footer``."""
    digest = hashlib.sha256()
    file.seek(0)
    while size:
        part = file.read(min(CHUNK, size))
        if not part:
            break
        digest.update(part)
        size -= len(part)
    digest.update(footer)
    return digest.digest()
