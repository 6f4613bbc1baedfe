"""Tokens that likelihoods read, with and without sharing of common beginnings, and the CPU time of both; the answers must agree.

    .venv/bin/python benchmarks/likelihood_tokens.py --model ../shared/weights/stories260K --data ../shared/data --items 60

`each option alone`: every option in a text of its own. `lm-eval`: its adapter of transformers, which reads a text once for all options whose last
token alone differs. `shared`: ours.
"""

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path

from harness import ROOT, machine, print_table

# Benchmark -> task, file, fields of the question and the options, few-shot examples.
BENCHMARKS = {
    "ARC": ("choice", "arc_challenge_test", "query", "gold", None),
    "HellaSwag": ("choice", "hellaswag_val", "ctx", "label", None),
    "MMLU": ("mmlu_likelihood", "mmlu_test", "question", "answer", None),
    "MMLU, 5 shots": ("mmlu_likelihood", "mmlu_test", "question", "answer", "mmlu_dev"),
}


def rows(data: Path, name: str, question: str, label: str) -> list[dict]:
    """The items of a file, with the fields of task files."""
    with gzip.open(data / f"bench/{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    options = "endings" if "endings" in found[0] else "choices"
    return [
        {"instruction": row[question], "choices": row[options], "label": int(row[label]), "answer": row[options][int(row[label])]}
        | {"subject": row.get("subject")}
        for row in found
    ]


def pairs_of(adapter, tokenizer, folder: Path, name: str, args: argparse.Namespace) -> list:
    """The requests of a benchmark as lm-eval hands them to an adapter: texts, and the token ids of context and continuation."""
    from lm_eval.api.task import ConfigurableTask

    from sft_atlas.evaluate.tasks import MISSING, BenchmarkFiles, LengthLimit, task_config
    from sft_atlas.study.schema import Template

    task, file, question, label, dev = BENCHMARKS[name]
    items, shots = folder / "items.jsonl", folder / "shots.jsonl" if dev else None
    # Whole subjects, one after another, as in the file.
    items.write_text("".join(json.dumps(row) + "\n" for row in rows(args.data, file, question, label)[: args.items]), encoding="utf-8")
    if dev:
        shots.write_text("".join(json.dumps(row) + "\n" for row in rows(args.data, dev, question, label)), encoding="utf-8")
    benchmark = BenchmarkFiles("benchmark", ROOT / f"config/benchmarks/{task}.yaml", items, shots, "subject" if dev else None)
    config = task_config(benchmark, Template().model_dump(), LengthLimit(tokenizer, args.max_length, 256))
    made = ConfigurableTask(config={key: value for key, value in config.items() if key != MISSING})
    made.build_all_requests()
    return [(request.args, *adapter._encode_pair(*request.args)) for request in made.instances]


def main(args: argparse.Namespace) -> None:
    import torch
    from lm_eval.models.huggingface import HFLM

    from sft_atlas.evaluate.engines import hf
    from sft_atlas.evaluate.engines.likelihoods import Likelihoods, PrefixTree, read_alone
    from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer

    torch.set_num_threads(args.threads)
    base = ModelFolder("model", args.model, args.dtype, False)
    tokenizer, model = load_tokenizer(base), load_model(base)
    adapter = hf.transformers_adapter(model, tokenizer, "auto", args.max_length)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=args.batch_size, max_length=args.max_length)
    table = []
    with tempfile.TemporaryDirectory() as folder:
        for name in BENCHMARKS:
            requests = pairs_of(adapter, tokenizer, Path(folder), name, args)
            pairs = [(context, continuation) for _, context, continuation in requests]
            tree = PrefixTree(pairs, args.max_length)
            distinct = {tuple(context + continuation[:-1]) for context, continuation in pairs}
            tokens = (tree.unshared, sum(map(len, distinct)), len(tree.ids))
            seconds, answers = [], []
            ways = (
                lambda: read_alone(model, pairs, args.max_length, 512, 0)[0],  # noqa: B023 (called at once)
                lambda: HFLM._loglikelihood_tokens(theirs, requests, disable_tqdm=True),  # noqa: B023
                lambda: Likelihoods(model, args.max_length, 0).of(pairs),  # noqa: B023
            )
            for way in ways:
                started = time.process_time()
                answers.append(way())
                seconds.append(time.process_time() - started)
            gap = max(abs(one - other) for (one, _), (other, _) in zip(answers[0], answers[2], strict=True))
            cells = [f"{count:,} ({spent:.1f} s)" for count, spent in zip(tokens[1:], seconds[1:], strict=True)]
            table.append((name, len(pairs), f"{tokens[0]:,}", *cells, f"{tokens[1] / tokens[2]:.1f}", f"{gap:.1g}"))
    print(f"{machine()}. The first {args.items} items, {args.model.name} in {args.dtype}; CPU seconds in brackets.\n")
    head = [
        "",
        "requests",
        "tokens, each option alone",
        "tokens, lm-eval",
        "tokens, shared",
        "lm-eval / shared",
        "largest difference, nats",
    ]
    print_table(head, table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model")
    parser.add_argument("--data", type=Path, required=True, help="folder with bench/*.jsonl.gz")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=8, help="of lm-eval")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.model, arguments.data = arguments.model.resolve(), arguments.data.resolve()
    main(arguments)
