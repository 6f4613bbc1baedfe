"""Score one checkpoint (or a base model) on one suite."""

from sft_atlas import job
from sft_atlas.scoring_job import score_with_transformers, scoring_parser


def main(args) -> None:
    score_with_transformers(args)


def parser():
    return scoring_parser(__doc__)


if __name__ == "__main__":
    job.run(main, parser(), gpus=lambda args: 1)
