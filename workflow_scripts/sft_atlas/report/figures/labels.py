"""Labels that can be drawn: in a font that has their characters, short enough for an axis, and never markup.

DejaVu Sans, which comes with matplotlib, has no Chinese, Japanese or Korean. Where a label needs more, installed fonts that have the
characters are added as fallbacks; characters that no font has are transliterated to ASCII, and the log says so.
"""

import copy
from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
from anyascii import anyascii
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from sft_atlas.core.log import LOG

FONT = "DejaVu Sans"
LONGEST = 34  # characters of a label
KINDS = ("models", "datasets", "benchmarks", "recipes")
PLACEHOLDERS = ("last resort", "lastresort", "color", "emoji", "unifont")  # fonts of boxes, of bitmaps, or not for reading


def drawable(study: dict) -> dict:
    """A copy of the study whose labels can be drawn; sets the fonts of matplotlib that they need. Equal short forms are numbered."""
    study = copy.deepcopy({kind: study[kind] for kind in KINDS if kind in study}) | {key: study[key] for key in study if key not in KINDS}
    entries = {kind: study.get(kind, {}) for kind in KINDS}
    written = {entry.get("label", name) for kind in KINDS for name, entry in entries[kind].items()}
    covered = set_fonts(written)
    replaced = sorted(label for label in written if set(label) - covered - {"\n", "\t"})
    if replaced:
        LOG.warning(
            "no font on this machine has all characters of these labels, so that figures show them in Latin letters: %s. Install a font "
            "that has them, such as Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk), delete ~/.cache/matplotlib and draw again.",
            ", ".join(replaced[:5]) + (f" and {len(replaced) - 5} more" if len(replaced) > 5 else ""),
        )
    for members in entries.values():
        taken: set[str] = set()
        for name, entry in members.items():
            entry["label"] = _distinct(_short(_latin(entry.get("label", name), covered)), taken)
            taken.add(entry["label"])
    return study


def set_fonts(texts: Iterable[str]) -> set[str]:
    """Add the fonts to ``font.family`` that have what DejaVu Sans lacks of these texts; return the characters that can be drawn."""
    wanted = {character for text in texts for character in text if not character.isspace()}
    names, covered = [FONT], {" "} | (wanted & _characters(font_manager.findfont(FONT)))
    candidates = _installed() if wanted - covered else []
    while wanted - covered and candidates:
        best = max(candidates, key=lambda entry: len((wanted - covered) & entry[1]))
        if not (wanted - covered) & best[1]:
            break
        names.append(best[0])
        covered |= wanted & best[1]
    mpl.rcParams["font.family"] = names
    return covered


def _installed() -> list[tuple[str, set[str]]]:
    """Name and characters of every upright font of usual weight, in the order of their names; fonts that cannot be read are left out."""
    found = {}
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: (font.name, font.fname)):
        usual = font.style == "normal" and font.weight in (400, "normal", "regular") and font.name not in found
        if usual and not any(word in font.name.lower() for word in PLACEHOLDERS) and Path(font.fname).is_file():
            found[font.name] = _characters(font.fname)
    return list(found.items())


def _characters(path: str) -> set[str]:
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError) as error:
        LOG.info("the font %s cannot be read: %s", path, error)
        return set()
    return set(map(chr, font.get_charmap())) if font.scalable else set()


def _latin(label: str, covered: set[str]) -> str:
    """The label in one line, with characters that cannot be drawn in ASCII."""
    label = " ".join(label.split())
    return " ".join("".join(one if one in covered else anyascii(one) or "?" for one in label).split()) or "?"


def _short(label: str) -> str:
    """At most LONGEST characters; the end stays, in which names of variants differ."""
    if len(label) > LONGEST:
        label = f"{label[: LONGEST - 9].rstrip()}…{label[-8:].lstrip()}"
    return f" {label}" if label.startswith("_") else label  # matplotlib hides entries of legends that begin with an underscore


def _distinct(label: str, taken: set[str]) -> str:
    number = 2
    name = label
    while name in taken:
        name, number = f"{label} ({number})", number + 1
    return name
