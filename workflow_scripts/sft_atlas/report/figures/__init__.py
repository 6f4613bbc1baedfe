"""The figures: the tables that each reads, and its caption. ``sft_atlas.report.figures.<name>.draw(tables, study)`` draws it.

Imports nothing heavy, because a workflow reads ``FIGURES`` while it is being parsed.
"""

from typing import NamedTuple


class Entry(NamedTuple):
    """Where a figure stands in the report, the tables that it reads, and what it shows."""

    category: str
    tables: tuple[str, ...]
    caption: str


SCORES, INSIDE, MAP = "1 Scores", "2 Predictors and weights", "3 Map of checkpoints"
FIGURES: dict[str, Entry] = {
    "gains": Entry(SCORES, ("gains",), "Gain over the base model, per base model, training set and benchmark. Grey: not significant."),
    "similarity": Entry(
        SCORES, ("gains",), "Correlation of gains between training sets, benchmarks and base models, in hierarchical order."
    ),
    "consistency": Entry(
        SCORES, ("gains",), "Agreement of base models on each training set's effect on each benchmark. Grey: not significant."
    ),
    "components": Entry(
        SCORES, ("gains",), "Principal components of training sets' effects: variance explained, training sets, benchmarks."
    ),
    "variance": Entry(SCORES, ("gains",), "Variance of scores by base model, training set, method and their interactions."),
    "noise": Entry(
        SCORES,
        ("noise",),
        "Variance of gains by base model, training set, method, training once more and items; the noise of training beside that of items.",
    ),
    "training_curves": Entry(
        INSIDE, ("history",), "Loss by epoch in training and, where rows are held out, on them, per base model and method. Crosses: lowest."
    ),
    "perplexity_gain": Entry(INSIDE, ("gains", "perplexity"), "Perplexity of a training set under the base model, and mean gain."),
    "predictors": Entry(
        INSIDE, ("predictors",), "Predictors of gain: correlations within base models, and error removed on held-out gains."
    ),
    "layer_change": Entry(INSIDE, ("layers",), "Relative weight change by depth."),
    "layer_gain": Entry(
        INSIDE, ("layer_curves", "layer_peaks"), "Correlation of weight change with gain by depth. Dotted: limit over all depths."
    ),
    "dimension": Entry(INSIDE, ("dimension",), "Intrinsic dimension of hidden states by depth: base models, and change after fine-tuning."),
    "model_map": Entry(
        MAP, ("likelihood",), "Checkpoints by their log-likelihoods of the same texts, and their divergence from the base model."
    ),
    "map_drawings": Entry(MAP, ("likelihood",), "The map of checkpoints under other projections."),
    "map_shares": Entry(
        MAP, ("map_shares",), "Factors behind distances between checkpoints: shares of the squared distance. Grey: not significant."
    ),
    "lora_full": Entry(SCORES, ("gains",), "LoRA compared with full fine-tuning on the same base models and training sets."),
    "epochs": Entry(SCORES, ("gains",), "Mean gain by epoch, for single training sets of two sizes and for the merged set."),
    "leave_one_out": Entry(SCORES, ("scores",), "Effect of leaving one training set out of the merged set, per benchmark."),
}
