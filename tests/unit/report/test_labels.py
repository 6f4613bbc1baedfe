"""Labels in any script, of any length, with characters that elsewhere are markup."""

import matplotlib as mpl
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from sft_atlas.report.figures import labels, style

WORDS = {"小さなモデル": "Japanese", "拼写数据集": "Chinese", "맞춤법": "Korean"}


@pytest.fixture(autouse=True)
def only_fonts_of_matplotlib(monkeypatch):
    """The fonts that come with matplotlib, whatever the machine has besides."""
    manager = font_manager.fontManager  # the one that the drawing code has imported
    monkeypatch.setattr(manager, "ttflist", [font for font in manager.ttflist if "matplotlib" in font.fname])
    monkeypatch.setitem(mpl.rcParams, "font.family", ["DejaVu Sans"])


def study(**names):
    return {"models": {name: {"label": label} for name, label in names.items()}, "datasets": {}, "benchmarks": {}, "recipes": {}}


def shown(**names):
    return [entry["label"] for entry in labels.drawable(study(**names))["models"].values()]


@pytest.mark.parametrize("word", WORDS, ids=WORDS.values())
def test_without_a_font_labels_are_in_latin_letters_and_the_log_says_so(word, caplog):
    (label,) = shown(a=f"{word} 7B")
    assert label.isascii() and label.endswith("7B") and len(label) > 5
    assert word in caplog.text and "fonts-noto-cjk" in caplog.text


def test_a_font_that_has_the_characters_is_found_and_drawn(tmp_path, caplog, recwarn):
    characters = sorted(set("".join(WORDS)))
    names = [".notdef", *(f"u{ord(one):04X}" for one in characters)]
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((500, 0)), pen.lineTo((500, 700)), pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(one): name for one, name in zip(characters, names[1:], strict=True)})
    font.setupGlyf(dict.fromkeys(names, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Test Sans", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800)
    font.setupPost()
    font.save(tmp_path / "test.ttf")
    font_manager.fontManager.ttflist = [
        *font_manager.fontManager.ttflist, font_manager.FontEntry(fname=str(tmp_path / "test.ttf"), name="Test Sans", style="normal", weight=400, size="scalable")
    ]  # fmt: skip
    assert shown(**{f"m{i}": word for i, word in enumerate(WORDS)}) == list(WORDS)
    assert mpl.rcParams["font.family"] == ["DejaVu Sans", "Test Sans"]
    assert not caplog.text
    canvas = style.figure(3, 1)
    canvas.text(0, 0.5, "".join(WORDS))
    style.save(canvas, tmp_path / "x.pdf", tmp_path / "x.png")
    assert not [one for one in recwarn if "Glyph" in str(one.message)]


def test_labels_are_one_short_line_and_stay_distinct(tmp_path):
    long = "Qwen2.5 7B continued on a very long list of corpora, checkpoint "
    names = shown(a=f"{long}100", b=f"{long}200", c="two\nlines", d="same", e="same", f="_hidden", g="", h="$x_$ \\frac{")
    assert len(set(names)) == len(names) and max(map(len, names)) <= labels.LONGEST + 4
    assert names[0].endswith("100") and names[1].endswith("200")
    assert names[2:] == ["two lines", "same", "same (2)", " _hidden", "?", "$x_$ \\frac{"]
    canvas = style.figure(3, 1)
    canvas.text(0, 0.5, names[-1])
    style.save(canvas, tmp_path / "x.pdf", tmp_path / "x.png")
