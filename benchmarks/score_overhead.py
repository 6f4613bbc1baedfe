"""CPU time of scoring, against one call of lm-eval's `simple_evaluate` on the same tasks and model.

    .venv/bin/python benchmarks/score_overhead.py --model ../shared/weights/stories260K --data ../shared/data --items 60

The model is loaded once, before either is measured. The two take turns; the first round warms up, and the best of the others counts.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import ROOT, machine, print_table, take_turns

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
}
BACKENDS = ("hf", "hf-paged")
TASKS = ("gsm8k", "mmlu", "mmlu-likelihood", "nq-open")


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU seconds of a call in this process."""
    started = time.process_time()
    call()
    return time.process_time() - started


def main(args: argparse.Namespace) -> None:
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from sft_atlas.data import records
    from sft_atlas.data.fetch_benchmark import benchmark_items
    from sft_atlas.evaluate import lm_eval_runner
    from sft_atlas.evaluate.engines.hf import adapter
    from sft_atlas.evaluate.tasks import MISSING, BenchmarkFiles, task_config
    from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer
    from sft_atlas.study import study
    from sft_atlas.study.schema import Template

    torch.set_num_threads(1)
    base = ModelFolder("model", args.model, "float32", False)
    model, tokenizer, template = load_model(base), load_tokenizer(base), Template().model_dump()
    model.config.max_position_embeddings = 2048
    entries = study.load(ROOT / "config/benchmarks-smoke.yaml").file.benchmarks
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name in TASKS:
            entry = entries[name].model_copy(update={"items": args.items})
            rows = benchmark_items(records.read_rows(entry, args.data / entry.path, "benchmark"), entry, name)
            path = Path(folder) / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
            files.append(BenchmarkFiles(name, ROOT / entry.task, path))

        def sft_atlas(backend):
            made = adapter(backend, model, tokenizer, 16, 2048)
            lm_eval_runner.score(made, tokenizer, files, template, 0, max_new_tokens=16)

        def lm_eval():
            tasks = [{key: value for key, value in task_config(file, template, None, 16).items() if key != MISSING} for file in files]
            wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16, max_length=2048)
            simple_evaluate(wrapped, tasks=tasks, task_manager=TaskManager(include_defaults=False), log_samples=True, bootstrap_iters=0)

        calls = {
            "lm-eval": partial(cpu_seconds, lm_eval),
            **{f"sft-atlas, {backend}": partial(cpu_seconds, partial(sft_atlas, backend)) for backend in BACKENDS},
        }
        times = {name: min(values[1:]) for name, values in take_turns(calls, args.repeats + 1).items()}
    print(f"{machine()}. {args.items} items of each of {', '.join(TASKS)}.\n")
    print_table(["", "CPU s", "times lm-eval"], ((name, f"{cpu:.2f}", f"{cpu / times['lm-eval']:.2f}") for name, cpu in times.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model")
    parser.add_argument("--data", type=Path, required=True, help="folder with bench/*.jsonl.gz")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    main(parser.parse_args())
