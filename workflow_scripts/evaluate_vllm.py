"""Score one checkpoint (or a base model) on one suite with vLLM, in an environment of its own."""

from sft_atlas import job
from sft_atlas.scoring_job import score_with_vllm, scoring_parser


def main(args) -> None:
    score_with_vllm(args)


def parser():
    return scoring_parser(__doc__)


if __name__ == "__main__":
    job.run(main, parser(), gpus=lambda args: 1)
