"""A small study with a plan and a device of round numbers, for the tests of forecasts."""

import json

from sft_atlas.plan.forecast import Forecast
from sft_atlas.study import study as studies
from sft_atlas.study.schema import Device

DEVICE = Device(
    label="Test",
    peak_tflops=100,
    float32_tflops=50,
    memory_gib=80,
    mfu_full=(0.2, 0.4, 0.5),
    mfu_lora=(0.2, 0.4, 0.5),
    mfu_score=(0.2, 0.4, 0.5),
    decode_tokens_per_second={"hf": (500, 1000, 2000), "hf-paged": (1000, 2000, 4000), "vllm": (2000, 5000, 10000)},
    start_seconds=(0, 10, 20),
)


STUDY = {
    "study": "small",
    "keep_weights": "none",
    "models": {"ant": {"path": "models/ant", "parameters": 7e9}},
    "datasets": {"red": {"path": "red.jsonl"}, "blue": {"path": "blue.jsonl"}, "all": {"merge": "*"}},
    "benchmarks": {"quiz": {"path": "quiz.jsonl", "task": "quiz.yaml"}},
    "suites": {"short": {"benchmarks": ["quiz"]}},
    "recipes": {
        "full": {"method": "full", "rows": 1000, "epochs": 10, "save_epochs": [5, 10], "learning_rate": 1e-5, "batch_size": 32},
        "lora": {"method": "lora", "rows": 1000, "epochs": 10, "learning_rate": 2e-6, "batch_size": 128},
    },
    "blocks": {
        "single": {"models": "*", "datasets": "*", "recipes": ["full", "lora"]},
        "merged": {"models": "*", "datasets": ["all"], "recipes": ["full"]},
    },
    "plan": {
        "parallel": 1,
        "tokens": {"red": [100, 100, 100], "blue": [100, 200, 400]},
        "load": {"quiz": {"items": 1000, "prompt_tokens": [50, 100, 200], "generated_tokens": [10, 20, 40]}},
    },
}


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def sharded(root, gpus, name="cpu"):
    """The forecast with full fine-tuning on several devices."""
    config = json.loads(json.dumps(STUDY))
    config["recipes"]["full"]["gpus"] = gpus
    config["plan"] |= {"parallel": 2, "device": name}
    return Forecast(studies.from_config(config, "small.yaml"), DEVICE, root)
