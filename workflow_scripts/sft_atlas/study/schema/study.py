"""The study file as a whole: blocks, overrides, what a call narrows it to."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sft_atlas.study.schema.measuring import Analyse, Measure
from sft_atlas.study.schema.parts import Name, Names, Part, Positive, Template
from sft_atlas.study.schema.planning import Plan
from sft_atlas.study.schema.sources import Benchmark, Dataset, Model, Suite
from sft_atlas.study.schema.training import Recipe


class Block(Part):
    """A named cross product of models, datasets and recipes. The study is the union of its blocks, each run once."""

    renamed: ClassVar = {"represent": "measure_representation"}

    models: Names = Field(description='Base models; `"*"`: all.')
    datasets: Names = Field(description='Datasets; `"*"`: all that are not merges.')
    recipes: list[Name] = Field(min_length=1, description="Recipes.")
    leave_one_out: bool = Field(False, description="Instead of each merged dataset, train on it without each of its members (`without-X`).")
    set: dict[str, object] = Field(
        {}, description="Hyper-parameters that differ from the recipe in this block (not epochs, save_epochs or method)."
    )
    measure_representation: bool = Field(
        True, description="Measure intrinsic dimension and likelihood vectors of this block's checkpoints."
    )
    label: str | None = Field(None, description="Name in figures; default: the key.")


class Override(Part):
    """Hyper-parameters for some runs; the override that names more of model, dataset and recipe wins."""

    models: list[Name] | None = Field(None, description="Only these base models.")
    datasets: list[Name] | None = Field(None, description="Only these datasets.")
    recipes: list[Name] | None = Field(None, description="Only these recipes.")
    set: dict[str, object] = Field(min_length=1, description="Hyper-parameters to set (not epochs, save_epochs or method).")


class Select(Part):
    """Narrows a study to the runs that match all of it, without a second file: `--config select='{models: [olmo-7b]}'`."""

    models: list[Name] | None = Field(None, min_length=1, description="Only these base models.")
    datasets: list[Name] | None = Field(None, min_length=1, description="Only runs on these datasets (`without-X` included).")
    recipes: list[Name] | None = Field(None, min_length=1, description="Only these recipes.")
    blocks: list[Name] | None = Field(None, min_length=1, description="Only runs of these blocks.")


class Advise(Part):
    """Training sets to rank for a base model: `snakemake advise --config advise='{model: my/model, datasets: [lima, my/set.jsonl]}'`."""

    model: str = Field(description="Base model: a key of `models`, a local folder, or `HUB_ID@REVISION`.")
    datasets: list[str] = Field(
        [],
        description="Training sets: keys of `datasets`, or .jsonl, .jsonl.gz or .parquet files with columns instruction and response; default: all that are not merges.",
    )


class Release(Part):
    """Upload of kept checkpoints to the model hub by `snakemake release`; says what it would do unless `upload` is true."""

    namespace: str = Field("your-name", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="User or organisation on the hub.")
    private: bool = Field(True, description="Make private repositories.")
    upload: bool = Field(False, description="Really upload, with the login of `hf auth login`.")

    @model_validator(mode="after")
    def _named(self):
        if self.upload and self.namespace == "your-name":
            raise ValueError("upload needs a namespace: your user or organisation on the hub")
        return self


class StudyFile(Part):
    """A whole study. Excluded keys are not part of the resolved study: a change of theirs rebuilds none of its results."""

    renamed: ClassVar = {"only": "select"}

    study: Name = Field(description="Name of the study; results go to `results/{study}`.")
    description: str = Field("", description="What the study is.")
    seed: int = Field(0, description="Seed of the analyses (subsamples, permutations, drawings).")
    data_root: str | None = Field(
        None, description="Folder that relative `path` entries start from; default: the current directory. `~` and `$VAR` are expanded."
    )
    published_csv: str | None = Field(
        None,
        exclude=True,
        description="Local CSV of scores for `snakemake published`; default: the authors' file, downloaded and hash-checked.",
    )
    keep_weights: Literal["none", "final", "all"] = Field(
        "final", description="Full weights to keep once everything derived from them exists; adapters always stay."
    )
    on_overlap: Literal["error", "report"] = Field("error", description="What to do where a training row equals a benchmark item.")
    allow_code_execution: bool = Field(False, description="Run code that models write (HumanEval, MBPP), in the sandbox.")
    threads: Positive = Field(1, description="CPU threads of each training or scoring job.")
    template: Template = Field(Template(), description="Prompt template, the same in training, perplexity and evaluation.")
    models: dict[Name, Model] = Field(min_length=1, description="Base models.")
    datasets: dict[Name, Dataset] = Field(min_length=1, description="Training sets.")
    benchmarks: dict[Name, Benchmark] = Field(min_length=1, description="Benchmarks.")
    suites: dict[Name, Suite] = Field(min_length=1, description="Groups of benchmarks.")
    recipes: dict[Name, Recipe] = Field(min_length=1, description="Ways to fine-tune.")
    blocks: dict[Name, Block] = Field(min_length=1, description="What is trained.")
    overrides: list[Override] = Field([], description="Sparse exceptions.")
    measure: Measure = Field(Measure(), description="Settings of the measurements.")
    analyse: Analyse = Field(Analyse(), description="Settings of the analyses.")
    plan: Plan = Field(Plan(), description="Assumptions of `snakemake plan`.")
    select: Select | None = Field(None, description="Narrow the study; usually given on the command line.")
    advise: Advise | None = Field(None, exclude=True, description="What `snakemake advise` ranks; usually given on the command line.")
    release: Release = Field(Release(), description="Upload to the model hub.")
