"""What the plan needs to know before anything was run: devices, and the load of data and benchmarks."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from sft_atlas.study.schema.parts import Name, Part, Positive


def _ascending(value: tuple[float, float, float]) -> tuple[float, float, float]:
    if not 0 <= value[0] <= value[1] <= value[2]:
        raise ValueError("give low, likely and high, ascending and not negative")
    return value


Estimate = Annotated[tuple[float, float, float], AfterValidator(_ascending)]


class Device(Part):
    """A kind of device: what jobs cost on it, until the jobs' own logs say it. Estimates are [low, likely, high]."""

    label: str = Field(description="Name in the plan.")
    peak_tflops: float = Field(gt=0, description="Dense bfloat16 matrix rate of the data sheet, TFLOP/s.")
    float32_tflops: float = Field(
        gt=0, description="The same for float32 without TF32, in which hidden states and likelihoods are measured."
    )
    memory_gib: float = Field(gt=0, description="Memory of one device, GiB.")
    mfu_full: Estimate = Field(description="Share of the peak that full fine-tuning reaches, counting 6 FLOP per parameter and token.")
    mfu_lora: Estimate = Field(description="The same for LoRA, counting 4 FLOP per parameter and token (no weight gradients).")
    mfu_score: Estimate = Field(
        description="The same for reading prompts, counting 2 FLOP per parameter and token; in float32, of that peak."
    )
    decode_tokens_per_second: Estimate = Field(
        description="Generated tokens per second of a 7-billion-parameter model, all sequences of a batch."
    )
    start_seconds: Estimate = Field(description="From job start to first step or request: imports and loading the weights.")


class Devices(Part):
    """`config/devices.yaml`."""

    devices: dict[Name, Device] = Field(min_length=1, description="Kinds of devices.")


class Load(Part):
    """What a benchmark asks of a model."""

    items: Positive = Field(description="Items of the test set.")
    prompt_tokens: Estimate = Field(description="Tokens of one prompt, examples included: [low, likely, high].")
    generated_tokens: Estimate = Field((0, 0, 0), description="Generated tokens of one item; 0 where options are scored by likelihood.")
    requests: Positive = Field(1, description="Requests for each item: options, or turns.")


class Comparison(Part):
    """A figure from elsewhere that the plan puts beside its own."""

    what: Literal["train_gpu_hours", "evaluate_gpu_hours", "gpu_hours", "disk_tb"] = Field(
        description="Which total; `gpu_hours`: all jobs."
    )
    value: float = Field(gt=0, description="The other figure.")
    source: str = Field(description="Where it is from, and what it covers.")


class Plan(Part):
    """Assumptions of `snakemake plan`. They change no result."""

    device: Name = Field("cpu", description="Kind of device, a key of `config/devices.yaml`.")
    parallel: Positive = Field(8, description="Devices at work at once: for the time to finish and the disk in use.")
    tokens: dict[Name, Estimate] = Field(
        {}, description="Tokens per sample of each training set, template included, until the data are there."
    )
    load: dict[Name, Load] = Field({}, description="What each benchmark asks of a model.")
    compare: list[Comparison] = Field([], description="Figures from elsewhere to print beside the forecast.")
