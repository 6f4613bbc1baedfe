"""Answers of a checkpoint, kept by the content of their requests: what was answered before is taken over, and the model is loaded for the
rest alone.

A suite's folder in ``state/`` holds

    facts.json                      what was known of the loaded model that gave the answers, for the provenance
    answers/{benchmark}.parquet     key, answer (JSON), truncated: those of the suite's last job, and of one that was killed
    former/scores.parquet, ...      the last complete results (hard links), because Snakemake deletes outputs before a job starts

so a benchmark that is added or changed is answered alone, and a corrected filter needs no model. A job that ends well removes from its
folder what it did not use.
"""

import ast
import contextlib
import functools
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import atomic, read_json, read_table, write_json, write_table
from sft_atlas.core.job import PACKAGE
from sft_atlas.core.log import LOG
from sft_atlas.evaluate.engines.engine import DEFAULT_LENGTH, Truncation
from sft_atlas.models.base_model import weights_identity

# What decides how a model answers a request, besides its weights: these modules and packages.
CODE = (
    "models/base_model.py",
    "models/tokenization.py",
    "evaluate/lm_eval_runner.py",
    "evaluate/engines/engine.py",
    "evaluate/engines/tokens.py",
)
CODE_OF = {  # and of each backend
    "hf": ("evaluate/engines/hf.py", "evaluate/engines/likelihoods.py"),
    "hf-paged": tuple(f"evaluate/engines/{name}.py" for name in ("hf", "token_model", "paged", "likelihoods")),
    "vllm": ("evaluate/engines/token_model.py", "evaluate/engines/replicas.py", "evaluate/engines/vllm.py"),
    "endpoint": ("evaluate/engines/endpoint.py",),
}
LIBRARIES = ("transformers", "peft", "lm_eval")


def identity(manifest: Path, weights: Path | None, backend: str, version: str, dtype: str) -> str:
    """What answers depend on besides their requests, as a hash: weights, base model, engine with version and dtype, code and libraries.

    ``manifest``: model.json. Weights of a run are known by the hashes in its train.json.
    """
    base = read_json(manifest)
    return _digest([_code(backend), backend, version, dtype, base.get("sha256"), weights and weights_identity(weights)])


@functools.cache
def _code(backend: str) -> list[str]:
    """The modules behind the answers of a backend without comments and layout, and the versions of the libraries."""
    modules = [ast.dump(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))) for path in (*CODE, *CODE_OF[backend])]
    versions = []
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    return modules + versions


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def sampled(settings: object) -> bool:
    """Whether the `generation_kwargs` of a task sample: then answers depend on the seed and on what else is in the batch."""
    return isinstance(settings, Mapping) and bool(settings.get("do_sample") or (settings.get("temperature") or 0) > 0)


class AnswerStore:
    """Known answers by key, from every suite of the checkpoint; ``folder`` is the suite's own, in ``state/``.

    ``asked`` and ``taken_over`` count requests.
    """

    def __init__(self, folder: Path, identity: str):
        import polars as pl

        self.folder, self.identity = folder, identity
        self.known: dict[str, tuple[str, bool | None]] = {}  # key -> answer as JSON, whether it was truncated
        self.used: dict[str, dict[str, None]] = {}  # benchmark -> keys
        self.asked = self.taken_over = 0
        self.facts: dict[str, object] = {}  # of the model that gave the answers
        for path in sorted(folder.parent.glob("*/facts.json")):
            self.facts = read_json(path).get(identity) or self.facts
        for path in sorted(folder.parent.glob("*/answers/*.parquet")):
            try:
                rows = read_table(path, "its requests are answered again").select("key", "answer", "truncated")
                self.known |= {key: (answer, truncated) for key, answer, truncated in rows.iter_rows()}
            except (AtlasError, pl.exceptions.PolarsError) as error:
                LOG.warning("%s", str(error).splitlines()[0])

    def keys(self, kind: str, requests: Sequence[tuple], sampling: object) -> list[str]:
        """The key of each request (the arguments of lm-eval's instance). Equal requests have different keys, as they may be sampled.

        ``sampling``: what sampled answers depend on besides.
        """
        seen: Counter[str] = Counter()
        together = [self.identity, sampling, requests] if any(sampled(request[-1]) for request in requests) else self.identity
        start, keys = _digest(together), []
        for request in requests:
            key = _digest([start, kind, request])
            seen[key] += 1
            keys.append(key if seen[key] == 1 else _digest([key, seen[key]]))
        return keys

    def add(self, benchmark: str, keys: list[str], answers: list[str], truncated: list[bool | None]) -> None:
        """Keep answers on disk before anything else happens."""
        self.known |= dict(zip(keys, zip(answers, truncated, strict=True), strict=True))
        self.asked += len(keys)
        self.use(benchmark, keys)
        self._write(benchmark)

    def keep_facts(self, facts: dict[str, object]) -> None:
        """Note what is known of the model that answers."""
        self.facts = facts
        write_json(self.folder / "facts.json", {self.identity: facts})

    def use(self, benchmark: str, keys: list[str]) -> None:
        """Note that a benchmark consists of these requests, among others."""
        self.used.setdefault(benchmark, {}).update(dict.fromkeys(keys))

    def _write(self, benchmark: str) -> None:
        import polars as pl

        rows = [(key, *self.known[key]) for key in self.used[benchmark] if key in self.known]
        schema = {"key": pl.String, "answer": pl.String, "truncated": pl.Boolean}
        write_table(self.folder / "answers" / f"{benchmark}.parquet", pl.DataFrame(rows, schema, orient="row"))

    def finish(self) -> None:
        """Keep what this job used, and nothing else."""
        self.keep_facts(self.facts)
        for benchmark in self.used:
            self._write(benchmark)
        for path in (self.folder / "answers").glob("*.parquet"):
            if path.stem not in self.used:
                path.unlink()


def answering_model(store: AnswerStore, load: Callable, name: str, max_length: int, sampling: object):
    """An lm-eval model that gives the answers of ``store``, and those of the adapter that ``load`` returns where there is none.

    ``name``: of the checkpoint, for messages; ``max_length``: tokens of prompt and answer; ``sampling``: see :meth:`AnswerStore.keys`.
    """
    from types import SimpleNamespace

    from lm_eval.api.model import LM

    class AnsweringModel(LM):
        max_gen_toks = DEFAULT_LENGTH

        def __init__(self):
            super().__init__()
            self.max_length, self.model = max_length, SimpleNamespace(name_or_path=name)
            self.adapter = None
            self.truncation = Truncation()

        @property
        def tokens(self) -> dict[str, int]:
            """Tokens that the model read for likelihoods, with and without sharing; {} where it was not asked or does not count."""
            return dict(getattr(getattr(self.adapter, "likelihood", None), "tokens", {}))

        def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
            return self._answers("generate_until", requests)

        def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return [tuple(pair) for pair in self._answers("loglikelihood", requests)]

        def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
            return self._answers("loglikelihood_rolling", requests)

        def _answers(self, kind: str, requests) -> list:
            benchmark, keys = requests[0].task_name, store.keys(kind, [request.args for request in requests], sampling)
            waiting = [i for i, key in enumerate(keys) if key not in store.known]
            store.taken_over += len(keys) - len(waiting)
            store.use(benchmark, keys)
            if waiting:
                if self.adapter is None:
                    self.adapter = load()
                self.adapter.batch_sizes = {}  # `auto` found them for other prompts
                asked = [requests[i] for i in waiting]
                answers = [json.dumps(answer) for answer in getattr(self.adapter, kind)(asked)]
                truncated = [self.adapter.truncation.of(request.args) for request in asked]
                store.add(benchmark, [keys[i] for i in waiting], answers, truncated)
            for request, key in zip(requests, keys, strict=True):
                self.truncation.note(request.args, store.known[key][1])
            return [json.loads(store.known[key][0]) for key in keys]

    return AnsweringModel()


@contextlib.contextmanager
def former_results(state: Path, *outputs: Path) -> Iterator[None]:
    """Put the last complete results back while the job runs, and keep the new ones for the next job when it has ended well.

    They are replaced by rename. After a failure Snakemake deletes them once more, but not those in ``state``.
    """
    for output in outputs:
        kept = _former(state, output)
        if kept.exists() and not output.exists():
            _link(kept, output)
    yield
    for output in outputs:
        with atomic(_former(state, output)) as part:
            _link(output, part)


def _former(state: Path, output: Path) -> Path:
    return state / "former" / f"{output.parent.name}.parquet"


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
