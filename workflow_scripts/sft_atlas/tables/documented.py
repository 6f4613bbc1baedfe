"""What every table of a study holds, column by column. :mod:`sft_atlas.tables.results` checks tables against it when they are loaded, and
``document_tables`` writes docs/tables.md from it, so that neither can drift from what the jobs write."""

from dataclasses import dataclass

import polars as pl

from sft_atlas.study.result_files import REAL, TEXT, WHOLE

NAMES = pl.List(TEXT)
KINDS = {TEXT: "text", WHOLE: "whole number", REAL: "number", NAMES: "list of texts"}


@dataclass(frozen=True)
class Table:
    """``rows``: what one row is; ``columns``: type and meaning by name; ``rule``: the job that writes it."""

    rule: str
    rows: str
    columns: dict[str, tuple[pl.DataType | type[pl.DataType], str]]


def schema(name: str) -> pl.Schema:
    """Names and types of a table's columns."""
    return pl.Schema({column: kind for column, (kind, _) in TABLES[name].columns.items()})


RUN = {
    "model": (TEXT, "base model, as the study names it"),
    "dataset": (TEXT, "training set; `base` for a base model itself, `unknown` where nobody stated it"),
    "recipe": (TEXT, "recipe; `base` for a base model itself"),
    "seed": (WHOLE, "seed of the training; null for a base model, or where it is not known"),
    "method": (TEXT, "`full`, `lora` or `base`"),
    "rows": (WHOLE, "rows of the training set, of a merged set per member; null for a base model, or where it is not known"),
    "schedule": (TEXT, "learning-rate schedule; null for a base model, or where it is not known"),
    "blocks": (NAMES, "blocks of the study that the run belongs to"),
}
CHECKPOINT = RUN | {
    "epoch": (WHOLE, "epochs trained; 0 for a base model; 1 for a checkpoint that was trained elsewhere, whatever its epochs")
}
SCORED = {"suite": (TEXT, "suite that asked for the score"), "benchmark": (TEXT, "benchmark")}
LAYER = {"layer": (WHOLE, "layer, from 0; null for the embedding and the head"), "depth": (REAL, "0 at the first layer, 1 at the last")}
P = (REAL, "two-sided p-value; null or NaN where there is no test")
Q = (REAL, "p corrected for multiple tests (Benjamini-Hochberg)")
INTERVAL = {"low": (REAL, "lower end of the 95 % interval"), "high": (REAL, "upper end of the 95 % interval")}
UNIT = {"unit": (TEXT, "what n counts: the independent units"), "interval_method": (TEXT, "how the interval was made")}
MODELS_SETS = {"models": (WHOLE, "base models"), "sets": (WHOLE, "training sets")}
TRAINED = {"dataset": (TEXT, "training set"), "rows": (WHOLE, "rows of the training set")}

TABLES: dict[str, Table] = {
    "runs": Table("collect", "a run", RUN | {
        "steps": (WHOLE, "optimizer steps"),
        "tokens": (WHOLE, "tokens that the model saw, without padding"),
        "supervised_tokens": (WHOLE, "tokens that the loss counts"),
        "samples": (WHOLE, "samples in an epoch"),
        "train_loss": (REAL, "mean training loss, nats per supervised token"),
        "seconds": (REAL, "duration of the training, seconds"),
        "tokens_per_second": (REAL, "tokens a second"),
        "logit_change_mean": (REAL, "mean absolute change of logits on the run's own samples; null where not measured"),
        "logit_resolution": (REAL, "mean rounding error of a logit in the type that the checkpoint is scored in: a smaller change is none"),
        "weight_change": (REAL, "norm of the update over the norm of the trained weights"),
        "device": (TEXT, "device of the training"),
        "dtype": (TEXT, "type in which the model computed"),
    }),
    "history": Table("collect", "a logged step of a run", RUN | {
        "step": (WHOLE, "optimizer step"),
        "epoch": (REAL, "epochs trained so far"),
        "loss": (REAL, "training loss since the row before, nats per supervised token"),
        "learning_rate": (REAL, "learning rate"),
        "grad_norm": (REAL, "norm of the gradient before clipping"),
        "validation_loss": (REAL, "loss on the rows held out, nats per supervised token; null where none is measured"),
    }),
    "scores": Table("collect", "a checkpoint x benchmark, and x task of a benchmark that is a group", CHECKPOINT | SCORED | {
        "subtask": (TEXT, "task of the group that `benchmark` is; null in the row of the benchmark itself, which alone is analysed and shown"),
        "metric": (TEXT, "metric of the benchmark"),
        "score": (REAL, "mean over items, a fraction from 0 to 1; times `scale` it is in the metric's own unit"),
        "stderr": (REAL, "standard error of the score over items, clustered where items belong together"),
        "n": (WHOLE, "items with a score"),
        "backend": (TEXT, "inference engine"),
        "backend_version": (TEXT, "its version"),
        "dtype": (TEXT, "type in which the model computed"),
        "scale": (REAL, "what a score of 1 is in the metric's unit: 1, or 10 for ratings from 1 to 10"),
        "score_strict": (REAL, "the score if only answers in the requested format count"),
        "parsed": (REAL, "share of outputs from which an answer could be extracted"),
        "formed": (REAL, "share of outputs in the requested format, right or wrong"),
        "n_missing": (WHOLE, "items without a score"),
        "n_parsed": (WHOLE, "items with an extracted answer"),
        "n_truncated": (WHOLE, "items whose answer or prompt was cut off"),
        "n_clusters": (WHOLE, "clusters of items behind the standard error"),
        "shots": (WHOLE, "examples in the prompt"),
        "n_fewer_shots": (WHOLE, "items whose prompt had fewer examples, for want of room"),
        "judge": (TEXT, "model that judged the answers; null where none did"),
        "sandbox_missing": (TEXT, "protections that the sandbox of model-written code lacked; null where it had all, or ran none"),
        "judge_stderr": (REAL, "standard error from asking the judge again"),
        "score_length_controlled": (REAL, "win rate at equal length (AlpacaEval 2)"),
        "stderr_length_controlled": (REAL, "its standard error"),
        "source": (TEXT, "`ours`, or the format of the import that the score is from: `lm-eval`, `csv` or `leaderboard`"),
        "source_name": (TEXT, "name of the import; null for ours, as in the columns below"),
        "source_file": (TEXT, "file that the score is from"),
        "source_version": (TEXT, "what the study or the file says of its version, and the beginning of its SHA-256"),
        "source_checkpoint": (TEXT, "name of the checkpoint in that file"),
        "template": (TEXT, "prompt template: `study` where it is the study's, else a name; null where nobody knows it"),
        "items": (TEXT, "hash of all prompts: equal only if template, examples and items are equal; of ours for base models, where there are imports"),
    }),
    "gains": Table("collect", "a fine-tuned checkpoint x benchmark", CHECKPOINT | SCORED | {
        "metric": (TEXT, "metric of the benchmark"),
        "base_score": (REAL, "score of the base model on the same items, a fraction"),
        "score": (REAL, "score of the checkpoint, a fraction"),
        "gain": (REAL, "score minus base score, a fraction"),
        "stderr": (REAL, "standard error of the mean difference per item"),
        "seed_covariance": (REAL, "mean covariance of the gain's error with those of the same run's other seeds; null with one seed"),
        "n": (WHOLE, "items that both sides have a score for"),
        "n_clusters": (WHOLE, "clusters of these items behind the standard error; null where not known"),
        "unscored": (WHOLE, "items left out because one side has no score"),
        "z": (REAL, "gain over its standard error"),
        "source": (TEXT, "source of the score, as in `scores`"),
        "base_source": (TEXT, "source of the base model's score"),
    }),
    "perplexity": Table("collect", "a base model x training set x scope", {
        "model": (TEXT, "base model"),
        **TRAINED,
        "scope": (TEXT, "`response`: of the response given the instruction; `full`: of the whole text"),
        "perplexity": (REAL, "exp of the mean negative log-likelihood per token over all samples"),
        "perplexity_sample_mean": (REAL, "mean of the samples' perplexities"),
        "bits_per_byte": (REAL, "negative log-likelihood in bits per byte of text; comparable between tokenizers"),
        "n": (WHOLE, "samples"),
        "tokens": (WHOLE, "tokens that count"),
    }),
    "properties": Table("collect", "a training set x size", TRAINED | {
        "n": (WHOLE, "samples"),
        "instruction_words": (REAL, "mean words of an instruction"),
        "response_words": (REAL, "mean words of a response"),
        "response_characters": (REAL, "mean characters of a response"),
        "lexical_diversity": (REAL, "moving-average type-token ratio, windows of 50 words"),
        "near_duplicates": (REAL, "share of rows that have another with Jaccard similarity of at least 0.8"),
    }),
    "layers": Table("collect", "a checkpoint x layer x component", CHECKPOINT | LAYER | {
        "component": (TEXT, "part of the layer: attention, MLP, norms, embedding, head"),
        "relative_change": (REAL, "norm of the change over the norm of the base model's weights (Frobenius)"),
        "mean_abs_change": (REAL, "mean absolute change of an element"),
        "cosine": (REAL, "cosine between weights before and after"),
        "unchanged": (REAL, "share of elements that are equal to the base model's"),
        "stable_rank": (REAL, "stable rank of the change: squared Frobenius over squared spectral norm"),
        "effective_rank": (REAL, "effective rank of the change: exp of the entropy of its spectrum"),
        "parameters": (WHOLE, "elements"),
    }),
    "dimension": Table("collect", "a checkpoint x layer", CHECKPOINT | LAYER | {
        "pooling": (TEXT, "which token or mean stands for a text"),
        "estimator": (TEXT, "estimator of the intrinsic dimension"),
        "dimension": (REAL, "intrinsic dimension of the hidden states"),
        "stderr": (REAL, "its standard error"),
        "n": (WHOLE, "texts"),
    }),
    "likelihood": Table("collect", "a checkpoint x text", CHECKPOINT | {
        "benchmark": (TEXT, "benchmark that the text is from"),
        "item": (WHOLE, "its item"),
        "log_likelihood": (REAL, "log-likelihood of the text, nats"),
        "tokens": (WHOLE, "tokens of the text"),
        "bytes": (WHOLE, "bytes of the text"),
    }),
    "overlap": Table("check_overlap", "a training set x benchmark", {
        "dataset": (TEXT, "training set and its rows"),
        "benchmark": (TEXT, "benchmark"),
        "train_items": (WHOLE, "different instructions in the training set"),
        "benchmark_items": (WHOLE, "different questions in the benchmark"),
        "shared": (WHOLE, "items whose question is in the training set"),
        "answers": (WHOLE, "items of which only the answer is in the training set"),
        "examples": (NAMES, "hashes of some shared questions"),
    }),
    "contamination": Table("measure_contamination", "a training set x benchmark", TRAINED | {
        "benchmark": (TEXT, "benchmark"),
        "items": (WHOLE, "items of the benchmark"),
        "overlapping": (WHOLE, "items of which an n-gram occurs in the training set"),
        "share": (REAL, "the same as a share of items"),
        "ngram": (WHOLE, "length of the n-grams, tokens"),
    }),
    "contaminated_items": Table("measure_contamination", "an overlapping item of a training set", TRAINED | {
        "benchmark": (TEXT, "benchmark"),
        "item": (WHOLE, "its item"),
    }),
    "clean_scores": Table("score_clean_items", "a checkpoint x benchmark", {
        **{name: RUN[name] for name in ("model", "dataset", "recipe", "seed")},
        "epoch": CHECKPOINT["epoch"],
        **SCORED,
        "score": (REAL, "score on all items, a fraction"),
        "n": (WHOLE, "all items"),
        "score_clean": (REAL, "score on the items that overlap no set it was trained on"),
        "stderr_clean": (REAL, "its standard error"),
        "n_clean": (WHOLE, "such items"),
        "base_score_clean": (REAL, "score of the base model on the same items"),
    }),
    "similarity": Table("measure_similarity", "a training set x benchmark x space", {
        "dataset": (TEXT, "training set"),
        "benchmark": (TEXT, "benchmark"),
        "space": (TEXT, "`lexical`: TF-IDF of words; `semantic`: embeddings of the study's encoder"),
        "centroid": (REAL, "cosine between the means of both sides"),
        "nearest": (REAL, "mean over benchmark texts of the cosine to the nearest training text"),
        "mmd": (REAL, "squared maximum mean discrepancy: a distance"),
        "n_dataset": (WHOLE, "training texts"),
        "n_benchmark": (WHOLE, "benchmark texts"),
    }),
    "predictors": Table("analyse_predictors", "a predictor x statistic x subset of training sets", {
        "subset": (TEXT, "`all`, or which group of training sets is left out"),
        "sets": (WHOLE, "training sets in it"),
        "predictor": (TEXT, "what is known before training"),
        "statistic": (TEXT, "correlation or slope within base models, or error on held-out gains"),
        "effect": (REAL, "correlation, slope, or share of the baseline's squared error that the predictor removes"),
        **INTERVAL,
        "p": P,
        "q": Q,
        "p_within": (REAL, "p if gains are shuffled within each base model, which counts a training set several times"),
        "n": (WHOLE, "observations, or units of held-out gains"),
        **UNIT,
        "rmse": (REAL, "root mean squared error on held-out gains, a fraction"),
        "baseline": (TEXT, "prediction that it is compared with"),
        "baseline_rmse": (REAL, "its root mean squared error"),
    }),
    "layer_curves": Table("analyse_layers", "a method x measure x depth", {
        "method": (TEXT, "`full` or `lora`"),
        "measure": (TEXT, "`gain`: correlation of weight change with gain; `agreement`: correlation between base models"),
        "depth": LAYER["depth"],
        "value": (REAL, "the correlation"),
        **INTERVAL,
        "band": (REAL, "95 % of shuffled data stay below it at every depth (max-T)"),
        "p": (REAL, "p adjusted for all depths"),
        "n": (WHOLE, "runs, or pairs of base models"),
        **MODELS_SETS,
    }),
    "layer_peaks": Table("analyse_layers", "a method x measure", {
        "method": (TEXT, "`full` or `lora`"),
        "measure": (TEXT, "as in layer_curves"),
        "depth": (REAL, "depth of the largest value"),
        "depth_low": (REAL, "lower end of the middle 95 % of bootstrap peaks"),
        "depth_high": (REAL, "upper end of them"),
        "near": (REAL, "share of bootstrap peaks within 0.1 of it"),
        "value": (REAL, "the largest value"),
        "p": (REAL, "its p, adjusted for all depths"),
        "rise": (REAL, "how far it exceeds the mean over depths"),
        "rise_low": (REAL, "lower end of the rise's interval"),
        "rise_high": (REAL, "upper end of the rise's interval"),
        "n": (WHOLE, "runs, or pairs of base models"),
        **MODELS_SETS,
    }),
    "map_shares": Table("analyse_map", "a design x term", {
        "design": (TEXT, "`last`: last checkpoints; `epochs`: runs that keep every epoch"),
        "term": (TEXT, "factor, or the residual"),
        "share": (REAL, "share of the squared distance between checkpoints, given the other terms (PERMANOVA)"),
        "df": (WHOLE, "degrees of freedom"),
        "f": (REAL, "pseudo-F"),
        "p": P,
        "n": (WHOLE, "checkpoints"),
        "chance": (REAL, "share expected by chance"),
        "test": (TEXT, "what is permuted, or why there is no test"),
    }),
    "map_effects": Table("analyse_map", "an effect on divergences", {
        "effect": (TEXT, "`spread`, `size`, `method` or `same set`"),
        "value": (REAL, "mean difference in bits per byte, or a share"),
        **INTERVAL,
        "p": P,
        "n": (WHOLE, "units"),
        **UNIT,
        "reference": (REAL, "value expected by chance; null where that is 0"),
    }),
    "noise": Table("analyse_noise", "a design x recipe x benchmark x term", {
        "design": (TEXT, "`training`: variance between the seeds of a cell; `split`: variance of gains by factor"),
        "recipe": (TEXT, "recipe; null where a split joins several"),
        "benchmark": (TEXT, "benchmark; `all`: the mean gain over benchmarks"),
        "term": (TEXT, "factor, interaction, `seed`, `items` or `rest`"),
        "variance": (REAL, "variance in squared percentage points"),
        **INTERVAL,
        "share": (REAL, "share of the sum of a split"),
        "df": (REAL, "degrees of freedom"),
        "models": (WHOLE, "base models"),
        "datasets": (WHOLE, "training sets"),
        "methods": (WHOLE, "methods"),
        "cells": (WHOLE, "cells: base model x training set x recipe"),
        "runs": (WHOLE, "runs"),
        "fewest_seeds": (WHOLE, "fewest seeds of a cell"),
        "most_seeds": (WHOLE, "most seeds of a cell"),
    }),
    "map_spread": Table("analyse_map", "a base model x recipe x epoch", {
        "model": (TEXT, "base model"),
        "kind": (TEXT, "kind of training set"),
        "recipe": (TEXT, "recipe"),
        "epoch": (WHOLE, "epoch"),
        "spread": (REAL, "divergence of the checkpoints from their common centre, bits per byte, mean over training sets"),
        "runs": (WHOLE, "runs"),
    }),
}  # fmt: skip
