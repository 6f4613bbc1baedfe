"""Speed of scoring with each inference engine, against `lm_eval` from its command line with the same engine, prompts and model.

    .venv/bin/python benchmarks/engines.py --model ../shared/weights/stories260K --data ../shared/data --items 40
    .venv/bin/python benchmarks/engines.py --model ../shared/weights/stories260K --data ../shared/data --items 5 --engines endpoint
    .venv/bin/python benchmarks/engines.py --model /models/Llama-3.1-8B --dtype bfloat16 --data ../shared/data --items 500 --engines hf hf-paged vllm

Every measured call is a process of its own, from the start of Python to the last score, at the batch size that it chooses itself. The
calls take turns; the first round warms the file cache up, and ratios are medians of pairs of the others. lm_eval has no counterpart of
hf-paged, which is compared with its hf. The server of `endpoint` is that of the tests, one for both sides; its CPU time is not counted. The last
command is for a GPU and was never run.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from harness import ROOT, machine, print_table, run, take_turns

ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
TASKS = ("gsm8k", "mmlu", "mmlu-likelihood", "nq-open")
LENGTH, NEW_TOKENS = 2048, 32
LM_EVAL = {"hf": "hf", "hf-paged": "hf", "vllm": "vllm", "endpoint": "local-completions"}  # what lm_eval's command line has for an engine
SERVER = {"model": "served", "prompts": "tokens", "concurrency": 4, "timeout": 300, "retries": 3}


def benchmark_files(args: argparse.Namespace, folder: Path) -> list:
    """The items of TASKS, as scoring reads them."""
    from sft_atlas.data import records
    from sft_atlas.data.fetch_benchmark import benchmark_items
    from sft_atlas.evaluate.tasks import BenchmarkFiles
    from sft_atlas.study import study

    entries, files = study.load(ROOT / "config/benchmarks-smoke.yaml").file.benchmarks, []
    for name in TASKS:
        entry, path = entries[name].model_copy(update={"items": args.items}), folder / f"{name}.jsonl"
        if not path.is_file():
            rows = benchmark_items(records.read_rows(entry, args.data / entry.path, "benchmark"), entry, name)
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        files.append(BenchmarkFiles(name, ROOT / entry.task, path))
    return files


def longest(args: argparse.Namespace) -> int:
    """Tokens of prompt and answer that both sides allow."""
    from transformers import AutoConfig

    return min(LENGTH, getattr(AutoConfig.from_pretrained(args.model), "max_position_embeddings", None) or LENGTH)


def write_lm_eval_tasks(args: argparse.Namespace, files: list, folder: Path) -> list[str]:
    """The same requests as task files of lm-eval with finished prompts, without items that are too long; returns their names."""
    import yaml
    from lm_eval.api.task import ConfigurableTask

    from sft_atlas.evaluate.engines.engine import DEFAULT_LENGTH
    from sft_atlas.evaluate.tasks import MISSING, LengthLimit, task_config
    from sft_atlas.models.base_model import ModelFolder, load_tokenizer
    from sft_atlas.study.schema import Template

    names, limit = [], LengthLimit(load_tokenizer(ModelFolder("model", args.model, args.dtype, False)), longest(args), DEFAULT_LENGTH)
    for file in files:
        config = task_config(file, Template().model_dump(), limit, NEW_TOKENS)
        task = ConfigurableTask(config={key: value for key, value in config.items() if key != MISSING})
        task.build_all_requests()
        rows: dict[int, dict] = {}
        for request in task.instances:
            row = rows.setdefault(request.doc_id, {"prompt": request.args[0], "choices": [], "gold": 0})
            row["choices"].append(request.args[1] if isinstance(request.args[1], str) else "-")
        name, generated = f"same_{file.name.replace('-', '_')}", task.OUTPUT_TYPE == "generate_until"
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows.values()), encoding="utf-8")
        entry = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
        entry |= {"doc_to_text": "{{prompt}}", "target_delimiter": "", "num_fewshot": 0, "output_type": task.OUTPUT_TYPE}
        if generated:
            settings = {key: value for key, value in config["generation_kwargs"].items() if key in ("until", "max_gen_toks", "do_sample")}
            entry |= {"doc_to_target": "{{choices[0]}}", "generation_kwargs": settings, "metric_list": [{"metric": "exact_match"}]}
        else:
            entry |= {"doc_to_choice": "{{choices}}", "doc_to_target": "{{gold}}", "metric_list": [{"metric": "acc"}]}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(entry), encoding="utf-8")
        names.append(name)
    return names


def score_once(args: argparse.Namespace) -> None:
    """Score with one of our engines, in this process; prints the tokens that were generated."""
    import torch

    from sft_atlas.evaluate import lm_eval_runner
    from sft_atlas.evaluate.engines.engine import Settings
    from sft_atlas.evaluate.engines.factory import open_engine
    from sft_atlas.models.base_model import ModelFolder, load_tokenizer
    from sft_atlas.study.schema import Template

    torch.set_num_threads(args.threads)
    base = ModelFolder("model", args.model, args.dtype, False)
    tokenizer = load_tokenizer(base)
    server = SERVER | {"url": args.url, "dtype": args.dtype} if args.url else None
    engine = open_engine(Settings(args.one, longest(args), "auto", endpoint=server), base, tokenizer)
    model = engine.checkpoint(None, {"model": "model", "dataset": "base", "recipe": "base", "epoch": 0})
    _, samples = lm_eval_runner.score(model, tokenizer, benchmark_files(args, args.folder), Template().model_dump(), 0, NEW_TOKENS)
    engine.close()
    generated = sum(len(tokenizer(text)["input_ids"]) for text in samples["output"] if text and not text.startswith("["))
    print(f"generated {generated} tokens in {samples.height} items")


@contextlib.contextmanager
def server(args: argparse.Namespace):
    """The URL of a completions server with the model, in a process of its own; None where no engine needs one."""
    if "endpoint" not in args.engines:
        yield None
        return
    sys.path.insert(0, str(ROOT / "tests"))
    import torch

    from helpers.completions_server import serving
    from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer

    torch.set_num_threads(1)  # the server is forked, and answers several requests at once
    base = ModelFolder("model", args.model, args.dtype, False)
    with serving({SERVER["model"]: load_model(base)}, load_tokenizer(base)) as url:
        yield url


def lm_eval_command(args: argparse.Namespace, engine: str, folder: Path, names: list[str], url: str | None) -> list[str]:
    """lm_eval's command line for the counterpart of an engine."""
    kind = LM_EVAL[engine]
    settings = {
        "hf": f"pretrained={args.model},dtype={args.dtype},max_length={longest(args)}",
        "vllm": f"pretrained={args.model},dtype={args.dtype},max_model_len={longest(args)}",
        "local-completions": f"model={SERVER['model']},base_url={url}/completions,tokenizer={args.model},tokenized_requests=True,add_bos_token=True,"
        f"num_concurrent={SERVER['concurrency']},max_length={longest(args)}",
    }[kind]
    command = [sys.executable, "-m", "lm_eval", "--model", kind, "--model_args", settings, "--tasks", ",".join(names)]
    command += ["--include_path", str(folder), "--batch_size", "auto" if kind != "local-completions" else "1"]
    command += ["--output_path", str(folder / "out"), "--log_samples"]
    return command + ([] if args.device == "auto" or kind == "local-completions" else ["--device", args.device])


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary, server(args) as url:
        folder = Path(temporary)
        names = write_lm_eval_tasks(args, benchmark_files(args, folder), folder)
        environment = ENVIRONMENT | {"OMP_NUM_THREADS": str(args.threads), "HF_HOME": str(folder / "cache"), "OPENAI_API_KEY": "none"}
        texts: dict[str, str] = {}

        def timed(name: str, command: list[str]) -> tuple[float, float]:
            """Wall and CPU seconds."""
            used = run(command, env=environment)
            texts[name] = used.text
            return used.wall, used.cpu

        calls, counterpart = {}, {}
        for engine in args.engines:
            own = [sys.executable, __file__, "--one", engine, "--folder", str(folder), "--model", str(args.model), "--data", str(args.data)]
            own += ["--items", str(args.items), "--dtype", args.dtype, "--threads", str(args.threads)]
            own += ["--url", url] if engine == "endpoint" else []
            ours, theirs = f"sft-atlas, {engine}", f"lm_eval, {LM_EVAL[engine]}"
            calls[ours] = partial(timed, ours, own)
            calls.setdefault(theirs, partial(timed, theirs, lm_eval_command(args, engine, folder, names, url)))
            counterpart |= {ours: theirs, theirs: theirs}
        times = {name: seconds[1:] for name, seconds in take_turns(calls, args.repeats + 1).items()}
        items, rows = args.items * len(TASKS), []
        for name, seconds in times.items():
            said = [line for line in texts[name].splitlines() if line.startswith("generated ")]
            tokens = int(said[-1].split()[1]) if said else None
            pairs = zip(seconds, times[counterpart[name]], strict=True)
            ratios = [[one / other for one, other in zip(*pair, strict=True)] for pair in pairs]
            wall, cpu = (statistics.median(values) for values in zip(*seconds, strict=True))
            relative = [f"{statistics.median(values):.2f}" for values in zip(*ratios, strict=True)]
            generated = f"{tokens / wall:.0f}" if tokens else "-"
            rows.append((name, f"{wall:.1f}", f"{cpu:.1f}", f"{items / wall:.1f}", generated, *relative))
        print(f"{machine()}. {args.items} items of each of {', '.join(TASKS)}, {args.repeats} rounds, {args.model.name} in {args.dtype}.\n")
        print_table(["", "wall s", "CPU s", "items/s", "generated tokens/s", "wall, times lm_eval", "CPU, times lm_eval"], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model")
    parser.add_argument("--data", type=Path, required=True, help="folder with bench/*.jsonl.gz")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=["hf", "hf-paged"], choices=tuple(LM_EVAL))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="auto", help="of lm_eval; ours takes the GPU where there is one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.model, arguments.data = arguments.model.resolve(), arguments.data.resolve()
    score_once(arguments) if arguments.one else main(arguments)
