"""The atlas as other people may have it: its pages and nothing else, without paths of this machine and without secrets.

:func:`files` gives the content for ``snakemake atlas_zip`` and for the Space of ``snakemake release``.
"""

import base64
import gzip
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json
from sft_atlas.core.log import LOG

TEXT = (".html", ".css", ".js")
ENDINGS = (*TEXT, ".png", ".pdf", ".svg", ".woff2")  # what an atlas is made of; weights and tables are not among them
PACKED = re.compile(rb'atlas\.put\(("(?:[^"\\]|\\.)*"),"([A-Za-z0-9+/=]+)"\);\n')  # as atlas/site.py writes data
TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|CREDENTIAL", re.IGNORECASE)
SHORTEST_SECRET = 12
NOBODY = {"/", "/root", "/home", "/nonexistent"}  # homes that name nobody


def files(folder: Path, study: dict | None = None) -> dict[str, bytes]:
    """The files of the atlas in ``folder`` by name, in alphabetical order.

    The clone's folder, the home folder, and folders and files outside the clone that the resolved ``study`` names are shortened in all texts.
    AtlasError for a file that is no part of an atlas, and for a secret of this machine, which is named by its file alone.
    """
    shorter, secrets, content = short_names(study or {}), own_secrets(), {}
    for path in sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or path.suffix not in ENDINGS:
            raise AtlasError(
                f"{path} is no part of an atlas and is not given away; delete it, or write the atlas again: snakemake --force atlas"
            )
        content[name] = shared(path.read_bytes(), path, shorter, secrets)
    if "index.html" not in content:
        raise AtlasError(f"{folder} has no index.html; write the atlas first: snakemake atlas")
    return content


def shared(content: bytes, path: Path, shorter: dict[str, str], secrets: list[bytes]) -> bytes:
    """The content of one file with short names of folders; packed data are searched too."""
    packed = PACKED.fullmatch(content) if path.suffix == ".js" else None
    inner = gzip.decompress(base64.b64decode(packed[2])) if packed else content
    if TOKEN.search(inner) or any(secret in inner for secret in secrets):
        raise AtlasError(
            f"{path} contains a token or password of this machine; remove it from the study, its data or answers before you share them"
        )
    if path.suffix not in TEXT:
        return content
    cleaned, count = shortened(inner, shorter)
    if not count:
        return content
    LOG.info("%s: %d paths of this machine shortened", path, count)
    if not packed:
        return cleaned
    return b'atlas.put(%s,"%s");\n' % (packed[1], base64.b64encode(gzip.compress(cleaned, mtime=0)))


def short_names(study: dict) -> dict[str, str]:
    """What stands in place of folders of this machine, the longest first."""
    home = os.path.expanduser("~")
    own = {home: "~", os.path.realpath(home): "~", os.getcwd(): ".", os.path.realpath(os.curdir): "."}
    short = {given: f".../{Path(given).name}" for given in _absolute(study)} | own
    short = {folder: name for folder, name in short.items() if folder not in NOBODY}
    return dict(sorted(short.items(), key=lambda entry: -len(entry[0])))


def _absolute(value: object) -> Iterator[str]:
    """Absolute paths among the texts of a study that exist here."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _absolute(inner)
    elif isinstance(value, str) and os.path.isabs(value) and value not in NOBODY and os.path.lexists(value):
        yield os.path.normpath(value)


def shortened(text: bytes, shorter: dict[str, str]) -> tuple[bytes, int]:
    """The text with short names, and how many were put in. Data and pages escape some characters, so both forms are looked for."""
    total = 0
    for folder, name in shorter.items():
        for form in dict.fromkeys((folder, json.dumps(folder, ensure_ascii=False)[1:-1], folder.replace("&", "&amp;"))):
            text, count = re.subn(rb"(?<![\w.~-])" + re.escape(form.encode()) + rb"(?![\w.-])", lambda _, name=name: name.encode(), text)
            total += count
    return text, total


def own_secrets() -> list[bytes]:
    """The hub's token and what the environment holds under a name of a secret."""
    from huggingface_hub import get_token

    found: Iterable[str | None] = [get_token(), *(value for name, value in os.environ.items() if SECRET_NAME.search(name))]
    return [secret.encode() for secret in found if secret and len(secret) >= SHORTEST_SECRET and not os.path.exists(secret)]


def study_beside(folder: Path) -> dict:
    """The resolved study of the results that an atlas lies in; empty for the published scores."""
    file = folder.parent / "study.json"
    return read_json(file) if file.is_file() else {}
