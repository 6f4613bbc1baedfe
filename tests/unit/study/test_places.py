"""Every error of a configuration has its file, line and column, whichever of several sources has the last word."""

import re

import pytest

from sft_atlas.core.errors import ConfigError
from sft_atlas.core.provenance import ROOT
from sft_atlas.study import command_line, site
from sft_atlas.study import study as studies
from sft_atlas.study.messages import strict_yaml
from sft_atlas.study.places import ConfigSources

BASE = """study: small
models:
  ant: {path: ant, family: llama}
recipes:
  common: &common {method: full, rows: 8}
  full: {<<: *common, epochs: 1}
  search:
    method: full
    grid:
      learning_rate: [1.0e-3, 1.0e-4]
  v1.5:
    method: lora
blocks:
  one: {models: "*", datasets: "*", recipes: [full, search, ful]}
  two: {models: "*", datasets: "*", recipes: [full, ful]}
suites:
  short: {benchmarks: [sums]}
benchmarks:
  sums: {size: 4}
"""
OVER = """recipes:
  full:
    epochs: 3
    learning_rte: 1
suites:
  short: {benchmarks: [sums, other]}
"""
WORDS = ("seed=x", "recipes={full: {rows: many}, new: {method: full}}", "suites=oops")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "over.yaml").write_text(OVER)
    return tmp_path


PLACES = {
    "a key": ("models.ant.path: there is no ant", "base.yaml:3:9"),
    "a key that the second file sets": ("recipes.full.epochs: too many", "over.yaml:3:5"),
    "an unknown key": ("recipes.full.learning_rte: unknown key", "over.yaml:4:5"),
    "a key that is merged into it": ("recipes.full.method: wrong", "base.yaml:5:20"),
    "a missing key": ("recipes.v1.5.rows: this key is required and missing", "base.yaml:11:3"),
    "a missing key at the top": ("template: this key is required and missing", "base.yaml:1:1"),
    "a name with a dot": ("recipes.v1.5.method: wrong", "base.yaml:12:5"),
    "an item of a list": ("blocks.two.recipes[1]: there is no recipe 'ful'", "base.yaml:15:53"),
    "a list that the second file replaces": ("suites.short.benchmarks[1]: there is no", "over.yaml:6:30"),
    "a list in which a grid's recipes stand": ("blocks.one.recipes[3]: there is no recipe 'ful'", "base.yaml:14:37"),
    "a recipe of a grid": ("recipes.search_lr0.001.rows: missing", "base.yaml:7:3"),
    "a phrase that begins with a key": ("models.ant and benchmarks.quiz read the same file", "base.yaml:3:3"),
}


@pytest.mark.parametrize(("problem", "place"), PLACES.values(), ids=PLACES)
def test_a_problem_has_the_place_of_its_key(folder, problem, place):
    assert ConfigSources(["base.yaml", "over.yaml"]).located(problem) == f"{place}: {problem}"


def test_a_value_given_on_the_command_line_has_its_word_and_column(folder):
    sources = ConfigSources(["base.yaml"], WORDS)
    assert str(sources) == "base.yaml + --config"
    assert sources.located("seed: no integer") == "--config seed, column 1: seed: no integer"
    assert sources.located("recipes.full.rows: no integer").startswith("--config recipes, column 17: ")
    assert sources.located("recipes.full.epochs: no integer").startswith("base.yaml:6:23: ")
    assert sources.located("recipes.new.rows: missing").startswith("--config recipes, column 30: ")
    assert sources.located("suites: must hold names with keys and values").startswith("--config suites, column 1: ")
    assert (
        ConfigSources(["base.yaml"], ["recipes={a: 1,\n b: 2}"])
        .located("recipes.b: wrong")
        .startswith("--config recipes, line 2, column 2")
    )


def test_a_problem_of_a_task_file_has_the_place_of_the_benchmark_and_its_own(folder):
    (folder / "task.yaml").write_text("output_type: generate_until\ndoc_to_text: '{{passage}}'\n")
    (folder / "study.yaml").write_text("benchmarks:\n  quiz: {size: 3, task: task.yaml}\n")
    found = ConfigSources(["study.yaml"]).located("task.yaml: doc_to_text: 'passage' is undefined")
    assert found == "study.yaml:2:19: task.yaml:2:1: doc_to_text: 'passage' is undefined"


def test_every_problem_of_the_schema_and_of_the_checks_has_a_place(folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "config/demo.yaml").read_text(encoding="utf-8")
    file = folder / "study.yaml"
    for wrong in (
        "seed: x",
        "sed: 3",
        "recipes: {full: {rows: many}}",
        "plan: {device: h1000}",
        "select: {models: [none]}",
        "blocks: {a: {}}",
    ):
        key = wrong.split(":")[0]
        file.write_text(re.sub(rf"^{key}:.*\n([ #].*\n|\n)*", "", text, flags=re.MULTILINE) + wrong + "\n")
        with pytest.raises(ConfigError) as caught:
            studies.load(file).check_paths()
        assert all(re.match(rf"{re.escape(str(file))}:\d+:\d+: \S", line) for line in str(caught.value).splitlines()), str(caught.value)


def test_a_mistake_in_the_site_file_has_its_place(folder):
    (folder / "site.yaml").write_text("account: a\npartitions: {gpus: x}\n")
    with pytest.raises(ConfigError, match=r"^site\.yaml:2:14: partitions\.gpus: unknown key; did you mean 'gpu'"):
        site.load("site.yaml")


def test_a_value_that_does_not_fit_its_type_and_a_control_character_have_places(folder):
    for text, place in {
        "a: 1\nb: [2024-13-45]\n": "2:5",
        'a: 1\nb: {c: "\\x1b"}\n': "2:5",
        "a: 1\nb: é\xff".encode("latin-1"): "2:4",
    }.items():
        (folder / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigError, match=rf"^x\.yaml:{place}: "):
            strict_yaml(folder.joinpath("x.yaml").relative_to(folder))


CALLS = {
    "a file that is not there": (["-n", "--configfile", "absent.yaml"], "absent.yaml: there is no such file"),
    "a list that does not end": (["--configfile", "base.yaml", "open.yaml", "--cores", "2"], "open.yaml:3:1: not valid YAML: "),
    "a tab": (["--configfiles", "tab.yaml"], "tab.yaml:2:1: not valid YAML: found character '\\t' that cannot start any token"),
    "no keys": (["--configfile", "list.yaml"], "list.yaml:1:1: must hold keys and values"),
    "a word without a value": (["-C", "models"], "--config: models: give it a value: --config models=VALUE"),
    "a word with an odd key": (["--config", "1=2"], "--config: 1=2: '1' cannot be a key; write KEY=VALUE"),
    "a brace that does not end": (["--config", "recipes={full: {rows: 3"], "--config: recipes, column 24: not valid YAML: "),
}


@pytest.mark.parametrize(("arguments", "words"), CALLS.values(), ids=CALLS)
def test_what_snakemake_reads_first_is_checked_before_it(folder, capsys, arguments, words):
    (folder / "open.yaml").write_text("models: [\n  a,\n")
    (folder / "tab.yaml").write_text("models:\n\ta: 1\n")
    (folder / "list.yaml").write_text("- a\n")
    with pytest.raises(SystemExit) as caught:
        command_line.check(arguments)
    assert caught.value.code == 1 and capsys.readouterr().err.startswith(words)


def test_calls_that_are_fine_pass(folder):
    command_line.check([])
    command_line.check(["--configfile", "base.yaml", "over.yaml", "--config", *WORDS, "--", "target"])
    assert command_line.configuration(["one", "--configfile=base.yaml", "-n"]) == (["base.yaml"], [])
