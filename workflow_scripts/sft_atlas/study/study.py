"""A study file, checked and resolved into its runs, once.

Used by the Snakefile at parse time and by jobs that need the whole picture; imports neither torch nor polars.
"""

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from sft_atlas.core.errors import ConfigError
from sft_atlas.study import task_files
from sft_atlas.study.candidates import Candidates, resolve
from sft_atlas.study.grid import expand
from sft_atlas.study.messages import explain, nearest, renamed, strict_yaml
from sft_atlas.study.narrowing import narrow
from sft_atlas.study.runs import BASE, Checkpoint, Run
from sft_atlas.study.schema import Hyperparameters, Override, Part, Recipe, StudyFile

WITHOUT = "without-"  # prefix of leave-one-out sets
SETTABLE = sorted(set(Hyperparameters.model_fields) - {"epochs", "method", "save_epochs"})


class Study:
    """A validated study: ``file`` as written, ``runs`` as resolved, and look-ups between them."""

    def __init__(self, file: StudyFile, source: str = "study"):
        self.file = file
        self.name = file.study
        self.source = source
        self.problems: list[str] = []
        self.candidates: Candidates | None = None  # of `advise`; they are in no run, table, plan or figure
        self.all_models, self.all_datasets = file.models, file.datasets  # with those that only `advise` names
        if file.advise:
            self.candidates, self.problems = resolve(file.advise, file)
            self.all_models = file.models | self.candidates.new_models
            self.all_datasets = file.datasets | self.candidates.new_datasets
        self._check_names()
        self._raise()
        self.runs: dict[tuple[str, str, str], Run] = self._resolve()
        self._raise()
        self.whole = self.runs  # also without `select`
        if file.select:
            self.runs, self.problems = narrow(self.runs, file.select)
            self._raise()

    # ------------------------------------------------------------ models and datasets

    @functools.cached_property
    def models(self) -> tuple[str, ...]:
        """Base models, in the order of the file; under `select` those that some run trains."""
        used = {run.model for run in self.runs.values()} if self.file.select else self.file.models
        return tuple(name for name in self.file.models if name in used)

    @property
    def answered(self) -> tuple[str, ...]:
        """Benchmarks of the suites that have right answers, whose likelihood can be measured.

        Once where several put the same items in other ways (with examples, say), so that no item counts twice.
        """
        how = {"task", "shots", "chance", "label", "group"}  # everything else of an entry decides what the items are
        names: dict[str, str] = {}
        for name in (name for suite in self.file.suites.values() for name in suite.benchmarks):
            entry = self.file.benchmarks[name]
            if entry.columns.response is not None:
                names.setdefault(entry.model_dump_json(exclude=how), name)
        return tuple(names.values())

    @property
    def source_datasets(self) -> tuple[str, ...]:
        """Datasets that are not merges."""
        return tuple(name for name, entry in self.file.datasets.items() if entry.merge is None)

    @functools.cached_property
    def datasets(self) -> tuple[str, ...]:
        """Source datasets (under `select` those that some run needs) and every other dataset that some run trains on."""
        trained = dict.fromkeys(run.dataset for run in self.runs.values())
        needed = trained.keys() | {member for name in trained for member in self.members(name)}
        sources = [name for name in self.source_datasets if name in needed or not self.file.select]
        return tuple(dict.fromkeys([*sources, *trained]))

    @functools.cached_property
    def sources(self) -> tuple[str, ...]:
        """Those of `datasets` that are not merges."""
        return tuple(name for name in self.datasets if not self.members(name))

    def members(self, dataset: str) -> tuple[str, ...]:
        """Source datasets of a merged set or of a leave-one-out set; empty for a source dataset."""
        if dataset in self.all_datasets:
            merge = self.all_datasets[dataset].merge
            return () if merge is None else self.source_datasets if merge == "*" else tuple(merge)
        merged, left_out = self._leave_one_out[dataset]
        return tuple(name for name in self.members(merged) if name != left_out)

    def without(self, dataset: str) -> str | None:
        """The source dataset that a leave-one-out set leaves out."""
        return self._leave_one_out[dataset][1] if dataset in self._leave_one_out else None

    def rows_of(self, dataset: str) -> tuple[int, ...]:
        """Sample sizes (rows of each source dataset) at which a dataset is needed, ascending."""
        used = {run.settings.rows for run in self.runs.values() if run.dataset == dataset or dataset in self.members(run.dataset)}
        return tuple(sorted(used)) or (min(run.settings.rows for run in self.runs.values()),)

    def smallest_rows(self, dataset: str) -> int:
        """The smallest sample of a dataset in the whole study; `select` does not change what is measured on it."""
        return min(
            (run.settings.rows for run in self.whole.values() if dataset in (run.dataset, *self.members(run.dataset))),
            default=min(run.settings.rows for run in self.whole.values()),
        )

    @property
    def blocks(self) -> tuple[str, ...]:
        """Blocks that some run belongs to."""
        return tuple(dict.fromkeys(block for run in self.runs.values() for block in run.blocks))

    # ------------------------------------------------------------ checkpoints

    @functools.cached_property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Base models first, then every kept epoch of every run."""
        bases = [Checkpoint.of_base(model) for model in self.models]
        kept = [Checkpoint(*run.key, epoch, run.measure_representation) for run in self.runs.values() for epoch in run.settings.kept_epochs]
        return (*bases, *kept)

    def kept_epochs(self, recipe: str) -> tuple[int, ...]:
        """Epochs that a recipe keeps."""
        return self.file.recipes[recipe].kept_epochs

    def path(self, entry: str) -> str:
        """A `path` of the study file, with `~`, `$VAR` and `data_root` applied."""
        expanded = os.path.expanduser(os.path.expandvars(entry))
        root = os.path.expanduser(os.path.expandvars(self.file.data_root or ""))
        return os.path.join(root, expanded)

    def check_paths(self) -> None:
        """Raise ConfigError where a local file or folder that the study names is not there, or a task file asks for what may not be."""
        self.problems += task_files.absent_files(self.file, self.path)
        self._raise()
        self.problems += task_files.problems(self.file)
        self._raise()

    # ------------------------------------------------------------ checks

    def _raise(self) -> None:
        if self.problems:
            raise ConfigError(self.source, self.problems)

    def _name(self, path: str, name: str, kind: str, known: Iterable[str]) -> bool:
        known = list(known)
        if name not in known:
            self.problems.append(f"{path}: there is no {kind} {name!r}{nearest(name, known)} (defined: {', '.join(known)})")
        return name in known

    def _check_names(self) -> None:
        file = self.file
        if file.study == "published":
            self.problems.append("study: results/published belongs to `snakemake published`; choose another name")
        for name, dataset in file.datasets.items():
            if name == BASE or name.startswith(WITHOUT):
                self.problems.append(
                    f"datasets.{name}: the name is reserved; choose one that is not {BASE!r} and does not begin with {WITHOUT!r}"
                )
            for i, member in enumerate(dataset.merge if isinstance(dataset.merge, list) else []):
                self._name(f"datasets.{name}.merge[{i}]", member, "source dataset", self.source_datasets)
        if BASE in file.recipes:
            self.problems.append(f"recipes.{BASE}: the name is reserved for the base models; choose another")
        for name, suite in file.suites.items():
            for i, benchmark in enumerate(suite.benchmarks):
                self._name(f"suites.{name}.benchmarks[{i}]", benchmark, "benchmark", file.benchmarks)
        for group, names in file.analyse.leave_out.items():
            for i, name in enumerate(names):
                self._name(f"analyse.leave_out.{group}[{i}]", name, "source dataset", self.source_datasets)
        owner: dict[str, str] = {}
        for name, suite in file.suites.items():
            for benchmark in suite.benchmarks:
                if owner.setdefault(benchmark, name) != name or suite.benchmarks.count(benchmark) > 1:
                    self.problems.append(
                        f"suites.{name}.benchmarks: {benchmark!r} is measured twice (also in {owner[benchmark]!r}); name it once"
                    )
        for name, block in file.blocks.items():
            self._check_selection(f"blocks.{name}", block)
            if block.leave_one_out and block.datasets == "*":
                self.problems.append(f"blocks.{name}.datasets: leave_one_out needs merged datasets by name; '*' means the others")
        for i, override in enumerate(file.overrides):
            self._check_selection(f"overrides[{i}]", override)
        _ = self._leave_one_out  # notes its own problems

    def _check_selection(self, path: str, part: Part) -> None:
        known = {"models": self.file.models, "datasets": self.file.datasets, "recipes": self.file.recipes}
        if isinstance(part, Override):
            known["datasets"] = [*self.file.datasets, *self._leave_one_out]
        for kind, names in known.items():
            chosen = getattr(part, kind)
            for i, name in enumerate(chosen if isinstance(chosen, list) else []):
                found = self._name(f"{path}.{kind}[{i}]", name, kind[:-1], names)
                if found and kind == "datasets" and getattr(part, "leave_one_out", False) and len(self.members(name)) < 2:
                    self.problems.append(f"{path}.datasets[{i}]: leave_one_out needs a `merge` of two datasets or more; {name!r} is none")
        for key in part.set:
            if key not in SETTABLE:
                unknown = f"not a hyper-parameter that may differ{nearest(key, SETTABLE)} (allowed: {', '.join(SETTABLE)})"
                self.problems.append(f"{path}.set.{key}: {renamed(Hyperparameters, key) or unknown}")

    # ------------------------------------------------------------ resolution

    @functools.cached_property
    def _leave_one_out(self) -> dict[str, tuple[str, str]]:
        """Leave-one-out set -> (merged set, member left out). Two merged sets cannot both be left out from by name."""
        found: dict[str, tuple[str, str]] = {}
        for block in self.file.blocks.values():
            for merged in block.datasets if block.leave_one_out and isinstance(block.datasets, list) else []:
                for member in self.members(merged) if merged in self.file.datasets else ():
                    if found.setdefault(WITHOUT + member, (merged, member)) != (merged, member):
                        both = f"both {found[WITHOUT + member][0]!r} and {merged!r}"
                        self.problems.append(f"blocks: {WITHOUT}{member} would come from {both}; use one merged set")
        return found

    def _resolve(self) -> dict[tuple[str, str, str], Run]:
        runs: dict[tuple[str, str, str], Run] = {}
        used: set[int] = set()
        for block_name, block in self.file.blocks.items():
            if not block.models or not block.datasets:
                self.problems.append(f"blocks.{block_name}: defines no run; name at least one model, dataset and recipe")
            for model in self.file.models if block.models == "*" else block.models:
                for dataset in self._block_datasets(block):
                    for recipe in block.recipes:
                        settings = self._settings(block_name, model, dataset, recipe, used)
                        if settings is None:
                            continue
                        run = Run(model, dataset, recipe, settings, (block_name,), block.measure_representation)
                        before = runs.setdefault(run.key, run)
                        if before.settings != run.settings:
                            self.problems.append(self._difference(before, run))
                        elif before is not run:
                            blocks = tuple(dict.fromkeys([*before.blocks, block_name]))
                            runs[run.key] = Run(*run.key, settings, blocks, before.measure_representation or run.measure_representation)
        for i in range(len(self.file.overrides)):
            if i not in used:
                self.problems.append(f"overrides[{i}]: matches no run; remove it or correct its models, datasets and recipes")
        return runs

    def _block_datasets(self, block) -> list[str]:
        names = list(self.source_datasets) if block.datasets == "*" else list(block.datasets)
        return [WITHOUT + member for name in names for member in self.members(name)] if block.leave_one_out else names

    def _settings(self, block_name: str, model: str, dataset: str, recipe: str, used: set[int]) -> Hyperparameters | None:
        """Recipe, then the block's `set`, then the overrides from the least to the most specific."""
        entry: Recipe = self.file.recipes[recipe]
        values = {key: getattr(entry, key) for key in Hyperparameters.model_fields} | self.file.blocks[block_name].set
        place = {"models": model, "datasets": dataset, "recipes": recipe}
        matching: list[tuple[int, int]] = []  # (how many of the three it names, index) of each override that holds here
        for i, override in enumerate(self.file.overrides):
            named = {kind: getattr(override, kind) for kind in place if getattr(override, kind) is not None}
            if all(place[kind] in names for kind, names in named.items()):
                matching.append((len(named), i))
        used.update(i for _, i in matching)
        settled: dict[str, tuple[int, int]] = {}  # hyper-parameter -> the override that decides it
        for rank, i in sorted(matching, key=lambda entry: (-entry[0], entry[1])):
            for key, value in self.file.overrides[i].set.items():
                decided, other = settled.setdefault(key, (rank, i))
                if other == i:
                    values[key] = value
                elif decided == rank and values[key] != value:
                    self.problems.append(
                        f"overrides[{i}].set.{key}: overrides[{other}] sets it as well for {model}/{dataset}/{recipe} and is as specific; name more in one of them"
                    )
        try:
            return Hyperparameters.model_validate(values)
        except ValidationError as error:
            self.problems += [f"{model}/{dataset}/{recipe} in blocks.{block_name}: {text}" for text in explain(error, Hyperparameters)]
            return None

    def _difference(self, one: Run, other: Run) -> str:
        left, right = one.settings.model_dump(), other.settings.model_dump()
        keys = ", ".join(f"{key} ({left[key]} and {right[key]})" for key in left if left[key] != right[key])
        return (
            f"blocks.{other.blocks[0]}: defines the run {'/'.join(one.key)} differently from blocks.{one.blocks[0]}: {keys}; "
            "give one of them a recipe of its own"
        )


def load(path: Path) -> Study:
    """Read a study file by itself (jobs and tests; the Snakefile goes through Snakemake's own merging)."""
    return from_config(strict_yaml(Path(path)), str(path))


def from_config(config: Mapping[str, object], source: str) -> Study:
    """Validate a configuration dictionary; raises :class:`ConfigError` with every problem found."""
    if isinstance(config.get("model"), str):  # `--config model=... datasets=...` in former versions
        given = config.get("datasets")
        names = given.replace(",", ", ") if isinstance(given, str) else ", ".join(given if isinstance(given, list) else ())
        call = f"{{model: {config['model']}" + (f", datasets: [{names}]" if names else "") + "}"
        raise ConfigError(source, [f"model: ask for advice with the key `advise`: snakemake advise --config advise='{call}'"])
    try:
        file = StudyFile.model_validate(expand(config, source))
    except ValidationError as error:
        raise ConfigError(source, explain(error, StudyFile)) from None
    return Study(file, source)
