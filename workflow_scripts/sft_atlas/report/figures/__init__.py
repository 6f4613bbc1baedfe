"""The figures: the tables that each reads, and its caption. ``sft_atlas.report.figures.<name>.draw(tables, study)`` draws it.

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

SCORES, INSIDE, MAP = "1 Scores", "2 Predictors and weights", "3 Map of checkpoints"
CAPTIONS: dict[str, Caption] = {
    "gains": Caption(SCORES, "Gain over the base model, per base model, training set and benchmark. Grey: not significant."),
    "similarity": Caption(SCORES, "Correlation of gains between training sets, benchmarks and base models, in hierarchical order."),
    "consistency": Caption(SCORES, "Agreement of base models on the effect of each training set on each benchmark. Grey: not significant."),
    "components": Caption(SCORES, "Principal components of the effects of training sets: variance explained, training sets, benchmarks."),
    "variance": Caption(SCORES, "Variance of scores by base model, training set, method and their interactions."),
    "lora_full": Caption(SCORES, "LoRA compared with full fine-tuning on the same base models and training sets."),
    "epochs": Caption(SCORES, "Mean gain by epoch, for single training sets of two sizes and for the merged set."),
    "leave_one_out": Caption(SCORES, "Effect of leaving one training set out of the merged set, per benchmark."),
    "perplexity_gain": Caption(INSIDE, "Perplexity of a training set under the base model, and mean gain."),
    "predictors": Caption(INSIDE, "Predictors of gain: correlations within base models, and error removed on held-out gains."),
    "layer_change": Caption(INSIDE, "Relative weight change by depth."),
    "layer_gain": Caption(INSIDE, "Correlation of weight change with gain by depth. Dotted: limit for all depths at once."),
    "dimension": Caption(INSIDE, "Intrinsic dimension of hidden states by depth: base models, and change after fine-tuning."),
    "model_map": Caption(MAP, "Checkpoints by their log-likelihoods of the same texts, and their divergence from the base model."),
    "map_drawings": Caption(MAP, "The map of checkpoints under several projections."),
    "map_shares": Caption(MAP, "Factors behind distances between checkpoints, and the spread of checkpoints by epoch."),
}
