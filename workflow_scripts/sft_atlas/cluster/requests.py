"""What jobs request of a scheduler: GPUs, memory and time, from the cost model of the plan.

Time is the plan's high case and a quarter more, because a job that is cut off is lost. Memory is that of the node, not of the GPU, in bytes
per parameter as each job's code holds them. A retry requests twice as much of what ran out before, and only of that.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sft_atlas.models.size import ADAM_BYTES, BYTES, adapter_parameters, width
from sft_atlas.plan import cost
from sft_atlas.plan.cost import Triple
from sft_atlas.plan.forecast import Forecast
from sft_atlas.study import adapter_batches
from sft_atlas.study.paths import Paths
from sft_atlas.study.runs import BASE
from sft_atlas.study.schema import Load
from sft_atlas.study.site import Site

GIGABYTE = 1000  # MB, as Slurm counts
MARGIN = 1.25  # on the high case of the plan
SHORTEST = 10  # minutes
PROCESSES = 1 * GIGABYTE  # Slurm's step and the two Snakemake processes around a job
LIBRARIES = {"cpu": 2 * GIGABYTE, "gpu": 5 * GIGABYTE}  # a job's process before it loads anything, with CUDA's context on a GPU
UNKNOWN = cost.REFERENCE  # parameters of a model whose entry does not state them
SAVING, LONGEST_SAVING = 60, 800  # seconds that a training gets to finish a step and save its state, besides writing it; and at most
STATE_BYTES_PER_SECOND = 0.5e9  # a slow shared file system
ITEMS = 10_000  # of a benchmark whose size nothing states
LOAD: tuple[Triple, Triple] = ((50, 200, 600), (5, 100, 1000))  # prompt and generated tokens of its items

# Jobs without a model: minutes and MB. The largest data sets (UltraChat's dialogues) decide.
PLAIN = {
    "prepare_dataset": (60, 24 * GIGABYTE),
    "hold_out": (60, 24 * GIGABYTE),
    "merge_datasets": (20, 8 * GIGABYTE),
    "check_overlap": (60, 16 * GIGABYTE),
    "check_invariants": (60, 8 * GIGABYTE),
    "collect": (30, 8 * GIGABYTE),
    "export": (30, 8 * GIGABYTE),
    "measure_contamination": (240, 24 * GIGABYTE),
    "score_clean_items": (60, 8 * GIGABYTE),
    "rescore_samples": (120, 8 * GIGABYTE),
    "write_lm_eval_results": (60, 16 * GIGABYTE),
    "import_scores": (30, 8 * GIGABYTE),
    "write_imported_results": (15, 8 * GIGABYTE),
    "measure_dataset": (60, 16 * GIGABYTE),
    "measure_similarity": (240, 24 * GIGABYTE),
    "analyse_predictors": (120, 16 * GIGABYTE),
    "analyse_layers": (120, 16 * GIGABYTE),
    "analyse_map": (120, 24 * GIGABYTE),
    "analyse_noise": (30, 8 * GIGABYTE),
    "plot": (30, 8 * GIGABYTE),
    "write_findings": (30, 8 * GIGABYTE),
    "write_atlas": (60, 16 * GIGABYTE),
}


@dataclass(frozen=True)
class JobRequest:
    """What one job requests: GPUs and MB of memory of each node, minutes, nodes.

    ``warn_seconds`` before its time limit Slurm sends SIGTERM, upon which a training saves its state; 0: at the limit.
    """

    gpus: int
    mem_mb: int
    minutes: int
    nodes: int = 1
    warn_seconds: int = 0

    @property
    def partition(self) -> str:
        """Class of partition, a key of the site file's `partitions`."""
        return ("cpu", "gpu", "multi_gpu")[min(self.gpus * self.nodes, 2)]


def scaled_for_retry(request: JobRequest, shortages: Mapping[str, int], site: Site, share: float = 1) -> JobRequest:
    """The request of a retry: doubled for each time that "memory" or "time" ran out, and never more than the site has.

    ``share`` is the part of the longest time limit that a job may have, where it runs in one allocation with others.
    """
    memory = request.mem_mb * 2 ** shortages.get("memory", 0)
    minutes = request.minutes * 2 ** shortages.get("time", 0)
    most = site.max_memory_gb * GIGABYTE if site.max_memory_gb else memory
    return replace(request, mem_mb=min(memory, most), minutes=min(minutes, int(site.max_minutes * share)))


class JobRequests:
    """Requests of a study's jobs on one kind of device; without GPUs (``gpus`` false) everything is in the node's memory."""

    def __init__(self, forecast: Forecast, gpus: bool):
        self.forecast, self.study, self.device, self.gpus = forecast, forecast.study, forecast.device, int(gpus)

    def of(self, rule: str, wildcards: Mapping[str, str]) -> JobRequest:
        """The request of one job of a rule."""
        if rule in PLAIN:
            minutes, memory = PLAIN[rule]
            return JobRequest(0, memory, minutes)
        model = wildcards["model"]
        parameters = self.forecast.parameters(model) or UNKNOWN
        return getattr(self, f"_{rule}")(wildcards, model, parameters)

    def share(self, rule: str, wildcards: Mapping[str, str]) -> float:
        """A job's part of the time that all jobs on its checkpoint take together."""
        checkpoint = dict(wildcards)
        minutes = [self.of("evaluate", checkpoint | {"suite": suite}).minutes for suite in self.study.file.suites]
        minutes += [self.of(other, checkpoint).minutes for other in ("measure_layers", "measure_representation")]
        return self.of(rule, wildcards).minutes / sum(minutes)

    def _pretrain_demo_model(self, wildcards, model: str, parameters: float) -> JobRequest:
        entry = self.study.all_models[model].pretrain
        tokens = entry.steps * entry.batch_size * entry.sequence_length
        seconds = cost.training_seconds(parameters, (tokens,) * 3, "full", self.device)
        return JobRequest(0, _mb(LIBRARIES["cpu"], 20 * parameters), _minutes(seconds[2]))

    def _train(self, wildcards, model: str, parameters: float) -> JobRequest:
        run = self.study.runs[model, wildcards["dataset"], wildcards["recipe"]]
        settings = run.settings
        gpus = self.gpus * settings.gpus
        members = len(self.study.members(run.dataset)) or 1
        bound = settings.rows * settings.epochs * members * settings.max_length  # no sample is longer
        tokens = self.forecast.run_tokens(run) or (bound,) * 3
        seconds = cost.training_seconds(parameters, tokens, settings.method, self.device, max(gpus, 1))[2]
        on_node = gpus // settings.nodes
        if settings.method == "full":
            # On a GPU's node: float32 weights while loading, by each process, or Adam's two moments while resuming.
            held = max(4 * on_node, 8) if gpus else 16
        else:
            held = BYTES[self.study.all_models[model].dtype] * max(on_node, 1)
        memory = self._memory(1.25 * held * parameters, max(on_node, 1))
        trained = parameters if settings.method == "full" else adapter_parameters(parameters, settings.lora.rank)
        saving = math.ceil(SAVING + ADAM_BYTES * trained / STATE_BYTES_PER_SECOND)
        return JobRequest(on_node, memory, _minutes(seconds), settings.nodes, min(saving, LONGEST_SAVING))

    def _evaluate(self, wildcards, model: str, parameters: float) -> JobRequest:
        benchmarks = self.study.file.suites[wildcards["suite"]].benchmarks
        loads = [self._load(name) for name in benchmarks]
        engine = self.forecast.engine(wildcards["suite"])
        if engine not in self.device.decode_tokens_per_second:
            engine = min(
                self.device.decode_tokens_per_second, key=lambda name: self.device.decode_tokens_per_second[name][0]
            )  # the slowest
        seconds = cost.scoring_seconds(parameters, loads, self.device, self.forecast.in_float32(model, wildcards["recipe"], engine), engine)
        return JobRequest(self.gpus, self._loaded(wildcards, model, parameters), _minutes(seconds[2]))

    _generate = _evaluate

    def _compare_backends(self, wildcards, model: str, parameters: float) -> JobRequest:
        """A score with each of two engines, one after the other."""
        one = self._evaluate(wildcards, model, parameters)
        return replace(one, minutes=2 * one.minutes)

    def _answer_adapters(self, wildcards, model: str, parameters: float) -> JobRequest:
        """As long as the jobs take for which it answers, one after another."""
        output = Paths.fill(self.forecast.paths.adapter_batch, **wildcards)
        requests = [self._evaluate(dict(wildcards) | member, model, parameters) for member in adapter_batches.read(output)]
        one = self._evaluate(dict(wildcards) | {"recipe": self._adapter_recipe}, model, parameters)
        return replace(one, minutes=max(SHORTEST, sum(request.minutes for request in requests)))

    @property
    def _adapter_recipe(self) -> str:
        names = [*self.study.file.recipes, *(each.folder for each in self.study.outside.values())]
        return next(name for name in names if self.study.is_adapter(name))

    def _measure_representation(self, wildcards, model: str, parameters: float) -> JobRequest:
        seconds = self.forecast.representation_seconds(parameters)
        return JobRequest(self.gpus, self._loaded(wildcards, model, parameters), _minutes(seconds[2]))

    def _measure_perplexity(self, wildcards, model: str, parameters: float) -> JobRequest:
        rows = self.study.smallest_rows(wildcards["dataset"])
        longest = self.study.file.measure.perplexity.max_length
        tokens = self.forecast.tokens(wildcards["dataset"], rows) or (rows * longest,) * 3
        seconds = cost.reading_seconds(parameters, tokens, self.device)
        return JobRequest(self.gpus, self._loaded({"recipe": BASE}, model, parameters), _minutes(seconds[2]))

    def _measure_layers(self, wildcards, model: str, parameters: float) -> JobRequest:
        study = self.study.file
        seconds, held = 2 * BYTES[study.models[model].dtype] * parameters / 50e6, 0.0  # read at 50 MB/s; windows of the files weigh nothing
        if study.measure.layers.ranks:
            # Singular values: four operations for each weight and unit of width, at 10 GFLOP/s a thread. The largest matrix is about four
            # widths squared, and each thread holds one four times in float32.
            h = width(parameters)
            seconds += 4 * h * parameters / 10e9 / study.threads
            held = study.threads * 4 * 4 * 4 * h**2
        return JobRequest(0, _mb(LIBRARIES["cpu"], held), _minutes(seconds))

    def _memory(self, model_bytes: float, processes: int = 1) -> int:
        return _mb(LIBRARIES["gpu" if self.gpus else "cpu"] * processes, model_bytes)

    def _loaded(self, wildcards, model: str, parameters: float) -> int:
        """Memory to load a checkpoint for reading: in its own type, or in float32 where an adapter is merged into it."""
        recipe = wildcards["recipe"]
        adapter = recipe != BASE and self.study.is_adapter(recipe)
        return self._memory(1.25 * (4 if adapter else BYTES[self.study.all_models[model].dtype]) * parameters)

    def _load(self, benchmark: str) -> Load:
        entry = self.study.file.benchmarks[benchmark]
        prompt, generated = LOAD
        items = entry.items or entry.size or ITEMS
        return self.study.file.plan.load.get(benchmark) or Load(items=items, prompt_tokens=prompt, generated_tokens=generated)


def _mb(base: float, more_bytes: float) -> int:
    """MB of a job: the processes around it, its libraries, its model; to the next hundred."""
    return math.ceil((PROCESSES + base + more_bytes / 1e6) / 100) * 100


def _minutes(seconds: float) -> int:
    """Time limit of a job: the high case and the margin, to the next five minutes."""
    return max(SHORTEST, math.ceil(MARGIN * seconds / 300) * 5)
