"""Figures: what each is called and which tables it reads. ``sft_atlas.report.figures.<name>.draw(tables, study)`` makes it.

Imports nothing heavy, because a workflow reads ``FIGURES`` while it is being parsed.
"""

from typing import NamedTuple


class Caption(NamedTuple):
    """Where a figure stands in the report, and what it shows."""

    category: str
    text: str


FIGURES: dict[str, tuple[str, ...]] = {
    "gains": ("gains",),
    "similarity": ("gains",),
    "consistency": ("gains",),
    "components": ("gains",),
    "variance": ("gains",),
    "perplexity_gain": ("gains", "perplexity"),
    "predictors": ("predictors",),
    "layer_change": ("layers",),
    "layer_gain": ("layer_curves", "layer_peaks"),
    "dimension": ("dimension",),
    "model_map": ("likelihood",),
    "map_drawings": ("likelihood",),
    "map_shares": ("map_shares", "map_spread"),
    "lora_full": ("gains",),
    "epochs": ("gains",),
    "leave_one_out": ("scores",),
}

SCORES, WHY, MAP = "1 What the scores say", "2 Why it works", "3 The map of checkpoints"
CAPTIONS: dict[str, Caption] = {
    "gains": Caption(SCORES, "Score minus that of the base model, per base model, training set and benchmark; grey: not told from 0."),
    "similarity": Caption(SCORES, "Correlation of gains between training sets, benchmarks and base models, in hierarchical order."),
    "consistency": Caption(SCORES, "Whether a training set moves a benchmark the same way in every base model; grey: not told from 0."),
    "components": Caption(
        SCORES, "Principal components of what training sets do: how many there are, and training sets and benchmarks in two."
    ),
    "variance": Caption(SCORES, "Where the variance of scores comes from: base model, training set, method and their interactions."),
    "lora_full": Caption(SCORES, "LoRA against full fine-tuning on the same base models and training sets."),
    "epochs": Caption(SCORES, "Mean gain by epoch, for single sets of two sizes and for the merged set."),
    "leave_one_out": Caption(SCORES, "What leaving one training set out of the merged set does to each score."),
    "perplexity_gain": Caption(WHY, "Perplexity of a training set under the base model against the gain that it brings."),
    "predictors": Caption(
        WHY, "What is known of a training set before training, against its gain: within base models, and where gains were not seen."
    ),
    "layer_change": Caption(WHY, "Relative weight change by depth."),
    "layer_gain": Caption(WHY, "Where in depth weight change goes with the gain; dotted: the limit for all depths at once."),
    "dimension": Caption(WHY, "Intrinsic dimension of hidden states by depth, and what tuning changes."),
    "model_map": Caption(
        MAP, "Checkpoints by the log-likelihoods that they give to the same texts, and their divergence from the base model."
    ),
    "map_drawings": Caption(MAP, "The same map drawn by several methods."),
    "map_shares": Caption(MAP, "What rules the map: shares of the squared distance, and the spread of checkpoints by epoch."),
}
