"""How a run is trained: hyper-parameters and recipes."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from sft_atlas.study.schema.parts import Part, Positive

Depths = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)]


class Lora(Part):
    """The LoRA adapter; the paper states no rank, alpha or target modules."""

    rank: Positive = Field(8, description="Rank r (ours).")
    alpha: Positive = Field(16, description="Alpha; the update is alpha / r times B A (ours).")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the input of the adapter (ours).")
    targets: Literal["all-linear"] | list[str] = Field("all-linear", description="Modules with an adapter (ours).")
    rslora: bool = Field(False, description="Scale by alpha / sqrt(r) (ours).")


class Hyperparameters(Part):
    """Hyper-parameters of a training run. All are part of its identity: changing one trains the run again."""

    renamed: ClassVar = {"keep": "save_epochs", "schedule": "lr_scheduler_type", "warmup": "warmup_ratio", "packing": "padding_free"}

    method: Literal["full", "lora"] = Field(description="Full fine-tuning or LoRA.")
    rows: Positive = Field(description="Rows sampled from each source dataset (paper: 1,000 or 20,000).")
    epochs: Positive = Field(description="Epochs (paper: 10).")
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
    max_length: Positive = Field(2048, description="Longest sample in tokens; longer ones are dropped and counted, never truncated (ours).")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Autocast type; auto: bfloat16 on an accelerator that supports it, else float32."
    )
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
    activation_checkpointing: bool = Field(
        False,
        description="Always recompute activations in the backward pass; by default only if a single sample per forward pass does not fit into memory.",
    )
    liger: bool = Field(
        False, description="Use Liger kernels for norms, RoPE and feed-forward layers; needs a GPU and the package liger-kernel."
    )
    compile: bool = Field(False, description="Use torch.compile; only pays off in long runs.")
    gpus: Positive = Field(
        1,
        description="GPUs of a job; several use `accelerate launch`. The effective batch size is unchanged, but a change trains again because the order of summation differs.",
    )
    sharding: Literal["fsdp2", "zero3"] = Field("fsdp2", description="With several GPUs: PyTorch FSDP2 or DeepSpeed ZeRO-3.")
    seed: int = Field(0, description="Seed of data order, adapter initialisation and dropout.")

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
        if self.padding_free and self.gpus > 1:
            raise ValueError("padding_free is checked on one GPU only; remove padding_free or gpus")
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
    grid: dict[str, list[object]] = Field(
        {}, description="Lists of values by hyper-parameter; the recipe then stands for one recipe per combination, wherever it is named."
    )
