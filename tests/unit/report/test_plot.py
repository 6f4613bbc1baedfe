"""The job that draws a figure: the same files twice, and a missing table is an error."""

import subprocess
import sys

import pytest

from helpers import synthetic
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.provenance import ROOT
from sft_atlas.report import plot
from sft_atlas.report.figures import FIGURES


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The folder of a study of one base model with the tables of one figure."""
    root = tmp_path_factory.mktemp("study")
    study = synthetic.study_json(models=1, trajectories=False, leave_one_out=False)
    synthetic.write(root, study)
    frames = synthetic.every_table(study, root)
    (root / "tables").mkdir(exist_ok=True)
    for name in FIGURES["perplexity_gain"].tables:
        frames[name].write_parquet(root / "tables" / f"{name}.parquet")
    return root


@pytest.mark.slow
def test_the_command_writes_the_same_files_twice(stored, tmp_path):
    call = [sys.executable, ROOT / "workflow_scripts/run.py", "plot", "--study", stored / "study.json", "--tables", stored / "tables"]
    made = []
    for i in range(2):
        pdf, png = tmp_path / f"{i}.pdf", tmp_path / f"{i}.png"
        subprocess.run([*call, "--figure", "perplexity_gain", "--output-pdf", pdf, "--output-png", png], check=True, capture_output=True)
        made.append((pdf.read_bytes(), png.read_bytes()))
    assert made[0] == made[1]
    assert made[0][0].startswith(b"%PDF") and made[0][1].startswith(b"\x89PNG")


def test_a_missing_table_is_an_error_that_says_how_to_make_it(stored, run_script, tmp_path):
    options = {"study": stored / "study.json", "tables": tmp_path, "output_pdf": tmp_path / "x.pdf", "output_png": tmp_path / "x.png"}
    with pytest.raises(AtlasError, match=r"\.parquet is missing; make it with: snakemake "):
        run_script(plot, **options, figure="gains")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_no_fault_of_the_figure(monkeypatch, tmp_path):
    from sft_atlas.core.disk import DiskFull
    from sft_atlas.report.figures import style

    def full(*_):
        raise DiskFull("the file system / is full")

    monkeypatch.setattr(style, "save", full)
    with pytest.raises(DiskFull):
        style.draw_and_save("gains", lambda: style.absent("gains", "runs"), tmp_path / "a.pdf", tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
