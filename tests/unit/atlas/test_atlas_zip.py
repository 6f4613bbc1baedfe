"""The atlas as one file: always the same bytes, the pages alone, nothing of this machine."""

import base64
import gzip
import hashlib
import json
import os
import zipfile

import pytest

from sft_atlas.atlas import atlas_zip
from sft_atlas.core.errors import AtlasError
from sft_atlas.report import shared_atlas

TOKEN = "hf_" + "abcdEFGH1234" * 3


def data(name, value):
    packed = base64.b64encode(gzip.compress(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(), mtime=0)).decode()
    return f'atlas.put("{name}","{packed}");\n'


def values(text):
    return json.loads(gzip.decompress(base64.b64decode(shared_atlas.PACKED.fullmatch(text)[2])))


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The results of a study with an atlas that names folders of this machine; returns its index.html."""
    home, clone, elsewhere = (tmp_path / name for name in ("home", "clone", "disk/models/ant"))
    for folder in (home, clone, elsewhere, clone / "results/a/atlas/data/checkpoint", clone / "results/a/atlas/figures"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(clone)
    monkeypatch.setenv("HOME", str(home))
    (clone / "results/a/study.json").write_text(json.dumps({"study": "a", "models": {"ant": {"path": str(elsewhere)}}}))
    atlas = clone / "results/a/atlas"
    (atlas / "index.html").write_text(f"<p>{clone}/results</p>")
    (atlas / "figures/gains.png").write_bytes(b"\x89PNG")
    (atlas / "data/study.js").write_text(data("study", {"study": "a"}))
    said = [f"{elsewhere}/config.json", f"{home}/x", f"{clone}-other", "/usr/bin/env", f"{clone}/results/a"]
    (atlas / "data/checkpoint/0.js").write_text(data("checkpoint/0", said))
    return atlas / "index.html"


def write(results, name):
    output = results.parent.parent / name
    args = atlas_zip.argparse.Namespace(atlas=results, name="a-atlas", output=output)
    atlas_zip.main(args)
    return output


def test_the_same_pages_give_the_same_bytes(results):
    first = write(results, "one.zip")
    for number, path in enumerate(sorted(results.parent.rglob("*.*"))):
        os.utime(path, (number, 1e9 + number))
    second = write(results, "two.zip")
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    with zipfile.ZipFile(first) as packed:
        assert packed.testzip() is None
        assert packed.namelist() == [
            "a-atlas/data/checkpoint/0.js", "a-atlas/data/study.js", "a-atlas/figures/gains.png", "a-atlas/index.html",
        ]  # fmt: skip
        assert {entry.date_time for entry in packed.infolist()} == {atlas_zip.LONG_AGO}


def test_no_folder_of_this_machine_is_named(results, tmp_path):
    with zipfile.ZipFile(write(results, "one.zip")) as packed:
        assert packed.read("a-atlas/index.html") == b"<p>./results</p>"
        assert values(packed.read("a-atlas/data/checkpoint/0.js")) == [
            ".../ant/config.json", "~/x", f"{tmp_path}/clone-other", "/usr/bin/env", "./results/a",
        ]  # fmt: skip
        assert packed.read("a-atlas/data/study.js") == (results.parent / "data/study.js").read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "scores.parquet", ".env"])
def test_what_is_no_page_is_refused_by_name(results, name):
    (results.parent / name).write_text("x")
    with pytest.raises(AtlasError, match=f"{name} is no part of an atlas"):
        write(results, "one.zip")


@pytest.mark.parametrize("secret", [TOKEN, "a-password-of-mine"])
def test_a_secret_is_refused_and_not_repeated(results, secret, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "a-password-of-mine")
    (results.parent / "data/checkpoint/0.js").write_text(data("checkpoint/0", {"answer": f"the key is {secret}"}))
    with pytest.raises(AtlasError, match=r"checkpoint/0\.js contains a token or password") as raised:
        write(results, "one.zip")
    assert secret not in str(raised.value) and not (results.parent.parent / "one.zip").exists()


def test_links_are_not_followed_and_an_atlas_must_be_there(results, tmp_path):
    (results.parent / "more.html").symlink_to(tmp_path / "home")
    with pytest.raises(AtlasError, match=r"more\.html is no part"):
        write(results, "one.zip")
    (results.parent / "more.html").unlink()
    results.unlink()
    with pytest.raises(AtlasError, match=r"has no index\.html; write the atlas first"):
        write(results, "one.zip")
