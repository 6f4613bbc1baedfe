"""The inference engines with which a suite can be scored, and which one it is where the study file does not say."""

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

BACKENDS = ("hf", "hf-paged", "vllm", "endpoint")


def default_backend(gpu: bool) -> str:
    """On a GPU vLLM where it is installed beside the workflow, else transformers' continuous batching; on a CPU plain transformers."""
    if not gpu:
        return "hf"
    return "vllm" if importlib.util.find_spec("vllm") else "hf-paged"


def backend_of_results(records: Iterable[Path]) -> str | None:
    """The backend of the first of these records (JSON beside scores) that exists; None where none does.

    A study that names no backend stays with the one it began with, also where its results are moved to another machine.
    """
    path = next(filter(Path.exists, records), None)
    return json.loads(path.read_text(encoding="utf-8")).get("backend") if path else None
