"""Input and parameter functions of ``rules/train.smk``, and which weights are kept: look-ups in the study, without files."""

import re
from collections.abc import Iterable
from pathlib import Path

from sft_atlas.study.paths import Paths
from sft_atlas.study.runs import BASE, Checkpoint
from sft_atlas.study.study import Study

HELPER = re.compile(r"^ *from helpers\.(\w+) import", re.MULTILINE)


class TrainInputs:
    """Functions from wildcards to files and settings, for training runs and the checkpoints that they give."""

    def __init__(self, study: Study, paths: Paths):
        self.study, self.paths, self.file = study, paths, study.file
        self.rules = {f"train_{recipe}" for recipe in study.recipes}
        self.tuned = [checkpoint for checkpoint in study.checkpoints if checkpoint.dataset != BASE]
        self.kept = [checkpoint for checkpoint in self.tuned if self.weights_kept(checkpoint.recipe, checkpoint.epoch)]
        # What `release` uploads: weights of others only where the study says so, for they have owners and licences of their own.
        others = {each.folder for each in study.outside.values() if not self.file.release.outside}
        self.released = [c for c in self.kept if c.recipe not in others] if self.file.release.checkpoints else []
        self.not_released = sorted(others) if self.file.release.checkpoints else []

    def settings(self, wildcards) -> str:
        """The resolved hyper-parameters of a run, as JSON."""
        return self.study.runs[wildcards.model, wildcards.dataset, wildcards.recipe].settings.model_dump_json()

    def identity(self, wildcards) -> str:
        """Those that change results: another value trains the run again."""
        return self.study.runs[wildcards.model, wildcards.dataset, wildcards.recipe].settings.identity()

    def template(self, wildcards) -> str:
        """The prompt template of the study, as JSON."""
        return self.file.template_json

    def data(self, wildcards) -> str:
        """The training set of a run."""
        rows = self.study.runs[wildcards.model, wildcards.dataset, wildcards.recipe].settings.rows
        return self.paths.fill(self.paths.sample, dataset=wildcards.dataset, rows=rows)

    def track(self, wildcards) -> str:
        """The options of the tracker, none where nothing is tracked."""
        return f"--track {self.file.track} --tracking {self.paths.tracking} --study {self.study.name}" if self.file.track else ""

    def holdout(self, wildcards) -> list[str]:
        """The held-out rows of a run's training set, of a merged one those of each member; [] where nothing is held out."""
        rows = self.study.runs[wildcards.model, wildcards.dataset, wildcards.recipe].settings.rows
        sources = self.study.members(wildcards.dataset) or (wildcards.dataset,)
        held = [name for name in sources if self.study.all_datasets[name].holdout is not None]
        return [self.paths.fill(self.paths.holdout, dataset=name, rows=rows) for name in held]

    def files(self, pattern: str, checkpoints: Iterable[Checkpoint], **more: object) -> list[str]:
        """One file of each of the checkpoints."""
        return [self.paths.of(pattern, checkpoint, **more) for checkpoint in checkpoints]

    def weights_kept(self, recipe: str, epoch: int) -> bool:
        """Whether an epoch's weights are kept: adapters are, full weights as `keep_weights` says."""
        if recipe in self.file.checkpoints:  # trained elsewhere, and not to be made again
            return True
        entry = self.study.recipes[recipe]
        kept = {"none": [], "final": [entry.kept_epochs[-1]], "all": entry.kept_epochs}[self.file.keep_weights]
        return entry.method == "lora" or epoch in kept

    def weights_of(self, recipe: str) -> list[tuple[int, str]]:
        """(epoch, path of its weights) for each epoch that a recipe keeps."""
        return [(epoch, self.paths.fill(self.paths.weights, epoch=epoch)) for epoch in self.study.kept_epochs(recipe)]

    def records(self) -> list[str]:
        """The record of every run, which is deleted with damaged weights and not with weights that are no longer wanted."""
        return [
            self.paths.fill(self.paths.record, model=model, dataset=dataset, recipe=recipe) for model, dataset, recipe in self.study.runs
        ]

    def trained(self, checkpoints: Iterable[Checkpoint]) -> list[str]:
        """The results of training: kept weights, and everything measured on weights that are deleted afterwards."""
        tuned = [checkpoint for checkpoint in checkpoints if checkpoint.dataset != BASE]
        kept = [checkpoint for checkpoint in tuned if self.weights_kept(checkpoint.recipe, checkpoint.epoch)]
        return [*self.files(self.paths.weights, kept), *self.files_before_deletion(tuned)]

    def files_before_deletion(self, checkpoints: Iterable[Checkpoint]) -> list[str]:
        """Every file made from weights that are deleted afterwards. A target with only some of them would lose the others."""
        return self.measured(c for c in checkpoints if c.dataset != BASE and not self.weights_kept(c.recipe, c.epoch))

    def measured(self, checkpoints: Iterable[Checkpoint]) -> list[str]:
        """Every file made from the weights of tuned checkpoints."""
        checkpoints = list(checkpoints)
        scores = [path for suite in self.file.suites for path in self.files(self.paths.scores, checkpoints, suite=suite)]
        represented = [checkpoint for checkpoint in checkpoints if checkpoint.measure_representation]
        return [*scores, *self.files(self.paths.layers, checkpoints), *self.files(self.paths.likelihood, represented)]

    def block(self, block: str) -> list[str]:
        """Every file of the runs of a block."""
        members = [c for c in self.tuned if c.run in self.study.runs and block in self.study.runs[c.run].blocks]
        return list(dict.fromkeys([*self.trained(members), *self.measured(members)]))

    def gpus(self, wildcards) -> int:
        """GPUs of a training run."""
        return self.study.runs[wildcards.model, wildcards.dataset, wildcards.recipe].settings.gpus

    def invariants(self) -> list[str]:
        """The files of the tests of training invariants, with the helpers that they import, directly or not."""
        files, waiting = set(), [*Path("tests/invariants").glob("*.*"), Path("tests/conftest.py")]
        while waiting:
            path = waiting.pop()
            if path not in files:
                files.add(path)
                helpers = HELPER.findall(path.read_text(encoding="utf-8")) if path.suffix == ".py" and path.exists() else ()
                waiting += [Path(f"tests/helpers/{name}.py") for name in helpers]
        return sorted(map(str, files))
