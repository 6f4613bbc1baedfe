"""`snakemake published` runs independently of any study, and reports a faulty CSV."""

import subprocess
import sys

import polars as pl
import pytest

from helpers.folders import ROOT, fresh, small_demo
from helpers.waiting import HANG

REAL = ROOT / "../shared/published/evaluation_result.csv"
pytestmark = pytest.mark.skipif(not REAL.is_file(), reason="../shared/published is absent")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fresh(tmp_path_factory.mktemp("published"), small_demo())


def call(folder, *arguments: str, ok: bool = True) -> str:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "published", *arguments]
    done = subprocess.run(command, cwd=folder.path, env=folder.environment(), capture_output=True, text=True, timeout=HANG)
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, output[-4000:]
    return output


def test_the_published_scores_from_the_csv_to_the_claims(folder):
    key = f"published_csv={REAL.resolve()}"
    output = call(folder, "--config", key)
    printed = output[output.index("Published scores of") :]
    assert (
        printed.index("3. Of 23 claims") < printed.index("results/published/claims.md:") and "mixed (4 for, 1 against, 1 open)" in printed
    )
    made = folder.path / "results/published"
    assert {path.name for path in (folder.path / "results").iterdir() if path.is_dir()} == {"published"}
    assert pl.read_parquet(made / "tables/scores.parquet")["row"].n_unique() == 1027
    assert "# Audit" in (made / "audit.md").read_text()
    assert "**supported**" in (made / "claims.md").read_text()
    for policy in ("raw", "repaired"):
        assert len(list((made / f"figures/{policy}").glob("*.pdf"))) == len(list((made / f"figures/{policy}").glob("*.png"))) == 12
    assert "Nothing to be done" in call(folder, "--config", key)
    assert "Nothing to be done" in call(folder, "--configfile", "study.yaml", "--config", key)


def test_advice_for_a_base_model_needs_nothing_but_the_published_scores(folder):
    key = f"published_csv={REAL.resolve()}"
    printed = folder.run("advise", "--config", "advise={model: llama3-8b, datasets: [lima, math]}", key)
    assert "Ranked by its own published scores." in printed and "mean of the other base models (baseline)" in printed
    assert "95 % prediction intervals held 102 of 109 effects" in printed
    table = pl.read_parquet(folder.result("advice/llama3-8b/advice.parquet"))
    assert sorted(table["dataset"]) == ["lima", "math"] and table["n"].to_list() == [13, 13]


def test_the_key_is_no_part_of_the_study(folder):
    """Naming a file changes no job of the study."""
    plans = []
    for more in ((), ("--config", f"published_csv={REAL.resolve()}")):
        command = [sys.executable, "-m", "snakemake", "-n", "--printshellcmds", "--configfile", "study.yaml", *more]
        done = subprocess.run(command, cwd=folder.path, env=folder.environment(), capture_output=True, text=True, timeout=HANG, check=True)
        plans.append(sorted(line for line in done.stdout.splitlines() if "workflow_scripts/" in line and "python" in line))
    assert plans[0] == plans[1] and plans[0]


def test_mistakes_are_reported(folder, tmp_path):
    assert "published_csv: there is no file no/such.csv" in call(folder, "--config", "published_csv=no/such.csv", ok=False)
    cut = tmp_path / "cut.csv"
    cut.write_bytes(REAL.read_bytes()[:-300])
    assert f"{cut}: the last line is incomplete, so the file was cut" in call(folder, "--config", f"published_csv={cut}", ok=False)
