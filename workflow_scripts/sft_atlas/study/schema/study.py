"""The study file as a whole: its blocks and overrides, and what a call may select, rank or upload."""

import functools
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sft_atlas.study.runs import WITHOUT
from sft_atlas.study.schema.measuring import Analyse, Measure
from sft_atlas.study.schema.parts import Name, Names, Part, Positive, Template
from sft_atlas.study.schema.planning import Plan
from sft_atlas.study.schema.sources import Benchmark, Dataset, Model, Suite
from sft_atlas.study.schema.training import Recipe


class Block(Part):
    """A cross product of models, datasets and recipes. The study is the union of its blocks; a run in several blocks is trained once."""

    renamed: ClassVar = {"represent": "measure_representation"}

    models: Names = Field(description='Base models; `"*"`: all.')
    datasets: Names = Field(description='Datasets; `"*"`: all that are not merges.')
    recipes: list[Name] = Field(min_length=1, description="Recipes.")
    leave_one_out: bool = Field(
        False, description="Train on each merged dataset without one of its members at a time (`without-X`) instead of on the whole."
    )
    set: dict[str, object] = Field(
        {}, description="Hyper-parameters that replace the recipe's in this block (not epochs, save_epochs or method)."
    )
    measure_representation: bool = Field(
        True, description="Measure intrinsic dimension and likelihood vectors of this block's checkpoints."
    )
    label: str | None = Field(None, description="Name in figures; default: the key.")


class Override(Part):
    """Hyper-parameters for some runs. Where two overrides match, the one that names more of model, dataset and recipe wins."""

    models: list[Name] | None = Field(None, description="Only these base models.")
    datasets: list[Name] | None = Field(None, description="Only these datasets.")
    recipes: list[Name] | None = Field(None, description="Only these recipes.")
    set: dict[str, object] = Field(min_length=1, description="Hyper-parameters to set (not epochs, save_epochs or method).")


class Select(Part):
    """The part of a study to run: `--config select='{models: [olmo-7b]}'`. Runs must match every key that is given."""

    models: list[Name] | None = Field(None, min_length=1, description="Only these base models.")
    datasets: list[Name] | None = Field(None, min_length=1, description="Only runs on these datasets, which may be `without-X`.")
    recipes: list[Name] | None = Field(None, min_length=1, description="Only these recipes.")
    blocks: list[Name] | None = Field(None, min_length=1, description="Only runs of these blocks.")


class Advise(Part):
    """Training sets to rank for a base model: `snakemake advise --config advise='{model: my/model, datasets: [lima, my.jsonl]}'`."""

    model: str = Field(description="Base model: a key of `models`, a local folder, or `HUB_ID@REVISION`.")
    datasets: list[str] = Field(
        [],
        description="Training sets: keys of `datasets`, or .jsonl, .jsonl.gz or .parquet files with columns `instruction` and `response`; default: all datasets that are not merges.",
    )


class Release(Part):
    """Upload of kept checkpoints to the model hub by `snakemake release`; a dry run unless `upload` is true."""

    namespace: str = Field("your-name", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="User or organisation on the hub.")
    private: bool = Field(True, description="Create private repositories.")
    upload: bool = Field(False, description="Upload, with the token of `hf auth login`, instead of listing what would be uploaded.")

    @model_validator(mode="after")
    def _named(self):
        if self.upload and self.namespace == "your-name":
            raise ValueError("upload needs a namespace: your user or organisation on the hub")
        return self


class StudyFile(Part):
    """A study.

    Fields with ``exclude`` are not part of the resolved study, so changing them rebuilds no result.
    """

    renamed: ClassVar = {"only": "select"}

    study: Name = Field(description="Name of the study; results go to `results/{study}`.")
    description: str = Field("", description="What the study is.")
    seed: int = Field(0, description="Seed of the analyses (subsamples, permutations, projections).")
    data_root: str | None = Field(
        None, description="Folder that relative `path` entries start at; default: the current directory. `~` and `$VAR` are expanded."
    )
    published_csv: str | None = Field(
        None,
        exclude=True,
        description="Local CSV of scores for `snakemake published`; default: the authors' file, downloaded and checked by its hash.",
    )
    keep_weights: Literal["none", "final", "all"] = Field(
        "final", description="Full weights to keep after everything derived from them exists; adapters are always kept."
    )
    on_overlap: Literal["error", "report"] = Field("error", description="What to do if a training row equals a benchmark item.")
    allow_code_execution: bool = Field(False, description="Run code written by models (HumanEval, MBPP), in the sandbox.")
    threads: Positive = Field(1, description="CPU threads of each training or scoring job.")
    template: Template = Field(Template(), description="Prompt template of training, perplexity and evaluation.")
    models: dict[Name, Model] = Field(min_length=1, description="Base models.")
    datasets: dict[Name, Dataset] = Field(min_length=1, description="Training sets.")
    benchmarks: dict[Name, Benchmark] = Field(min_length=1, description="Benchmarks.")
    suites: dict[Name, Suite] = Field(min_length=1, description="Groups of benchmarks that are scored together.")
    recipes: dict[Name, Recipe] = Field(min_length=1, description="Ways to fine-tune.")
    blocks: dict[Name, Block] = Field(min_length=1, description="What is trained: blocks of runs.")
    overrides: list[Override] = Field([], description="Hyper-parameters of single runs that differ from their recipe.")
    measure: Measure = Field(Measure(), description="Settings of the measurements.")
    analyse: Analyse = Field(Analyse(), description="Settings of the analyses.")
    plan: Plan = Field(Plan(), description="Assumptions of `snakemake plan`.")
    select: Select | None = Field(None, description="Part of the study to run; usually given on the command line.")
    advise: Advise | None = Field(None, exclude=True, description="What `snakemake advise` ranks; usually given on the command line.")
    release: Release = Field(Release(), description="Upload to the model hub.")

    @functools.cached_property
    def source_datasets(self) -> tuple[str, ...]:
        """Datasets that are not merges."""
        return tuple(name for name, entry in self.datasets.items() if entry.merge is None)

    @functools.cached_property
    def leave_one_out(self) -> dict[str, tuple[str, str]]:
        """Each leave-one-out set -> the merged set that it comes from, and the member that it leaves out."""
        left_out: dict[str, tuple[str, str]] = {}
        for block in self.blocks.values():
            for merged in block.datasets if block.leave_one_out and isinstance(block.datasets, list) else ():
                for member in self.members(merged) if merged in self.datasets else ():
                    left_out.setdefault(WITHOUT + member, (merged, member))
        return left_out

    def members(self, dataset: str) -> tuple[str, ...]:
        """Source datasets of a merged set or a leave-one-out set; empty for a source dataset."""
        if dataset in self.datasets:
            merge = self.datasets[dataset].merge
            return () if merge is None else self.source_datasets if merge == "*" else tuple(merge)
        merged, left_out = self.leave_one_out[dataset]
        return tuple(name for name in self.members(merged) if name != left_out)
