"""What scoring costs above one call of lm-eval's own API on the same tasks and model, in CPU time.

    python benchmarks/score_overhead.py --model ../shared/weights/stories260K --data ../shared/data --items 60

Both sides load nothing but the model, which is in memory already; each is run `--repeats` times in turn and the smallest CPU time counts.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow_scripts"))
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
}
TASKS = ("gsm8k", "mmlu", "mmlu-likelihood", "nq-open")


def main(args: argparse.Namespace) -> None:
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from sft_atlas.data import records
    from sft_atlas.data.items import benchmark_items
    from sft_atlas.evaluate import lm_eval_runner
    from sft_atlas.evaluate.tasks import BenchmarkFiles, task_config
    from sft_atlas.models.base_model import BaseModel, load_model, load_tokenizer
    from sft_atlas.study import study
    from sft_atlas.study.schema import Template

    torch.set_num_threads(1)
    base = BaseModel("model", args.model, "float32", False)
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

        def ours():
            lm_eval_runner.evaluate(model, tokenizer, files, template, 16, 2048, 0, max_new_tokens=16)

        def theirs():
            configs = [task_config(file, template, None, 16) for file in files]
            adapter = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16, max_length=2048)
            simple_evaluate(
                model=adapter, tasks=configs, task_manager=TaskManager(include_defaults=False), log_samples=True, bootstrap_iters=0
            )

        spent = {"ours": [], "lm-eval": []}
        for _ in range(args.repeats + 1):  # the first round warms up
            for name, call in (("ours", ours), ("lm-eval", theirs)):
                start = time.process_time()
                call()
                spent[name].append(time.process_time() - start)
    best = {name: min(values[1:]) for name, values in spent.items()}
    print(
        f"CPU seconds, {args.items} items of each of {', '.join(TASKS)}: ours {best['ours']:.2f}, lm-eval {best['lm-eval']:.2f}, ratio {best['ours'] / best['lm-eval']:.3f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model")
    parser.add_argument("--data", type=Path, required=True, help="folder with bench/*.jsonl.gz")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    main(parser.parse_args())
