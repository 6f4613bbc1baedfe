"""Files that are no study end in one line that says where."""

import json
import re

import jsonschema
import pytest

from sft_atlas.core.errors import ConfigError
from sft_atlas.core.provenance import ROOT
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.task_files import task_file

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
FAULTS = {
    "not UTF-8": (b"study: a\nlabel: \xff\n", "study.yaml:2:8: not UTF-8 (byte 0xff); save the file as UTF-8"),
    "deep": (b"study: " + b"[" * 3000, "nested too deeply; a study has at most 50 levels"),
    "deep but whole": (b"study: " + b"[" * 60 + b"]" * 60, "nested too deeply, or holds itself by an alias"),
    "recursive": (b"study: &a [*a]", "found unconstructable recursive node"),
    "recursive keys": (b"x: &x {y: *x}", "found unconstructable recursive node"),
    "billion laughs": (LAUGHS.encode(), "holds more than 200,000 values, counting what aliases stand for"),
    "half a surrogate pair": (b'study: {a: ["\\ud800"]}', "study.a[0]: holds half a surrogate pair (\\ud800); remove it"),
    "a control character": (b'study: "\\x1b[2J"', "study: holds a control character (\\x1b); remove it"),
    "infinity": (b"a: {b: -.inf}", "a.b: must be a finite number, not -inf"),
    "a long number": (b"a: 99999999999999999999", "a: is a number of more than 64 bits"),
    "too long a number": (b"a: " + b"9" * 5000, "holds a value that does not fit its type"),
    "no such date": (b"a: 2024-13-45", "holds a value that does not fit its type: 'month must be in 1..12'; quote texts"),
    "a tag that does not fit": (b"a: !!bool x", "holds a value that does not fit its type"),
    "a Python object": (b"a: !!python/object/apply:os.system [id]", "study.yaml:1:4: not valid YAML"),
    "a template with code": (b"__use_yte__: true\na: ?1 + 1", "__use_yte__: Snakemake runs the Python code in such a file"),
    "no keys": (b"word", "must hold keys and values"),
    "nothing": (b"", "must hold keys and values"),
}


@pytest.mark.parametrize(("text", "words"), FAULTS.values(), ids=FAULTS)
def test_a_file_that_is_no_study(tmp_path, text, words):
    file = tmp_path / "study.yaml"
    file.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        strict_yaml(file)
    assert words in str(caught.value) and str(caught.value).isprintable()


def test_a_file_that_is_not_there_or_a_folder(tmp_path):
    for path, words in {tmp_path / "absent.yaml": "there is no such file", tmp_path: "cannot be read: Is a directory"}.items():
        with pytest.raises(ConfigError, match=words):
            strict_yaml(path)


SHIPPED = [*ROOT.glob("config/**/*.yaml"), ROOT / "slurm/site.yaml"]


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.name != "judge_prompts.yaml"], ids=lambda path: path.name)
def test_editors_find_the_schema_of_a_file_and_accept_it(path):
    text = path.read_text(encoding="utf-8")
    schema = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)[1]
    keys = {**task_file(str(path))} if path.parent.name == "benchmarks" else strict_yaml(path)
    jsonschema.validate(keys, json.loads((path.parent / schema).read_text(encoding="utf-8")))


def test_the_schema_of_overlays_asks_for_no_key_and_refuses_unknown_ones():
    schema = json.loads((ROOT / "config/overlay-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate({"recipes": {"full": {"rows": 3}}}, schema)
    with pytest.raises(jsonschema.ValidationError, match="learning_rte"):
        jsonschema.validate({"recipes": {"full": {"learning_rte": 3}}}, schema)
