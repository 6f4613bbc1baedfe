"""The files of an atlas: data that a page can unpack, bundles as scripts, numbers that equal the tables', and missing results listed."""

import re

import polars as pl
import pytest

from helpers import atlas as atlases
from helpers import synthetic
from sft_atlas.analyse import select
from sft_atlas.atlas import contents, site, write_atlas
from sft_atlas.core.errors import AtlasError

LOST = ("alder-1b", "arith", "lora-256", 3)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    study, root, frames = synthetic.collected()
    frames = {name: frame.filter(~synthetic.at(*LOST)) if name in ("scores", "gains") else frame for name, frame in frames.items()}
    folder = tmp_path_factory.mktemp("atlas") / "atlas"
    shown = write_atlas.of_study(study, frames, root, atlases.figures(folder.parent / "figures"))
    write_atlas.write(folder, shown, "synthetic", "about", write_atlas.PAGES)
    return study, frames, folder


def test_every_page_names_only_files_that_are_there(written):
    folder = written[2]
    for name in write_atlas.PAGES:
        text = (folder / f"{name}.html").read_text(encoding="utf-8")
        addresses = re.findall(r'(?:src|href)="([^"#?]+)[^"]*"', text)
        assert f"assets/{name}.js" in addresses
        assert [address for address in addresses if not (folder / address).is_file()] == []
        assert not re.search(r"https?://", text)


def test_numbers_are_those_of_the_tables_in_points(written):
    study, frames, folder = written
    table = atlases.unpacked(folder, "checkpoints")
    place = table["address"].index("birch-1b/logic/full-256/3")
    own = {key: values[place] for key, values in table["scores"]["sums"].items()}
    row = frames["scores"].filter(synthetic.at("birch-1b", "logic", "full-256", 3), pl.col("benchmark") == "sums").row(0, named=True)
    cells = select.tested(select.single(frames["gains"], study))  # those of the figure `gains`
    cell = cells.filter(synthetic.at("birch-1b", "logic", "full-256", 3), pl.col("benchmark") == "sums").row(0, named=True)
    assert own["score"] == pytest.approx(100 * row["score"]) and own["stderr"] == pytest.approx(100 * row["stderr"], rel=1e-6)
    assert own["gain"] == pytest.approx(100 * cell["gain"]) and own["q"] == pytest.approx(cell["q"], rel=1e-6)
    assert own["n"] == own["pairs"] == synthetic.ITEMS
    assert own["low"] < own["gain"] < own["high"]
    assert own["high"] - own["low"] == pytest.approx(2 * 1.984217 * own["gain_stderr"], rel=1e-5)  # Student's t with 99 degrees of freedom


def test_a_missing_result_is_listed_and_never_a_zero(written):
    table = atlases.unpacked(written[2], "checkpoints")
    name = "/".join(map(str, LOST))
    assert table["missing"] == [name]
    place = table["address"].index(name)
    assert {values["score"][place] for values in table["scores"].values()} == {None}
    assert table["mean_gain"][place] is None


def test_base_models_have_no_gain_and_come_first(written):
    table = atlases.unpacked(written[2], "checkpoints")
    assert table["method"][:3] == ["base"] * 3 and table["gain" if "gain" in table else "mean_gain"][:3] == [None] * 3


def test_an_earlier_atlas_stays_until_the_new_one_is_whole(tmp_path):
    folder = tmp_path / "atlas"
    with site.Site(folder, "first", []) as first:
        first.data("a", {"value": float("nan")})
        first.finish()
    with pytest.raises(ZeroDivisionError), site.Site(folder, "second", []) as second:
        second.data("b", {"value": 1 / 0})
    assert [path.name for path in (folder / "data").iterdir()] == ["a.js"] and [path.name for path in tmp_path.iterdir()] == ["atlas"]
    assert atlases.unpacked(folder, "a") == {"value": None}


def test_a_bundle_in_another_form_is_refused():
    assert site.as_script("let a=1;export{a as default,b as jQuery};\n/* MIT */") == (
        "(function(){let a=1;\nwindow.DataTable=a;window.jQuery=b;})();\n/* MIT */\n"
    )
    with pytest.raises(AtlasError, match="another form"):
        site.as_script("let a=1;")
    with pytest.raises(AtlasError, match=r"itables with its file none\.js is not installed"):
        site.bundle("itables", "none.js")


def test_colours_end_where_most_gains_do():
    assert contents.robust_limit([None, *[0.2] * 50]) == 1
    assert contents.robust_limit([*[10.0] * 99, 900.0]) == pytest.approx(20, abs=0.1), "one outlier"
    assert contents.robust_limit([0.0] * 50 + [30.0, 90.0], [1.0] * 50 + [0.01] * 2) == pytest.approx(90), "most gains are near 0 and grey"
