"""Files and words that Snakemake reads before the workflow are refused with file, line and column, before it runs or stumbles over them."""

import pytest

from sft_atlas.study import command_line

FILES = {
    "deep.yaml": ("a: " + "[" * 3000 + "]" * 3000 + "\n", "nested too deeply"),
    "recursive.yaml": ("study: x\nmodels: &a\n  b: *a\n", ":2:9: not valid YAML: found unconstructable recursive node"),
    "code.yaml": ("__use_yte__: true\nstudy: ?open('ran', 'w')\n", "Snakemake runs the Python code in such a file"),
    "merged.yaml": ("a: &a {__use_yte__: true}\n<<: *a\nstudy: ?open('ran', 'w')\n", "Snakemake runs the Python code in such a file"),
    "code.json": ('{"__use_yte__": true}', "Snakemake runs the Python code in such a file"),
    "aliases.yaml": (
        "\n".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}' if i else 'x'] * 9)}]" for i in range(9)),
        "more than 200,000 values",
    ),
    "list.yaml": ("- a\n", "must hold keys and values"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_snakemake_would_run_or_stumble_over_is_refused(tmp_path, capsys, name):
    text, expected = FILES[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit):
        command_line.check(["-n", "--configfile", str(tmp_path / name), "--config", "key=1"])
    said = capsys.readouterr().err
    assert said.startswith(str(tmp_path / name)) and expected in said and len(said.splitlines()) == 1


def test_a_good_file_is_accepted(tmp_path):
    (tmp_path / "good.yaml").write_text("study: x\nmodels: {a: {hub: b/c}}\n")
    command_line.check(["--configfile", str(tmp_path / "good.yaml"), "--config", "key={b: c}", "-n"])
