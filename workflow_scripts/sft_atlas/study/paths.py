"""The output tree of a study, spelled once, for rules, jobs, the planner and tests. Standard library only."""

import os
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.study.runs import BASE, Checkpoint

TABLES = ("runs", "history", "scores", "gains", "perplexity", "properties", "layers", "dimension", "likelihood")  # by rule collect
OVERLAPS = ("overlap", "contamination", "clean_scores")  # tables of what training sets and benchmarks share
ANALYSES = {  # rule -> the tables that it writes
    "analyse_predictors": ("predictors",),
    "analyse_layers": ("layer_curves", "layer_peaks"),
    "analyse_map": ("map_shares", "map_effects", "map_spread"),
    "analyse_noise": ("noise",),
}
ANALYSED = tuple(table for tables in ANALYSES.values() for table in tables)
REPORTED = ("runs", "scores", "gains", "perplexity", "layers", "dimension", "likelihood", *ANALYSED)  # tables that findings read

RESULTS = "results/{study}"
ADVICE = "advice/{model}"
PLACES = rf"tables|{ADVICE.format(model='[^/]+')}"  # regular expression: where tables of similarity are
MANIFEST = "manifest.json"  # beside a file of data
# In the folder of a run:
RECORD, HISTORY, PREFLIGHT = "train.json", "history.parquet", "preflight.txt"
CHECKPOINT = "epoch-{epoch}"
WEIGHTS = f"{CHECKPOINT}/weights"


class Paths:
    """The output tree below ``root`` (``results/{study}``). Each attribute is a path or a pattern with Snakemake wildcards.

    ``paths.fill(paths.sample, dataset="lima", rows=1000)`` is one file of a pattern.
    """

    def __init__(self, root: str | Path):
        self.root = str(root)
        at = f"{root}/".__add__

        self.study = at("study.json")
        self.model = at("models/{model}/model.json")
        self.model_weights = at("models/{model}/weights")
        self.encoder = at("encoder/model.json")
        self.encoder_weights = at("encoder/weights")

        self.source = at("data/{dataset}/source.parquet")
        self.sample = at("data/{dataset}/{rows}/train.parquet")
        self.holdout = at("data/{dataset}/{rows}/holdout.parquet")
        self.sample_manifest = at(f"data/{{dataset}}/{{rows}}/{MANIFEST}")
        self.properties = at("data/{dataset}/{rows}/properties.parquet")
        self.items = at("benchmarks/{benchmark}/test.jsonl")
        self.shots = at("benchmarks/{benchmark}/shots.jsonl")
        self.suite = at("suites/{suite}.json")

        self.run = at("runs/{model}/{dataset}/{recipe}")  # recipe: with the seed where it is not the recipe's own, see run_folder
        self.record = f"{self.run}/{RECORD}"
        self.history = f"{self.run}/{HISTORY}"
        self.preflight = f"{self.run}/{PREFLIGHT}"
        self.checkpoint = f"{self.run}/{CHECKPOINT}"
        self.weights = f"{self.run}/{WEIGHTS}"
        self.scores = f"{self.checkpoint}/scores/{{suite}}.parquet"
        self.samples = f"{self.checkpoint}/samples/{{suite}}.parquet"
        self.answers = f"{self.checkpoint}/answers/{{suite}}.parquet"
        self.judgements = f"{self.checkpoint}/judgements/{{suite}}.parquet"
        self.rescored = f"{self.checkpoint}/rescored/{{suite}}.parquet"
        self.layers = f"{self.checkpoint}/layers.parquet"
        self.dimension = f"{self.checkpoint}/dimension.parquet"
        self.likelihood = f"{self.checkpoint}/likelihood.parquet"
        self.card = f"{self.checkpoint}/card.md"
        self.lm_eval_results = at(f"lm_eval/{{model}}__{{dataset}}__{{recipe}}__{CHECKPOINT}")  # named as lm-eval names it
        self.base_scores = self.of_base(self.scores)

        self.imported = at("imported")
        self.imported_scores = at("imported/{imported}/scores.parquet")
        self.imported_samples = at("imported/{imported}/samples.parquet")
        self.imported_record = at("imported/{imported}/record.json")
        self.imported_results = at("lm_eval/imported/{imported}")

        self.perplexity = at("perplexity/{model}/{dataset}.parquet")
        self.tracking = at("tracking")
        # State for resuming is not below an output, because Snakemake deletes the outputs of a failed job.
        self.state = at("state/{model}/{dataset}/{recipe}")
        self.collection = at("state/collections/{collection}.json")
        self.download = at("state/checkpoints/{recipe}")  # of a checkpoint that was trained elsewhere; its run has links to the files
        self.suite_state = at(f"state/suites/{{model}}/{{dataset}}/{{recipe}}/{CHECKPOINT}/{{suite}}")
        self.comparison_state = at(f"state/backends/{{model}}/{{dataset}}/{{recipe}}/{CHECKPOINT}/{{suite}}")
        self.comparison = at("backends.md")
        self.adapter_batch = at("state/adapters/{model}/{suite}-{part}.json")
        self.judgement_state = at(f"state/judgements/{{model}}/{{dataset}}/{{recipe}}/{CHECKPOINT}/{{suite}}.jsonl")

        self.tables = at("tables")
        self.table = at("tables/{table}.parquet")
        self.contaminated_items = at("tables/contaminated_items.parquet")
        self.figures = at("figures")
        self.figure = at("figures/{figure}.{ending}")
        self.findings = at("findings.md")
        self.findings_page = at("findings.html")
        self.advice = at(f"{ADVICE}/advice.md")
        self.advice_table = at(f"{ADVICE}/advice.parquet")
        self.design = at("design/{question}/design.md")
        self.design_table = at("design/{question}/designs.parquet")
        self.design_block = at("design/{question}/block.yaml")
        self.similarity = at("{place}/similarity.parquet")  # place: see PLACES
        self.atlas = at("atlas/index.html")
        self.atlas_zip = at("atlas.zip")
        self.reproduction = at("reproduce/index.html")
        self.reproduced_figures = at("reproduce/figures")
        self.reproduced_claims, self.reproduced_comparisons, self.reproduced_missing = (
            at(f"reproduce/{table}.parquet") for table in ("claims", "comparisons", "missing")
        )
        self.invariants = at("correctness.md")
        self.release = at("release.json")
        self.csv = at("csv")
        self.archive = f"{root}.tar"
        self.plan = at("plan.md")
        self.plan_table = at("plan.parquet")
        self.watch = at("watch.html")

    @staticmethod
    def fill(pattern: str, **values: object) -> str:
        """A pattern with wildcards replaced by values; the other wildcards remain."""
        for name, value in values.items():
            pattern = pattern.replace(f"{{{name}}}", str(value))
        return pattern

    @staticmethod
    def samples_beside(scores: str) -> str:
        """The samples of a file of scores."""
        folder, _, suite = scores.rpartition("/scores/")
        return f"{folder}/samples/{suite}"

    @classmethod
    def of_base(cls, pattern: str) -> str:
        """A pattern of checkpoints for a base model."""
        return cls.fill(pattern, dataset=BASE, recipe=BASE, epoch=0)

    @classmethod
    def of(cls, pattern: str, checkpoint: Checkpoint, **more: object) -> str:
        """One file of a checkpoint."""
        return cls.fill(pattern, **checkpoint.keys(), **more)

    def log(self, rule: str, *wildcards: str) -> str:
        """The log of a job: ``logs/{rule}/{wildcard}/....log``."""
        return f"{self.root}/logs/{'/'.join([rule, *wildcards])}.log"

    def checkpoint_log(self, rule: str, *wildcards: str) -> str:
        """The log of a job on a checkpoint, as a pattern."""
        return self.log(rule, "{model}", "{dataset}", "{recipe}", CHECKPOINT, *wildcards)


@dataclass(frozen=True)
class ResultFile:
    """A result file, and the keys that its rows must have, such as ``{"model": "qwen2.5-7b", "epoch": 3}``."""

    path: Path
    keys: dict[str, str | int]


def name_folder(folder: Path, manifest: Path) -> str:
    """A model's folder as its manifest names it, so that results can be moved.

    Relative to the manifest's folder where it is in there or in the current folder, in which Snakemake runs; else absolute.
    """
    home = os.path.abspath(manifest.parent)
    for path in (os.path.abspath(folder), os.path.realpath(folder)):
        if any(Path(path).is_relative_to(parent) for parent in (home, os.getcwd())):
            return os.path.relpath(path, home)
    return os.path.realpath(folder)


def named_folder(name: str, manifest: Path) -> Path:
    """The folder that a manifest names. Links on the way to the manifest do not matter, for example where ``results`` is one."""
    path = Path(name)
    if path.is_absolute() and (path.name, path.parent.name) == ("weights", manifest.parent.name):
        path = Path("weights")  # manifests of former versions; in a copy they would name the weights of the original
    return Path(os.path.normpath(manifest.parent / path))


def epoch_of(checkpoint: Path) -> int:
    """The epoch of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix(CHECKPOINT.format(epoch="")))


def checkpoints(study: dict) -> list[Checkpoint]:
    """Every checkpoint of a resolved study, base models first."""
    bases = [Checkpoint.of_base(model) for model in study["models"]]
    epochs = [(run, epoch) for run in study["runs"] for epoch in run["save_epochs"]]
    return bases + [Checkpoint(r["model"], r["dataset"], r["folder"], epoch, r["measure_representation"]) for r, epoch in epochs]


def result_files(study: dict, table: str, root: Path) -> list[ResultFile]:
    """The result files that ``table`` is collected from; ``root`` is the study's result folder. KeyError for an unknown table."""
    paths, everything = Paths(root), checkpoints(study)
    runs = [{"model": run["model"], "dataset": run["dataset"], "recipe": run["folder"]} for run in study["runs"]]
    trained = [keys for keys, run in zip(runs, study["runs"], strict=True) if not run.get("outside")]
    by_suite = [checkpoint.keys(suite=suite) for checkpoint in everything for suite in study["suites"]]
    represented = [checkpoint.keys() for checkpoint in everything if checkpoint.measure_representation]
    unmerged = {
        name: entry["smallest_rows"] for name, entry in study["datasets"].items() if not entry["merged"] and not entry.get("foreign")
    }
    pattern, keys = {
        "runs": (paths.record, runs),
        "history": (paths.history, trained),
        "scores": (paths.scores, by_suite),
        "gains": (paths.samples, by_suite),
        "perplexity": (paths.perplexity, [{"model": model, "dataset": name} for model in study["models"] for name in unmerged]),
        "properties": (paths.properties, [{"dataset": name, "rows": rows} for name, rows in unmerged.items()]),
        "layers": (paths.layers, [checkpoint.keys() for checkpoint in everything if checkpoint.dataset != BASE]),
        "dimension": (paths.dimension, represented),
        "likelihood": (paths.likelihood, represented),
    }[table]
    return [ResultFile(Path(paths.fill(pattern, **values)), values) for values in keys]
