"""Score one checkpoint (or a base model) on one suite."""

from sft_atlas.evaluate.scoring_job import score_with_transformers, scoring_parser


def main(args) -> None:
    score_with_transformers(args)


def parser():
    return scoring_parser(__doc__)


def gpus(args) -> int:
    """GPUs that the job takes in a local run."""
    return 1
