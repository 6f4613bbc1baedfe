"""Sizes that a study's own results state: parameters of its models, tokens of its training sets and runs.

They replace what the study file assumes as soon as the files are there.
"""

import math
from functools import cache
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table
from sft_atlas.core.integrity import require_whole_weights
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.plan.cost import Triple
from sft_atlas.study.paths import Paths
from sft_atlas.study.runs import Run
from sft_atlas.study.schema import CHAT
from sft_atlas.study.study import Study

ROWS = 500  # of a training set that are tokenized


class OwnData:
    """Sizes read from the results of a study; None where there is no file yet."""

    def __init__(self, study: Study, paths: Paths):
        self.study, self.paths = study, paths
        self.parameters, self.row_tokens = cache(self._parameters), cache(self._row_tokens)

    def _folder(self, model: str) -> Path | None:
        manifest = Path(self.paths.fill(self.paths.model, model=model))
        try:
            folder = ModelFolder.read(manifest) if manifest.exists() else None
            if folder:
                folder.verify(weights=False)
                require_whole_weights(folder.path, "")
            return folder and folder.path
        except AtlasError:
            return None  # damaged, or elsewhere, as in an archive without weights

    def _parameters(self, model: str) -> int | None:
        """Parameters of a base model, from the headers of its weights."""
        from safetensors import safe_open

        folder, total = self._folder(model), 0
        for file in sorted(folder.glob("*.safetensors")) if folder else ():
            with safe_open(file, "numpy") as weights:
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
        return total or None

    def _row_tokens(self, dataset: str) -> Triple | None:
        """Tokens of a row of a training set in the study's template, before truncation: fewest, mean and most by tokenizer of the study's models.

        The first rows of its sample are counted. What a chat template adds is not.
        """
        from tokenizers import Tokenizer

        samples = sorted(Path(self.paths.root).glob(f"data/{dataset}/*/{Path(self.paths.sample).name}"))
        files = [folder / "tokenizer.json" for model in self.study.models if (folder := self._folder(model))]
        files = [file for file in files if file.exists()]
        if not samples or not files:
            return None
        try:
            rows = read_table(samples[0], columns=["instruction", "response"], n_rows=ROWS)
        except AtlasError:
            return None  # damaged; the job that reads it says so
        template = self.study.file.template
        prompt, response = ("{instruction}\n", "{response}") if template == CHAT else (template.prompt, template.response)
        texts = [
            prompt.replace("{instruction}", instruction) + response.replace("{response}", answer)
            for instruction, answer in rows.iter_rows()
        ]
        if not texts:
            return None
        means = [sum(len(text.ids) for text in Tokenizer.from_file(str(file)).encode_batch(texts)) / len(texts) for file in files]
        return min(means), sum(means) / len(means), max(means)

    def run_tokens(self, run: Run) -> int | None:
        """Tokens that a finished run trained on, if its rows and epochs are still the same."""
        record = Path(self.paths.fill(self.paths.record, model=run.model, dataset=run.dataset, recipe=run.folder))
        if not record.exists():
            return None
        try:
            entry = read_json(record)
        except AtlasError:
            return None
        same = all(entry["settings"].get(key) == getattr(run.settings, key) for key in ("rows", "epochs", "max_length"))
        return entry.get("tokens") if same else None
