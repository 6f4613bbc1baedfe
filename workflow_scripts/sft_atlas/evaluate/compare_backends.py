"""Score one checkpoint on one suite with two inference engines, and print where they agree, item by item."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import write_text
from sft_atlas.core.log import print_to_terminal
from sft_atlas.core.markdown import table
from sft_atlas.evaluate.scoring_job import CheckpointJob, add_answering
from sft_atlas.evaluate.tasks import SuiteFile
from sft_atlas.models.arguments import CHECKPOINT, add_keys
from sft_atlas.study.backends import BACKENDS

HEAD = (
    "benchmark",
    "n",
    "same answers",
    "same scores",
    "score 1",
    "score 2",
    "largest difference of likelihoods",
    "largest lead that changed",
)
SHOWN = 10  # items that differ, of each benchmark


def gpus(args: argparse.Namespace) -> int:
    """GPUs that the job takes in a local run: one engine runs at a time."""
    return 0 if set(args.backends) == {"endpoint"} else args.gpus


def main(args: argparse.Namespace) -> None:
    """Print the comparison, and write it as a Markdown page; answers are kept, so that a second call asks nothing again."""
    from sft_atlas.evaluate import lm_eval_runner

    samples, names = [], []
    for backend in args.backends:
        own = argparse.Namespace(**vars(args) | {"backend": backend, "state": args.state / backend / "suite"})
        checkpoint = CheckpointJob(own)
        samples.append(
            lm_eval_runner.score(
                checkpoint.adapter, checkpoint.tokenizer, SuiteFile.read(args.suite).benchmarks, checkpoint.template, args.seed,
                max_new_tokens=args.max_new_tokens, allow_code=args.allow_code_execution, scored_by=checkpoint.scored_by,
            )[1]
        )  # fmt: skip
        checkpoint.finish()
        checkpoint.engine.close()
        names.append(", ".join(checkpoint.scored_by.values()))
    place = f"{args.model}/{args.dataset}/{args.recipe}, epoch {args.epoch}"
    lines = [f"# {args.backends[0]} and {args.backends[1]}", "", f"{place}. 1: {names[0]}. 2: {names[1]}.", "", *page(*samples)]
    write_text(args.output, "\n".join(lines) + "\n")
    print_to_terminal("\n".join(lines))


def page(one, other) -> list[str]:
    """Lines that compare two frames of samples of the same items."""
    rows, differing = [], []
    for name in one["benchmark"].unique(maintain_order=True):
        pairs = list(zip(*(frame.filter(benchmark=name).sort("item").iter_rows(named=True) for frame in (one, other)), strict=True))
        gaps = [gap for a, b in pairs if (gap := largest_difference(a["output"], b["output"])) is not None]
        column = "extracted" if gaps else "output"
        changed = [(a, b) for a, b in pairs if a[column] != b[column] or a["score"] != b["score"]]
        leads = [found for a, _ in changed if (found := lead(a["output"])) is not None]
        same = [sum(a[key] == b[key] for a, b in pairs) for key in (column, "score")]
        means = [frame.filter(benchmark=name)["score"].mean() for frame in (one, other)]
        numbers = ["-" if mean is None else f"{mean:.4f}" for mean in means]
        rows.append((name, len(pairs), *same, *numbers, *(f"{max(values):.2g}" if values else "-" for values in (gaps, leads))))
        differing += [(name, a["item"], _short(a, column), _short(b, column)) for a, b in changed[:SHOWN]]
    lines = table(HEAD, rows, "lr")
    if differing:
        lines += ["", f"Items whose answer or score differs, up to {SHOWN} of each benchmark:", ""]
        lines += table(("benchmark", "item", "1", "2"), differing, "lrll")
    return lines


def likelihoods(output: str | None) -> dict[str, float]:
    """The log-likelihood of each option, from the output of a sample; {} for generated text."""
    try:
        values = json.loads(output or "")
    except ValueError:
        return {}
    values = {name: value[0] if isinstance(value, list) else value for name, value in values.items()} if isinstance(values, dict) else {}
    return values if all(isinstance(value, float) for value in values.values()) else {}


def largest_difference(one: str | None, other: str | None) -> float | None:
    """Largest difference of an option's log-likelihood, in nats; None where nothing was compared by likelihood."""
    first, second = likelihoods(one), likelihoods(other)
    return max(abs(first[name] - second[name]) for name in first) if first and first.keys() == second.keys() else None


def lead(output: str | None) -> float | None:
    """By how many nats the most likely option leads; near 0 it is a tie, which rounding decides."""
    values = sorted(likelihoods(output).values())
    return values[-1] - values[-2] if len(values) > 1 else None


def _short(sample: dict, column: str) -> str:
    return f"{' '.join(str(sample[column]).split())[:60]} ({sample['score']})"


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--backends", nargs=2, choices=BACKENDS, required=True, help="the two engines")
    add_keys(p, *CHECKPOINT)
    add_answering(p, weights=True)
    p.add_argument("--state", type=Path, required=True, help="folder of the answers, kept")
    p.add_argument("--output", type=Path, required=True, help="Markdown page")
