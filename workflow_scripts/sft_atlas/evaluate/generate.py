"""Generate one checkpoint's answers to the questions of a judged suite."""

from pathlib import Path

from sft_atlas.core.files import write_json, write_table
from sft_atlas.core.provenance import record_provenance, resource_usage
from sft_atlas.evaluate.scoring_job import inputs, keys, load, model_parser, settings, suite


def main(args) -> None:
    import polars as pl

    from sft_atlas.evaluate.answering import answers
    from sft_atlas.evaluate.lm_eval_runner import adapter_for

    model, tokenizer, text, facts = load(args)
    adapter = adapter_for(model, tokenizer, args.batch_size, args.max_length)
    frame = answers(adapter, tokenizer, suite(args).benchmarks, text, args.seed, args.max_new_tokens)
    write_json(
        args.output.with_suffix(".json"), record_provenance(settings(args), inputs(args), **facts, backend="hf", usage=resource_usage())
    )
    write_table(args.output, frame.select(*keys(args), pl.all()))


def parser():
    p = model_parser(__doc__)
    p.add_argument("--output", type=Path, required=True, help="Parquet, one row per item and turn")
    return p


def gpus(args) -> int:
    """GPUs that the job takes in a local run."""
    return 1
