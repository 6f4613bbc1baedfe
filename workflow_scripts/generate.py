"""Generate one checkpoint's answers to the questions of a judged suite."""

from pathlib import Path

from sft_atlas import job
from sft_atlas.scoring_job import inputs, keys, load, model_parser, settings, suite


def main(args) -> None:
    import polars as pl

    from sft_atlas.answering import answers
    from sft_atlas.evaluation import adapter_for

    model, tokenizer, text, facts = load(args)
    adapter = adapter_for(model, tokenizer, args.batch_size, args.max_length)
    frame = answers(adapter, tokenizer, suite(args).benchmarks, text, args.seed, args.max_new_tokens)
    job.write_json(args.output.with_suffix(".json"), job.provenance(settings(args), inputs(args), **facts, backend="hf", usage=job.usage()))
    job.write_table(args.output, frame.select(*keys(args), pl.all()))


def parser():
    p = model_parser(__doc__)
    p.add_argument("--output", type=Path, required=True, help="Parquet, one row per item and turn")
    return p


if __name__ == "__main__":
    job.run(main, parser(), gpus=lambda args: 1)
