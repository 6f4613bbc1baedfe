"""A study: its file, checked, and its runs, resolved once.

The Snakefile builds it when it is parsed, and jobs that need the whole study build it again; it imports neither torch nor polars.
"""

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path

from sft_atlas.core.errors import ConfigError
from sft_atlas.study import blocks, checkpoint_lists, checks, designs, imports, limits, model_files, outside, site
from sft_atlas.study.candidates import Candidates, resolve_candidates
from sft_atlas.study.grid import expand
from sft_atlas.study.messages import strict_yaml, unusable_value, validated
from sft_atlas.study.model_files import Layout
from sft_atlas.study.outside import Outside
from sft_atlas.study.paths import RESULTS
from sft_atlas.study.places import ConfigSources
from sft_atlas.study.runs import UNKNOWN, Checkpoint, Key, Run
from sft_atlas.study.schema import Dataset, Model, Recipe, StudyFile

ROWS = 1000  # sample of training sets that no run trains on; the smaller size of the paper


class Study:
    """A checked study: ``file`` as written, ``runs`` as resolved and selected, ``outside`` (checkpoints that no run trains), and look-ups.

    Raises :class:`ConfigError` with every problem of the file. ``source`` is what its messages call the file.
    """

    def __init__(self, file: StudyFile, source: str | ConfigSources = "study"):
        self.file, self.name, self.source = file, file.study, source
        self._refuse(checks.names(file))
        self._refuse(limits.too_many(file))
        self.all_runs: dict[Key, Run] = self._accept(blocks.resolve_runs(file))  # also those that `select` leaves out
        self.all_outside: dict[Key, Outside] = outside.resolve(file, self.path)
        self.runs: dict[Key, Run] = self.all_runs
        self.outside: dict[Key, Outside] = self.all_outside
        if file.select:
            self.runs, self.outside = self._accept(blocks.select_runs(self.all_runs, self.all_outside, file.select))
        self._refuse(imports.problems(file, self.all_runs, self.all_outside))
        # Candidates of `advise` can be fetched and measured; they are in no run, table, plan or figure.
        self.candidates: Candidates | None = self._accept(resolve_candidates(file.advise, file)) if file.advise else None
        self.question: designs.Question | None = self._accept(designs.resolve(file.design, file)) if file.design else None

    def _refuse(self, problems: list[str]) -> None:
        if problems:
            raise ConfigError(self.source, problems)

    def _accept(self, resolved: tuple):
        value, problems = resolved
        self._refuse(problems)
        return value

    def check_paths(self) -> None:
        """Raise ConfigError where a setting can give no result, a local file or folder that the study names does not exist, a task file is not usable, a suite can hold no
        prompt, LoRA settings do not fit a model, or the plan's device is not known."""
        self._refuse(limits.problems(self.file, self.runs.values()))
        self._refuse(checks.local_files(self.file, self.path) + imports.absent(self.file, self.path))
        self._refuse(list(outside.contradictions(self.file, self.path)))
        self._refuse(checks.suites(self.file))
        self._refuse(limits.no_prompt(self.file))
        self._refuse(limits.adapters(self.runs.values(), self.layouts))
        site.device(Path("config/devices.yaml"), self.file.plan.device, "plan.device", self.source)

    @functools.cached_property
    def layouts(self) -> dict[str, Layout]:
        """Width and modules of the base models that are local or pre-trained here, where a recipe needs them for its adapter."""
        used = {run.model for run in self.runs.values() if run.settings.method == "lora" and run.model in self.file.models}
        return {name: found for name in used if (found := model_files.layout(self.file.models[name], self.path))}

    def warnings(self) -> list[str]:
        """One line for each setting that rarely makes sense."""
        return [*limits.warnings(self.file, self.runs.values(), self.layouts), *outside.warnings(self.file)]

    def path(self, entry: str) -> str:
        """A `path` of the study file with `~`, `$VAR` and `data_root` applied."""
        root = os.path.expanduser(os.path.expandvars(self.file.data_root or ""))
        return os.path.join(root, os.path.expanduser(os.path.expandvars(entry)))

    # ------------------------------------------------------------ models and datasets

    @functools.cached_property
    def models(self) -> tuple[str, ...]:
        """Base models, in the order of the file; under `select` those that some run trains, or some checkpoint of others was made from."""
        used = {run.model for run in (*self.runs.values(), *self.outside.values())} if self.file.select else self.file.models
        return tuple(name for name in self.file.models if name in used)

    @functools.cached_property
    def all_models(self) -> dict[str, Model]:
        """Every base model that can be fetched: those of the file and the candidate."""
        return self.file.models | (self.candidates.new_models if self.candidates else {})

    @functools.cached_property
    def datasets(self) -> tuple[str, ...]:
        """Source datasets (under `select` those that some run needs) and every other dataset that some run trains on."""
        known = {*self.file.datasets, *self.file.leave_one_out}
        named = [each.dataset for each in self.outside.values() if each.dataset in known]
        trained = dict.fromkeys([*(run.dataset for run in self.runs.values()), *named])
        needed = trained.keys() | {member for name in trained for member in self.members(name)}
        sources = [name for name in self.file.source_datasets if name in needed or not self.file.select]
        return tuple(dict.fromkeys([*sources, *trained]))

    @functools.cached_property
    def all_datasets(self) -> dict[str, Dataset]:
        """Every dataset of the file and every candidate."""
        return self.file.datasets | (self.candidates.new_datasets if self.candidates else {})

    @functools.cached_property
    def sources(self) -> tuple[str, ...]:
        """Those of `datasets` that are not merges."""
        return tuple(name for name in self.datasets if not self.members(name))

    def members(self, dataset: str) -> tuple[str, ...]:
        """Source datasets of a merged set or a leave-one-out set; empty for a source dataset or a candidate."""
        return () if self.candidates and dataset in self.candidates.new_datasets else self.file.members(dataset)

    def left_out(self, dataset: str) -> str | None:
        """The source dataset that a leave-one-out set leaves out."""
        return self.file.leave_one_out[dataset][1] if dataset in self.file.leave_one_out else None

    def sample_sizes(self, dataset: str) -> tuple[int, ...]:
        """Sample sizes (rows of each source dataset) at which a dataset is needed, ascending."""
        return tuple(sorted(self._rows(self.runs, dataset)))

    def smallest_rows(self, dataset: str) -> int:
        """The smallest sample of a dataset in the whole study; `select` does not change what is measured on it."""
        return min(self._rows(self.all_runs, dataset))

    def _rows(self, runs: dict[Key, Run], dataset: str) -> set[int]:
        used = {run.settings.rows for run in runs.values() if dataset in (run.dataset, *self.members(run.dataset))}
        return used or {min((run.settings.rows for run in runs.values()), default=ROWS)}

    # ------------------------------------------------------------ benchmarks, blocks and checkpoints

    @property
    def benchmarks_with_answers(self) -> tuple[str, ...]:
        """Benchmarks of the suites whose items have a right answer, so that its likelihood can be measured.

        Of several benchmarks with the same items (with and without examples, say) only the first, so that no item counts twice.
        """
        presentation = {"task", "shots", "chance", "label", "group"}  # everything else of an entry decides what the items are
        names: dict[str, str] = {}
        for name in (name for suite in self.file.suites.values() for name in suite.benchmarks):
            entry = self.file.benchmarks[name]
            if entry.columns.response is not None:
                names.setdefault(entry.model_dump_json(exclude=presentation), name)
        return tuple(names.values())

    @property
    def blocks(self) -> tuple[str, ...]:
        """Blocks with at least one run."""
        return tuple(dict.fromkeys(block for run in self.runs.values() for block in run.blocks))

    @functools.cached_property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Base models first, then every kept epoch of every run."""
        bases = [Checkpoint.of_base(model) for model in self.models]
        kept = [Checkpoint(*run.key, epoch, run.measure_representation) for run in self.runs.values() for epoch in run.settings.kept_epochs]
        return (*bases, *kept, *(each.checkpoint for each in self.outside.values()))

    @functools.cached_property
    def recipes(self) -> dict[str, Recipe]:
        """The recipe of each folder of runs (:func:`run_folder`), also of recipes that no run uses."""
        return self.file.recipes | {run.folder: self.file.recipes[run.recipe] for run in self.runs.values()}

    def is_adapter(self, recipe: str) -> bool:
        """Whether the checkpoints of a recipe, or of a folder of runs, are LoRA adapters."""
        return self._adapters[recipe] if recipe in self._adapters else self.recipes[recipe].method == "lora"

    @functools.cached_property
    def _adapters(self) -> dict[str, bool]:
        return {each.folder: each.is_adapter for each in self.outside.values()}

    def kept_epochs(self, recipe: str) -> tuple[int, ...]:
        """Epochs that a recipe keeps; ``recipe`` may be the folder of a run."""
        return self.recipes[recipe].kept_epochs

    # ------------------------------------------------------------ study.json

    def resolved(self) -> dict[str, object]:
        """The study as plain JSON with defaults, labels, members and runs filled in: `study.json`, which tables and figures read."""
        entry = json.loads(self.file.model_dump_json(exclude={"select", "plan", "pack"}))
        labelled = {part: {name: _labelled(name, value) for name, value in entry[part].items()} for part in ("benchmarks", "blocks")}
        return {
            **entry,
            **labelled,
            "results": RESULTS.format(study=self.name),
            "models": {name: _labelled(name, entry["models"][name]) for name in self.models},
            "datasets": {name: self._resolved_dataset(name, entry["datasets"]) for name in self.datasets} | self._foreign_datasets(),
            "recipes": {each.recipe: each.resolved_recipe() for each in self.outside.values() if each.recipe not in entry["recipes"]}
            | {name: {**_labelled(name, recipe), "save_epochs": list(self.kept_epochs(name))} for name, recipe in entry["recipes"].items()},
            "runs": [*map(_resolved_run, self.runs.values()), *(each.resolved() for each in self.outside.values())],
            **({"left_out": self.file.select.without} if self.file.select and self.file.select.without else {}),
        }

    @functools.cached_property
    def foreign_datasets(self) -> tuple[str, ...]:
        """The training sets of checkpoints of others that the study does not have, which are names without files; UNKNOWN last."""
        names = dict.fromkeys(each.dataset for each in self.outside.values() if each.dataset not in self.datasets)
        return tuple(sorted(names, key=lambda name: name == UNKNOWN))

    def _foreign_datasets(self) -> dict[str, dict[str, object]]:
        entry = {"group": "outside", "foreign": True, "smallest_rows": None, "merged": False, "members": [], "without": None}
        return {name: {"label": "unknown training set" if name == UNKNOWN else name, **entry} for name in self.foreign_datasets}

    def _resolved_dataset(self, name: str, entries: dict[str, dict]) -> dict[str, object]:
        members = self.members(name)
        return {
            **_labelled(name, entries.get(name, {"group": "leave-one-out"})),
            "smallest_rows": self.smallest_rows(name),
            "merged": bool(members),
            "members": list(members),
            "without": self.left_out(name),
        }


def _labelled(name: str, entry: dict) -> dict[str, object]:
    return {**entry, "label": entry.get("label") or name}


def _resolved_run(run: Run) -> dict[str, object]:
    settings = run.settings.model_dump()
    keys = {
        "model": run.model,
        "dataset": run.dataset,
        "recipe": run.recipe,
        "seed": run.settings.seed,
        "folder": run.folder,
        **{key: settings[key] for key in ("method", "rows", "epochs")},
    }
    keys |= {"schedule": run.settings.lr_scheduler_type, "save_epochs": list(run.settings.kept_epochs), "blocks": list(run.blocks)}
    return {**keys, "measure_representation": run.measure_representation, "settings": settings}


def load(path: Path) -> Study:
    """Read a study file by itself (tools and tests; the Snakefile uses Snakemake's merging of files and `--config`)."""
    return from_config(strict_yaml(Path(path)), ConfigSources([path]))


def from_config(config: Mapping[str, object], source: str | ConfigSources) -> Study:
    """The study of a configuration; raises :class:`ConfigError` with every problem found."""
    if problem := unusable_value(config):
        raise ConfigError(source, [problem])
    if isinstance(config.get("model"), str):  # `--config model=... datasets=...` in former versions
        given = config.get("datasets")
        names = given.replace(",", ", ") if isinstance(given, str) else ", ".join(map(str, given if isinstance(given, list) else ()))
        call = f"{{model: {config['model']}" + (f", datasets: [{names}]" if names else "") + "}"
        raise ConfigError(source, [f"model: ask for advice with the key `advise`: snakemake advise --config advise='{call}'"])
    return Study(validated(StudyFile, checkpoint_lists.expand(expand(config, source), source), source), source)
