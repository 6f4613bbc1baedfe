"""The results of a study in Python: typed polars frames with documented columns.

    from sft_atlas import load
    atlas = load("results/demo")
    atlas.gains.filter(pl.col("benchmark") == "sums").sort("gain")

Nothing is computed: the frames are the Parquet files of the study, one row for each seed. docs/tables.md describes every column.
"""

from functools import cached_property
from pathlib import Path

import polars as pl

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table
from sft_atlas.study import paths
from sft_atlas.tables import documented


class Results:
    """The results in one folder; each table is an attribute. ``load`` makes it."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.paths = paths.Paths(self.root)
        if not Path(self.paths.study).is_file():
            raise AtlasError(f"{self.root} holds no results of a study: there is no {self.paths.study}. Name the folder results/STUDY.")

    @cached_property
    def study(self) -> dict:
        """The resolved study: models, datasets, benchmarks, recipes and runs with all their settings."""
        return read_json(self.paths.study)

    @property
    def tables(self) -> list[str]:
        """The tables that are there."""
        return [name for name in documented.TABLES if self._path(name).is_file()]

    @property
    def missing(self) -> dict[str, list[str]]:
        """Result files that a table was made without, by table; such results are in no row."""
        records = {name: self._path(name).with_suffix(".json") for name in self.tables}
        absent = {name: read_json(record).get("missing", []) for name, record in records.items() if record.is_file()}
        return {name: files for name, files in absent.items() if files}

    def table(self, name: str) -> pl.DataFrame:
        """A table by its name, with the columns and types of docs/tables.md; AtlasError where it is not there or has others."""
        path = self._path(name)
        if name not in documented.TABLES:
            raise AtlasError(f"there is no table {name}; there are: {', '.join(documented.TABLES)}")
        if not path.is_file():
            raise AtlasError(f"{path} is missing; make it with: snakemake {path}")
        frame = read_table(path)
        expected = documented.schema(name)
        if frame.schema != expected:
            differing = [
                column
                for column, kind in [*expected.items(), *frame.schema.items()]
                if (column, kind) not in expected.items() & frame.schema.items()
            ]
            named = ", ".join(dict.fromkeys(differing)) or "their order"
            raise AtlasError(f"{path} is of another version of sft-atlas: these columns differ: {named}. Delete it and run Snakemake again")
        return frame

    def samples(self, model: str, dataset: str = "base", folder: str = "base", epoch: int = 0) -> pl.DataFrame:
        """Every item that one checkpoint answered, of all its suites: prompt, output, extracted answer, target and score.

        ``folder`` is the recipe, with the seed where the run's folder has it. What a model wrote is data: do not show it as markup.
        """
        keys = {"model": model, "dataset": dataset, "recipe": folder, "epoch": epoch}
        pattern = paths.Paths.fill(self.paths.samples.replace("{suite}", "*"), **keys)
        files = sorted(self.root.glob(str(Path(pattern).relative_to(self.root))))
        if not files:
            raise AtlasError(f"there are no answers at {pattern}; `load(...).folders` lists the runs")
        return pl.concat([read_table(file) for file in files], how="diagonal_relaxed")

    @cached_property
    def folders(self) -> pl.DataFrame:
        """The runs of the study with the name of their folder: model, dataset, recipe, seed, folder."""
        keys = {"model": pl.String, "dataset": pl.String, "recipe": pl.String, "seed": pl.Int64, "folder": pl.String}
        return pl.DataFrame([{key: run[key] for key in keys} for run in self.study["runs"]], schema=keys)

    def __getattr__(self, name: str) -> pl.DataFrame:
        if name not in documented.TABLES:
            raise AttributeError(f"results have no {name}; tables: {', '.join(documented.TABLES)}")
        return self.table(name)

    def __dir__(self):
        return [*super().__dir__(), *self.tables]

    def __repr__(self):
        absent = sum(map(len, self.missing.values()))
        return f"Results({str(self.root)!r}): {', '.join(self.tables) or 'no table yet'}" + (
            f"; {absent} result files missing" * (absent > 0)
        )

    def _path(self, name: str) -> Path:
        return Path(paths.Paths.fill(self.paths.table, table=name))


def load(root: str | Path) -> Results:
    """The results in a folder ``results/STUDY``; AtlasError where it holds none."""
    return Results(root)
