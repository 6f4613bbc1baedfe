"""`snakemake --list`, where people look for what they can ask for."""

import shutil

from sft_atlas.core.provenance import ROOT


def test_targets_come_first_and_jobs_last(empty):
    printed = empty.run("--list")
    positions = [printed.index(f"\n{line}") for line in ("Targets:", "Blocks of the study:", "Jobs (started by targets):")]
    targets, jobs = printed.index("  all "), printed.index("  measure_layers ")
    assert positions[0] < targets < printed.index("  plan ") < positions[1] < printed.index("  single ") < positions[2] < jobs
    lines = [line for line in printed.splitlines() if line.startswith("  ") and "Workflow" not in line]
    assert all(len(line.split()) > 2 for line in lines), "every rule has a docstring"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in ("data", "train", "scores", "tables", "figures"):
        assert f"  {target} " in printed[: positions[1]] and target in readme
    assert (ROOT / "config/smollm2.yaml").exists()  # the README's other study


def test_the_doctor_runs_in_the_workflow_and_writes_nothing_but_its_log(empty):
    shutil.copy(ROOT / "pyproject.toml", empty.path)
    printed = empty.run("doctor", "--quiet", "all")
    assert "| Python " in printed and "small has here what it needs." in printed
    assert [path.name for path in (empty.path / "results/small").rglob("*") if path.is_file()] == ["doctor.log"]
