"""Rows of the tasks of a group: in the table of scores, and in no analysis, figure, finding or page."""

import argparse
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from helpers import atlas as atlases
from helpers import synthetic
from sft_atlas import load
from sft_atlas.atlas import write_atlas
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_json, write_table
from sft_atlas.report import write_card, write_findings
from sft_atlas.study import paths
from sft_atlas.tables import documented, export, origins, stored
from sft_atlas.tables.collect import collect

GROUP = "sums"  # of the planted study: here as if it were a group of two tasks


def add_subtasks(path: Path) -> None:
    """Rows of two tasks with scores that no analysis could overlook."""
    frame = pl.read_parquet(path).with_columns(subtask=pl.lit(None, pl.String))
    group = frame.filter(benchmark=GROUP)
    parts = [
        group.with_columns(subtask=pl.lit(name), score=pl.lit(score), n=pl.lit(n)) for name, score, n in (("a", 1.0, 1), ("b", 0.0, 99))
    ]
    pl.concat([frame, *parts], how="vertical_relaxed").write_parquet(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A study as it is, and the same with rows of tasks; each with the tables that findings read."""
    study, found = synthetic.study_json(models=3, datasets=3, trajectories=False, leave_one_out=True, merged=True), {}
    for name in ("plain", "grouped"):
        root = tmp_path_factory.mktemp(name)
        synthetic.write(root, study)
        write_json(root / "study.json", study)
        if name == "grouped":
            for file in paths.result_files(study, "scores", root):
                add_subtasks(file.path)
        for table, frame in synthetic.every_table(study, root).items():
            write_table(root / f"tables/{table}.parquet", frame)
        found[name] = root
    return study, found


def args_of(root: Path) -> argparse.Namespace:
    return argparse.Namespace(study=root / "study.json", tables=root / "tables")


def test_the_table_has_a_row_of_each_task_beside_that_of_the_group(folders):
    _, roots = folders
    plain, grouped = (load(roots[name]).scores for name in ("plain", "grouped"))
    assert grouped.schema == documented.schema("scores") and plain["subtask"].null_count() == plain.height
    whole = plain.filter(benchmark=GROUP).height
    assert grouped.filter(pl.col("subtask").is_not_null()).group_by("benchmark", "subtask").len().sort("subtask").rows() == [
        (GROUP, "a", whole), (GROUP, "b", whole),
    ]  # fmt: skip
    assert_frame_equal(grouped.filter(pl.col("subtask").is_null()), plain)


@pytest.mark.parametrize("each_seed", [True, False])
def test_no_table_that_jobs_analyse_has_a_subtask(each_seed, folders):
    _, roots = folders
    (study, plain), (other, grouped) = (stored.load(args_of(roots[name]), paths.REPORTED, each_seed) for name in ("plain", "grouped"))
    assert study == other and plain.keys() == grouped.keys()
    for name, frame in plain.items():
        assert_frame_equal(frame, grouped[name])


def test_findings_and_pages_are_those_without_subtasks(folders, tmp_path):
    _, roots = folders
    texts, listed = [], []
    for name, root in roots.items():
        study, tables = stored.load(args_of(root), paths.REPORTED, each_seed=True)
        texts.append(write_findings.page(study, tables, Path("figures")))
        write_atlas.main(
            argparse.Namespace(**vars(args_of(root)), figures=atlases.figures(tmp_path / "figures"), output=tmp_path / name / "index.html")
        )
        listed.append({path.name: path.read_text() for path in (tmp_path / name / "data").rglob("*.js")})
    assert texts[0] == texts[1] and listed[0] == listed[1] and len(listed[0]) > 5


def test_a_card_has_the_group_alone(folders, tmp_path, monkeypatch):
    study, roots = folders
    shown = []
    monkeypatch.setattr(write_card, "card", lambda record, base, scores, *more: shown.append(scores) or "card")
    write_json(tmp_path / "record.json", {})
    for root in roots.values():
        files = [file.path for file in paths.result_files(study, "scores", root) if file.keys["dataset"] != "base"][:1]
        names = {"record": tmp_path / "record.json", "base": tmp_path / "record.json", "scores": files, "base_scores": []}
        write_card.main(argparse.Namespace(**names, study="s", epoch=1, facts=None, output=tmp_path / "card.md"))
    assert [row["benchmark"] for row in shown[0]] == [row["benchmark"] for row in shown[1]]


def test_subtasks_cannot_stand_in_for_the_group(folders, tmp_path):
    """A file with rows of tasks and none of the benchmark is refused, as one that lacks it."""
    study, _ = folders
    synthetic.write(tmp_path, study)
    file = next(
        file.path for file in paths.result_files(study, "scores", tmp_path) if GROUP in study["suites"][file.keys["suite"]]["benchmarks"]
    )
    add_subtasks(file)
    frame = pl.read_parquet(file)
    frame.filter((pl.col("benchmark") != GROUP) | pl.col("subtask").is_not_null()).write_parquet(file)
    with pytest.raises(AtlasError, match="holds the benchmarks"):
        collect(study, "scores", tmp_path)


def test_the_csv_names_them(folders, run_script, tmp_path):
    _, roots = folders
    run_script(export, tables=[roots["grouped"] / "tables/scores.parquet"], output=tmp_path)
    assert set(pl.read_csv(tmp_path / "scores.csv")["subtask"].drop_nulls()) == {"a", "b"}


def test_comparable_scores_have_none(folders):
    _, roots = folders
    kept, out = origins.comparable(load(roots["grouped"]).scores)
    assert kept["subtask"].null_count() == kept.height and out == []
