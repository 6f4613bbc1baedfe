"""Which results of a study each claim needs, which of them are missing, and the jobs and device-hours that these take by the plan."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sft_atlas.analyse import select
from sft_atlas.plan import cost
from sft_atlas.plan.cost import Triple
from sft_atlas.plan.forecast import Forecast
from sft_atlas.plan.graph import DONE, TO_DO, Decision
from sft_atlas.plan.own_data import OwnData
from sft_atlas.published import claims
from sft_atlas.published.analyse_published import LANGUAGES
from sft_atlas.reproduce.own_results import Names
from sft_atlas.study.paths import Paths
from sft_atlas.study.runs import BASE, Checkpoint
from sft_atlas.study.schema import Device
from sft_atlas.study.study import Study

ALL = ()  # every benchmark


@dataclass(frozen=True)
class Need:
    """What a claim is tested on: ``runs`` chooses among the study's; ``benchmarks``: tasks with the paper's names, ALL or None for no scores.

    ``epochs``: whether every kept epoch of the runs counts, else the last. ``tables``: other kinds of results, by table.
    """

    runs: Callable[["Runs"], list[dict]]
    benchmarks: tuple[str, ...] | None = ALL
    epochs: bool = False
    tables: tuple[str, ...] = ()


class Runs:
    """The runs of a resolved study by what they are for; ``names`` are those of the paper."""

    def __init__(self, study: dict, names: Names):
        self.study, self.names = study, names
        self.main = select.main_recipes(study)
        self.sets = set(select.kinds(study, "single"))

    def single(self, *methods: str) -> list[dict]:
        """Single-set runs of the main recipes of these methods (default: of the leading one)."""
        leading = list(self.main)[:1]
        recipes = {self.main[method] for method in methods or leading if method in self.main}
        return [run for run in self.study["runs"] if run["dataset"] in self.sets and run["recipe"] in recipes]

    def compared(self) -> list[dict]:
        """Code sets and the sets that they are compared with."""
        wanted = {*claims.CODE_SETS, *(name for names in claims.OTHER_SETS.values() for name in names)}
        found = [run for run in self.single() if self.names.datasets.get(run["dataset"]) in wanted]
        here = {self.names.datasets[run["dataset"]] for run in found}
        return found if here & set(claims.CODE_SETS) else []

    def both_methods(self) -> list[dict]:
        """Runs with full fine-tuning and LoRA on the same base models and training sets, single and merged."""
        merged = set(select.kinds(self.study, "merged"))
        runs = self.single("full", "lora") + [run for run in self.study["runs"] if run["dataset"] in merged]
        methods: dict[tuple, set[str]] = {}
        for run in runs:
            methods.setdefault((run["model"], run["dataset"]), set()).add(run["method"])
        return [run for run in runs if {"full", "lora"} <= methods[run["model"], run["dataset"]]]

    def two_sizes(self) -> list[dict]:
        """Single-set runs that differ in nothing but the number of rows from another run."""
        keys = ("model", "dataset", "method", "schedule")
        single = [run for run in self.study["runs"] if run["dataset"] in self.sets]
        sizes: dict[tuple, set[int]] = {}
        for run in single:
            sizes.setdefault(tuple(run[key] for key in keys), set()).add(run["rows"])
        return [run for run in single if len(sizes[tuple(run[key] for key in keys)] - {None}) > 1]

    def trajectories(self) -> list[dict]:
        """Single-set runs that keep two or more epochs, of the fewest rows."""
        kept = [run for run in self.study["runs"] if run["dataset"] in self.sets and len(run["save_epochs"]) > 1]
        fewest = min((run["rows"] for run in kept if run["rows"]), default=None)
        return [run for run in kept if run["rows"] == fewest]


def _single(runs: Runs) -> list[dict]:
    return runs.single()


def _single_both(runs: Runs) -> list[dict]:
    return runs.single("full", "lora")


def _everything(runs: Runs) -> list[dict]:
    return runs.study["runs"]


_OPEN = tuple(task for tasks in claims.OPEN_QUESTIONS.values() for task in tasks)
_MMLU = tuple(dict.fromkeys(task for pair in LANGUAGES for task in pair))
NEEDS: dict[str, Need] = {  # by key of claims.PAPER
    **dict.fromkeys(("synergies", "breadth", "family", "language", "components"), Need(_single)),
    "code-mathematics": Need(Runs.compared, claims.MATHEMATICS),
    "lora-qa": Need(Runs.both_methods, _OPEN),
    "full-mathematics": Need(Runs.both_methods, claims.MATHEMATICS + claims.KNOWLEDGE),
    "size": Need(Runs.two_sizes),
    "languages": Need(_single_both, _MMLU),
    "base-decides": Need(_single_both, tables=("likelihood",)),
    "epochs-converge": Need(Runs.trajectories, epochs=True, tables=("likelihood",)),
    "checkpoints": Need(_everything, epochs=True),
    "perplexity": Need(_single, tables=("perplexity",)),
    "weak-predictors": Need(_single, tables=("perplexity", "properties", "similarity")),
    "layers": Need(_single_both, tables=("layers",)),
    "weights-upwards": Need(_single_both, None, tables=("layers",)),
    "layer-agreement": Need(_single_both, None, tables=("layers",)),
    "dimension": Need(_single, None, tables=("dimension",)),
    "map-methods": Need(_single_both, None, tables=("likelihood",)),
    "map-size": Need(Runs.two_sizes, None, tables=("likelihood",)),
}


@dataclass(frozen=True)
class Result:
    """A result file that a claim needs: what it is, the job on a device that makes it (its log), and the checkpoint that the job needs."""

    name: str
    path: Path
    log: Path | None = None
    weights: Path | None = None
    training: Path | None = None

    @property
    def is_there(self) -> bool:
        return self.path.is_file()

    def jobs(self) -> list[Path]:
        """Logs of the jobs on a device that a missing result takes: training too where there are no weights."""
        train = [self.training] if self.training and self.weights and not self.weights.exists() else []
        return train + ([self.log] if self.log else [])


class Missing:
    """What each claim needs of a study with results under ``root``; ``names`` are the paper's for what the study has."""

    def __init__(self, study: Study, names: Names, device: Device, root: Path):
        self.study, self.names, self.device, self.root, self.paths = study, names, device, Path(root), Paths(root)
        self.resolved = study.resolved()
        self.runs = Runs(self.resolved, names)
        self._assumed = Forecast(study, device, self.root)

    @cached_property
    def forecast(self) -> Forecast:
        """The plan's forecast, in which jobs whose result is there are done, so that their logs correct it."""
        results = {str(result.log): result for result in self._every_result() if result.log}
        decisions = []
        for job in self._assumed.assumed:
            made = self._records.get(str(job.log)) or results[str(job.log)].path
            decisions.append(Decision(job.kind, str(job.log), DONE if made.is_file() else TO_DO))
        return Forecast(self.study, self.device, self.root, decisions, OwnData(self.study, self.paths))

    @cached_property
    def _records(self) -> dict[str, Path]:
        """The record of each run by the log of its training."""
        found = {}
        for run in self.study.runs.values():
            record = self.paths.fill(self.paths.record, model=run.model, dataset=run.dataset, recipe=run.folder)
            found[str(Path(self.paths.log("train", *run.key)))] = Path(record)
        return found

    def needed(self, claim: str) -> list[Result]:
        """The results that a claim needs of this study; empty where the study has no runs for it, or nothing is to be measured."""
        need = NEEDS.get(claim)
        runs = need.runs(self.runs) if need else []
        if not runs:
            return []
        results = []
        if need.benchmarks is not None:
            suites = self._suites(need.benchmarks)
            if not suites:
                return []
            for checkpoint in [*self._bases(runs), *self._checkpoints(runs, need.epochs)]:
                results += [self._scores(checkpoint, suite) for suite in suites]
        for table in need.tables:
            results += list(self._measured(table, runs, need.epochs))
        return list(dict.fromkeys(results))

    def missing(self, claim: str) -> list[Result]:
        """Those of :meth:`needed` that are not there."""
        return [result for result in self.needed(claim) if not result.is_there]

    def hours(self, results: Iterable[Result]) -> Triple | None:
        """Device-hours of the jobs that make these results, each counted once; None where one cannot be forecast."""
        logs = {str(log) for result in results for log in result.jobs()}
        jobs = [self._jobs[log] for log in logs if log in self._jobs]
        return None if any(job.seconds is None for job in jobs) else cost.scale(cost.add(job.device_seconds for job in jobs), 1 / 3600)

    @cached_property
    def _jobs(self) -> dict[str, object]:
        return {str(job.log): job for job in self.forecast.jobs}

    def _suites(self, benchmarks: tuple[str, ...]) -> list[str]:
        held = {
            name: [self.names.benchmarks.get(each, each) for each in suite.benchmarks] for name, suite in self.study.file.suites.items()
        }
        return [name for name, members in held.items() if benchmarks == ALL or set(members) & set(benchmarks)]

    def _bases(self, runs: list[dict]) -> list[Checkpoint]:
        return [Checkpoint.of_base(model) for model in dict.fromkeys(run["model"] for run in runs)]

    def _checkpoints(self, runs: list[dict], epochs: bool) -> list[Checkpoint]:
        kept = [(run, run["save_epochs"] if epochs else run["save_epochs"][-1:]) for run in runs if not run.get("imported")]
        return [
            Checkpoint(run["model"], run["dataset"], run["folder"], epoch, run["measure_representation"])
            for run, each in kept
            for epoch in each
        ]

    def _of_checkpoint(self, what: str, checkpoint: Checkpoint, pattern: str, log: Path | None, **more: str) -> Result:
        name = checkpoint.model if checkpoint.dataset == BASE else f"{'/'.join(checkpoint.run)} epoch {checkpoint.epoch}"
        path = Path(self.paths.of(pattern, checkpoint, **more))
        if checkpoint.dataset == BASE or checkpoint.run in self.study.outside:  # these have weights without training
            return Result(f"{name}: {what}", path, log)
        weights, training = Path(self.paths.of(self.paths.weights, checkpoint)), Path(self.paths.log("train", *checkpoint.run))
        return Result(f"{name}: {what}", path, log, weights, training)

    def _scores(self, checkpoint: Checkpoint, suite: str) -> Result:
        log = self._assumed.log_of(checkpoint, suite)
        return self._of_checkpoint(f"scores of {suite}", checkpoint, self.paths.scores, log, suite=suite)

    def _measured(self, table: str, runs: list[dict], epochs: bool) -> Iterable[Result]:
        models, sets = (list(dict.fromkeys(run[key] for run in runs)) for key in ("model", "dataset"))
        sources = [name for name in sets if name in self.study.sources]
        if table == "perplexity":
            for model in models:
                for name in sources:
                    path = Path(self.paths.fill(self.paths.perplexity, model=model, dataset=name))
                    yield Result(f"{model}: perplexity of {name}", path, Path(self.paths.log("measure_perplexity", model, name)))
        elif table == "properties":
            for name in sources:
                path = self.paths.fill(self.paths.properties, dataset=name, rows=self.study.smallest_rows(name))
                yield Result(f"{name}: length and diversity", Path(path))
        elif table == "similarity":
            yield Result("similarity of training sets and benchmarks", Path(self.paths.fill(self.paths.similarity, place="tables")))
        else:
            bases = self._bases(runs) if table != "layers" else []
            words = {"layers": "weight change by layer", "dimension": "intrinsic dimension", "likelihood": "likelihoods"}[table]
            for checkpoint in [*bases, *self._checkpoints(runs, epochs)]:
                if table == "layers" or checkpoint.measure_representation:
                    log = (
                        None if table == "layers" else Path(self.paths.of(self.paths.checkpoint_log("measure_representation"), checkpoint))
                    )
                    yield self._of_checkpoint(words, checkpoint, getattr(self.paths, table), log)

    def _every_result(self) -> Iterable[Result]:
        for checkpoint in self.study.checkpoints:
            for suite in self.study.file.suites:
                yield self._scores(checkpoint, suite)
            if checkpoint.measure_representation:
                log = Path(self.paths.of(self.paths.checkpoint_log("measure_representation"), checkpoint))
                yield self._of_checkpoint("likelihoods", checkpoint, self.paths.likelihood, log)
        yield from self._measured("perplexity", self.resolved["runs"], False)
