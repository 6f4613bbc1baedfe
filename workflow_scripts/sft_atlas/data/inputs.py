"""Input and parameter functions of ``rules/data.smk``: look-ups in the study, without files."""

import hashlib
from collections.abc import Set
from pathlib import Path

from sft_atlas.core import snapshot
from sft_atlas.study.lm_eval_registry import data_of, examples_of
from sft_atlas.study.paths import Paths
from sft_atlas.study.study import Study

COSMETIC = {"label", "group", "family", "language", "chance", "parameters"}  # keys of an entry that change no result of its job
PRESENTATION = {"task", "shots"}  # keys of a benchmark that do not change its items


class DataInputs:
    """Functions from wildcards to files and settings, for base models, training sets and benchmarks."""

    def __init__(self, study: Study, paths: Paths):
        self.study, self.paths = study, paths
        self.file = study.file
        self._contents: dict[str, str] = {}
        encoder = self.file.measure.similarity.encoder
        self.encoder_entry = encoder.model_dump_json(exclude_defaults=True) if encoder else ""
        self.encoder_path = self._path(encoder)
        self.entries = {"model": study.all_models, "dataset": study.all_datasets, "benchmark": self.file.benchmarks}
        self.checkpoints = self.file.checkpoints
        self.pretrained = [name for name, model in study.all_models.items() if model.pretrain]
        self.fetched = [name for name in study.all_models if name not in self.pretrained]
        self.with_holdout = [name for name, dataset in study.all_datasets.items() if dataset.holdout is not None]
        self.with_shots = [name for name, entry in self.file.benchmarks.items() if entry.shots]

    def entry(self, kind: str, without: Set[str] = frozenset()):
        """A function from wildcards to the JSON of a model's, dataset's or benchmark's entry, without its cosmetic and the given keys."""

        def of(wildcards) -> str:
            entry = self.entries[kind][wildcards[kind]]
            kept = {"shots"} if getattr(entry, "lm_eval", None) else set()  # without them some tasks of lm-eval's registry are not valid
            return entry.model_dump_json(exclude=(COSMETIC | without) - kept, exclude_defaults=True)

        return of

    def checkpoint_entry(self, wildcards) -> str:
        """The JSON of a checkpoint that was trained elsewhere: where it comes from, and how its adapter is stored. Facts change no file."""
        entry = self.checkpoints[wildcards.recipe]
        return entry.model_dump_json(include={"model", "hub", "revision", "path", "method", "merged"}, exclude_defaults=True)

    def checkpoint_method(self, wildcards) -> str:
        """How it was trained."""
        return self.study.all_outside[wildcards.model, wildcards.dataset, wildcards.recipe].method

    def checkpoint_path(self, wildcards) -> str | list:
        """Its local folder; [] where it is on the hub."""
        return self._path(self.checkpoints[wildcards.recipe])

    def checkpoint_content(self, wildcards) -> str:
        """Hash of what is in that folder."""
        return self.content_of(self.checkpoint_path(wildcards))

    def fetched_checkpoints(self) -> list[str]:
        """The records of the study's checkpoints that were trained elsewhere."""
        return [self.paths.of(self.paths.record, each.checkpoint) for each in self.study.outside.values()]

    def local_path(self, kind: str):
        """A function from wildcards to the local file or folder that an entry names; [] where it names none."""
        return lambda wildcards: self._path(self.entries[kind][wildcards[kind]])

    def local_files(self) -> list[str]:
        """Every local file and folder that the study names."""
        entries = [
            *self.checkpoints.values(),
            *(entry for kind in self.entries.values() for entry in kind.values()),
            self.file.measure.similarity.encoder,
        ]
        shots = [self.file.benchmarks[name].shot_source() for name in self.with_shots]
        held_out = [self.study.path(entry.holdout) for entry in self.study.all_datasets.values() if isinstance(entry.holdout, str)]
        imported = [self.study.path(entry.file) for entry in self.file.imported_scores.values()]
        return sorted({path for entry in [*entries, *shots] if (path := self._path(entry))} | set(held_out) | set(imported))

    def imported_content(self, wildcards) -> str:
        """A hash of what each import holds, see :meth:`content`."""
        return " ".join(self.content_of(self.study.path(entry.file)) for entry in self.file.imported_scores.values())

    def holdout_file(self, wildcards) -> str | list:
        """The local file of held-out rows that a dataset names; [] where it names none."""
        holdout = self.study.all_datasets[wildcards.dataset].holdout
        return self.study.path(holdout) if isinstance(holdout, str) else []

    def content(self, kind: str):
        """A function from wildcards to a hash of what the local file or folder of an entry holds.

        Snakemake looks at an input only if it is newer than the output: not at an older file that takes its place, nor into a folder.
        """
        return lambda wildcards: self._content(self.entries[kind][wildcards[kind]])

    def _content(self, entry) -> str:
        if not getattr(entry, "lm_eval", None) or entry.path or entry.hub:
            return self.content_of(self._path(entry))
        return " ".join(self.content_of(data_of(file).path) for file in entry.task_files)  # files that lm-eval's task files name

    def shots_content(self, wildcards) -> str:
        """A hash of what the local file of a benchmark's few-shot examples holds."""
        entry = self.file.benchmarks[wildcards.benchmark]
        if entry.lm_eval and not (entry.shots.path or entry.hub):
            return " ".join(self.content_of(examples_of(file).path) for file in entry.task_files)
        return self.content_of(self.shots_path(wildcards))

    def content_of(self, path: str | list) -> str:
        """Hash of a file or folder; empty where there is no path."""
        if not path:
            return ""
        if path not in self._contents:
            folder = Path(path)
            files = [each for each in folder.rglob("*") if each.is_file() and each.name[0] != "." and each.suffix != ".md"]
            files = sorted(files) if folder.is_dir() else [folder]
            lines = [f"{file.relative_to(folder)} {snapshot.digest(file)}\n" for file in files]
            self._contents[path] = hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
        return self._contents[path]

    def samples(self, datasets) -> list[str]:
        """Every sample of these training sets."""
        return [self.paths.fill(self.paths.sample, dataset=name, rows=rows) for name in datasets for rows in self.study.sample_sizes(name)]

    def items(self) -> list[str]:
        """The items of every benchmark in a suite, by name: what is made of them does not depend on the order of suites."""
        names = {name for suite in self.file.suites.values() for name in suite.benchmarks}
        return [self.paths.fill(self.paths.items, benchmark=name) for name in sorted(names)]

    def shots(self) -> list[str]:
        """The examples of every few-shot benchmark in a suite, by name."""
        names = {name for suite in self.file.suites.values() for name in suite.benchmarks if self.file.benchmarks[name].shots}
        return [self.paths.fill(self.paths.shots, benchmark=name) for name in sorted(names)]

    def members(self, wildcards) -> list[str]:
        """The samples that a merged set consists of."""
        names = self.study.members(wildcards.dataset)
        return [self.paths.fill(self.paths.sample, dataset=name, rows=wildcards.rows) for name in names]

    def member_order(self, wildcards) -> str:
        """Those samples in their order, in which they are concatenated."""
        return " ".join(self.members(wildcards))

    def shots_path(self, wildcards) -> str | list:
        """The local file of a benchmark's few-shot examples; [] where they come from elsewhere."""
        return self._path(self.file.benchmarks[wildcards.benchmark].shot_source())

    def _path(self, entry) -> str | list:
        return self.study.path(entry.path) if entry and entry.path else []
