"""Generate one checkpoint's answers to the questions of a judged suite, with a second turn where an item has one."""

import argparse
from pathlib import Path

from sft_atlas.core.files import write_json, write_table
from sft_atlas.evaluate.answers import former_results
from sft_atlas.evaluate.scoring_job import CheckpointJob, add_checkpoint, gpus, provenance, with_keys
from sft_atlas.evaluate.tasks import CLUSTER, ITEM, MISSING, PROMPT, SHOTS, BenchmarkFiles, LengthLimit, SuiteFile, task_config
from sft_atlas.models.prompt_template import DELIMITER, render, render_after
from sft_atlas.study.items import read_items

__all__ = ["add_options", "gpus", "main"]


def main(args: argparse.Namespace) -> None:
    """Write one row per item and turn, and a JSON with provenance beside them."""
    record = args.output.with_suffix(".json")
    with former_results(args.state, args.output):
        checkpoint, benchmarks = CheckpointJob(args), SuiteFile.read(args.suite).benchmarks
        frame = answers(checkpoint.adapter, checkpoint.tokenizer, benchmarks, checkpoint.template, args.seed, args.max_new_tokens)
        write_json(record, provenance(args, **checkpoint.finish()))
        write_table(args.output, with_keys(args, frame))


def answers(adapter, tokenizer, benchmarks: list[BenchmarkFiles], template: dict, seed: int, max_new_tokens: int | None):
    """Answers by an lm-eval model, one row per item and turn: benchmark, item, turn, prompt, output, truncated.

    The second turn follows the first in one prompt. ``output`` is null where the conversation leaves no room for a second answer.
    """
    import polars as pl

    limit = LengthLimit(tokenizer, adapter.max_length, adapter.max_gen_toks)
    configs = {file.name: task_config(file, template, limit, max_new_tokens) for file in benchmarks}
    first_turns = _generate(adapter, list(configs.values()), seed, 1)
    parts = [first_turns]
    for file in benchmarks:
        items = read_items(file.items)
        if "turns" not in items[0]:
            continue
        config, first = configs[file.name], first_turns.filter(benchmark=file.name).sort("item")
        prompts = [
            None if output is None else _second_prompt(template, item, prompt, output.strip())
            for item, prompt, output in zip(items, first["prompt"], first["output"], strict=True)
        ]
        room = config["generation_kwargs"]["max_gen_toks"]
        answered = [i for i, prompt in enumerate(prompts) if prompt is not None]
        lengths = limit.lengths([prompts[i] for i in answered])
        fitting = [i for i, length in zip(answered, lengths, strict=True) if length + room <= limit.max_length]
        if fitting:
            second = _generate(adapter, [_with_prompts(config, [prompts[i] for i in fitting])], seed, 2)
            parts.append(second.with_columns(item=pl.Series(fitting)[second["item"]].cast(pl.Int64)))
        too_long = [(file.name, i, 2, prompts[i], None, None) for i in range(len(items)) if i not in set(fitting)]
        parts.append(pl.DataFrame(too_long, schema=first_turns.schema, orient="row"))
    return pl.concat(parts).sort("benchmark", "item", "turn")


def _second_prompt(template: dict, item: dict, prompt: str, output: str) -> str:
    """The prompt of the second turn: the first one (with a chat template without examples), its answer, and the question."""
    if "chat" in template:
        return render_after(template, [(item["turns"][0], output)], item["turns"][1])
    return DELIMITER.join([prompt + render(template, "", output)[1], render(template, item["turns"][1])[0]])


def _generate(adapter, configs: list[dict], seed: int, turn: int):
    import polars as pl

    from sft_atlas.evaluate.lm_eval_runner import run, unscored

    _, samples = run(adapter, [unscored(config) for config in configs], seed, allow_code=False, scored_by={})
    return samples.select("benchmark", "item", pl.lit(turn, pl.Int64).alias("turn"), "prompt", "output", "truncated")


def _with_prompts(config: dict, prompts: list[str]) -> dict:
    from datasets import Dataset

    rows = [{PROMPT: prompt, SHOTS: 0, CLUSTER: None, ITEM: number, "answer": ""} for number, prompt in enumerate(prompts)]
    return {**config, "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)}, MISSING: []}


def add_options(p: argparse.ArgumentParser) -> None:
    add_checkpoint(p)
    p.add_argument("--output", type=Path, required=True, help="Parquet, one row per item and turn")
