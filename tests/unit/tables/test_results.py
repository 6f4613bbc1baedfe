"""Results in Python: tables as documented, what is missing, and errors that say what to do."""

import polars as pl
import pytest

import sft_atlas
from helpers import synthetic
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import write_json, write_table
from sft_atlas.study import paths
from sft_atlas.tables import documented


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    study, root = synthetic.study_json(models=2, datasets=2), tmp_path_factory.mktemp("results") / "results" / "study"
    synthetic.write(root, study)
    for name, frame in synthetic.every_table(study, root).items():
        write_table(root / "tables" / f"{name}.parquet", frame)
    write_json(root / "study.json", study)
    return root


def test_every_table_of_a_study_is_documented():
    every = {*paths.TABLES, *paths.ANALYSED, *paths.OVERLAPS, "similarity", "contaminated_items"}
    assert every == set(documented.TABLES)
    assert all(text and text[0] != " " for table in documented.TABLES.values() for _, text in table.columns.values())


@pytest.mark.parametrize("name", sorted(set(documented.TABLES) - {*paths.OVERLAPS, "contaminated_items"}))
def test_tables_have_the_columns_and_types_that_are_documented(made, name):
    assert sft_atlas.load(made).table(name).schema == documented.schema(name)


def test_tables_are_attributes_and_absent_ones_name_the_command(made):
    atlas = sft_atlas.load(made)
    assert atlas.gains["gain"].dtype == pl.Float64 and "gains" in dir(atlas) and "gains" in repr(atlas)
    with pytest.raises(AtlasError, match=r"overlap\.parquet is missing; make it with: snakemake"):
        _ = atlas.overlap
    with pytest.raises(AttributeError, match="results have no gain; tables: runs"):
        _ = atlas.gain
    with pytest.raises(AtlasError, match="no results of a study"):
        sft_atlas.load(made.parent)


def test_missing_result_files_are_listed_not_filled(made):
    write_json(made / "tables" / "scores.json", {"missing": ["runs/a/b/c/epoch-1/scores/s.parquet"]})
    atlas = sft_atlas.load(made)
    assert atlas.missing == {"scores": ["runs/a/b/c/epoch-1/scores/s.parquet"]} and "1 result files missing" in repr(atlas)


def test_a_table_of_another_version_is_refused_by_column(made, tmp_path):
    other = tmp_path / "study"
    write_json(other / "study.json", {})
    write_table(other / "tables" / "scores.parquet", sft_atlas.load(made).scores.rename({"metric": "measure"}))
    with pytest.raises(AtlasError, match="these columns differ: metric, measure"):
        _ = sft_atlas.load(other).scores


def test_answers_of_a_checkpoint_that_is_not_there_say_where_the_runs_are(made):
    with pytest.raises(AtlasError, match="there are no answers at"):
        sft_atlas.load(made).samples("nobody")
