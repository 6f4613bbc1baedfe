"""What the plan must know before any job has run: devices, and the size of data and benchmarks."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from sft_atlas.study.schema.parts import Name, Part, Positive


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
    mfu_full: Estimate = Field(
        description="Model FLOPs utilisation of full fine-tuning: share of the peak, at 6 FLOP per parameter and token."
    )
    mfu_lora: Estimate = Field(description="The same for LoRA, at 4 FLOP per parameter and token (no weight gradients).")
    mfu_score: Estimate = Field(
        description="The same for prompts (prefill), at 2 FLOP per parameter and token; float32 jobs reach this share of the float32 peak."
    )
    decode_tokens_per_second: Estimate = Field(description="Tokens per second that a 7B model generates, summed over the batch.")
    start_seconds: Estimate = Field(description="Seconds from job start to the first step or request: imports and loading of weights.")


class Devices(Part):
    """The table of devices."""

    devices: dict[Name, Device] = Field(min_length=1, description="Kinds of devices.")


class Load(Part):
    """The work of one benchmark for a model."""

    items: Positive = Field(description="Items of the test set.")
    prompt_tokens: Estimate = Field(description="Tokens of one prompt including examples: [low, likely, high].")
    generated_tokens: Estimate = Field(
        (0, 0, 0), description="Generated tokens per item; 0 for multiple choice, which is scored by likelihood."
    )
    requests: Positive = Field(1, description="Requests per item: options or turns.")


class Comparison(Part):
    """A published figure to compare the forecast with."""

    what: Literal["train_gpu_hours", "evaluate_gpu_hours", "gpu_hours", "disk_tb"] = Field(
        description="The total to compare; `gpu_hours` is that of all jobs."
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
