"""Score the stored answers of one checkpoint and suite again, without a model; replaces scores and samples."""

import json
from pathlib import Path

from sft_atlas.core.files import write_table
from sft_atlas.core.log import LOG
from sft_atlas.evaluate.scoring_job import keys, suite, suite_parser, write


def main(args) -> None:
    import polars as pl

    from sft_atlas.evaluate.rescoring import rescore

    place = ("model", "dataset", "recipe", "epoch", "suite")
    old_samples, old_scores = (pl.read_parquet(path).drop(place) for path in (args.samples, args.scores))
    record = json.loads(args.scores.with_suffix(".json").read_text(encoding="utf-8"))
    scores, samples, changes = rescore(old_samples, old_scores, suite(args).benchmarks, args.seed, args.allow_code_execution)
    args.output_scores, args.output_samples = args.scores, args.samples
    generated = record.get("generated") or {
        name: record.get(name) for name in ("settings", "inputs", "versions", "code", "weights", "device")
    }
    write(args, scores, samples, generated=generated, backend=record["backend"], template_sha256=record.get("template_sha256"))
    for row in changes.filter(pl.col("items_changed") > 0).iter_rows(named=True):
        LOG.warning(
            "%s/%s: %s %.4f -> %.4f, %d items changed",
            args.model,
            suite(args).name,
            row["benchmark"],
            row["score_before"],
            row["score"],
            row["items_changed"],
        )
    write_table(args.output, changes.select(*keys(args), pl.all()))


def parser():
    p = suite_parser(__doc__)
    p.add_argument("--scores", type=Path, required=True, help="Parquet, replaced")
    p.add_argument("--samples", type=Path, required=True, help="Parquet, replaced")
    p.add_argument("--output", type=Path, required=True, help="Parquet: each score before and now")
    return p
