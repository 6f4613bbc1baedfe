"""Score one checkpoint (or a base model) on one suite with vLLM, in an environment of its own."""

from sft_atlas.evaluate.scoring_job import score_with_vllm, scoring_parser


def main(args) -> None:
    score_with_vllm(args)


def parser():
    return scoring_parser(__doc__)


def gpus(args) -> int:
    """GPUs that the job takes in a local run."""
    return 1
