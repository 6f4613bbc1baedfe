"""Print the notes of a release from CHANGELOG.md: python .github/release_notes.py v0.2.0

The version must have a section `## 0.2.0` (a date may follow), and pyproject.toml and CITATION.cff must name the same version.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def notes(tag: str, root: Path = ROOT) -> str:
    """The section of a version. Exits with what is missing."""
    version = tag.removeprefix("v")
    declared = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    cited = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    for file, found in (("pyproject.toml", declared), ("CITATION.cff", cited and cited[1].strip("\"'"))):
        if found != version:
            sys.exit(f"{file} has version {found}, the tag is {tag}: change one of them")
    sections = re.split(r"^## ", (root / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = next((section.partition("\n")[2].strip() for section in sections[1:] if section.split()[0] == version), None)
    if not text:
        sys.exit(f"CHANGELOG.md has no section `## {version}`, or it is empty: rename `## Unreleased`")
    return text + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.stdout.write(notes(sys.argv[1]))
