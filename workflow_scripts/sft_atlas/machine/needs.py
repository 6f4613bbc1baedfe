"""What a study needs of the machine that runs it, beside the pinned packages."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from sft_atlas.study.paths import RESULTS, Paths

FLASH = {"flash_attention_3": "flash_attn_interface", "flash_attention_2": "flash_attn"}


@dataclass(frozen=True)
class Needs:
    """Each need with the key of the study that it comes from; nothing that is empty is needed."""

    gpu: str = ""
    modules: dict[str, str] = field(default_factory=dict)  # module -> key
    compiler: str = ""
    sandbox: str = ""
    slurm: str = ""
    repositories: tuple[tuple[str, str], ...] = ()  # (model or dataset, hub id) of what is not fetched yet
    keys: dict[str, str] = field(default_factory=dict)  # environment variable -> key
    labels: str = ""  # all that figures write


def needs_of(study, slurm: bool = False) -> Needs:
    """The needs of a study (:class:`sft_atlas.study.study.Study`), in a local run or with ``--profile slurm``."""
    file = study.file
    gpu, modules, compiler = [], {}, ""
    for run in study.runs.values():
        settings, key = run.settings, f"recipes.{run.recipe}"
        if settings.gpus > 1:
            gpu.append(f"{key}.gpus")
        if settings.liger:
            gpu.append(f"{key}.liger")
            modules["liger_kernel"] = f"{key}.liger"
        if settings.attention in FLASH:
            gpu.append(f"{key}.attention")
            modules[FLASH[settings.attention]] = f"{key}.attention"
        if settings.load_in_4bit or settings.optim == "adamw_8bit":
            modules["bitsandbytes"] = f"{key}.{'load_in_4bit' if settings.load_in_4bit else 'optim'}"
        if settings.compile:
            compiler = f"{key}.compile"
    for name, suite in file.suites.items():
        if suite.backend == "vllm":
            gpu.append(f"suites.{name}.backend")
            modules["vllm"] = f"suites.{name}.backend"
    if file.track:
        modules[file.track] = "track"
    servers = {
        f"suites.{name}.{key}.key_variable": server
        for name, suite in file.suites.items()
        for key in ("judge", "endpoint")
        if (server := getattr(suite, key, None))
    }
    return Needs(
        gpu=gpu[0] if gpu else "",
        modules=modules,
        compiler=compiler,
        sandbox="allow_code_execution" if file.allow_code_execution else "",
        slurm="--profile slurm" if slurm else "",
        repositories=tuple(sorted(set(_repositories(study)))),
        keys={server.key_variable: key for key, server in servers.items() if server.key_variable},
        labels="".join(
            entry.label or name
            for part in ("models", "datasets", "benchmarks", "recipes", "checkpoints")
            for name, entry in getattr(file, part).items()
        ),
    )


def _repositories(study) -> Iterator[tuple[str, str]]:
    """What the study still has to fetch from the hub."""
    file, paths = study.file, Paths(RESULTS.format(study=study.name))
    wanted = [("model", file.models[name], paths.fill(paths.model, model=name)) for name in study.models]
    wanted += [("model", each.entry, paths.of(paths.record, each.checkpoint)) for each in study.outside.values()]
    sources = [name for name in study.sources if name in file.datasets]
    wanted += [("dataset", file.datasets[name], paths.fill(paths.source, dataset=name)) for name in sources]
    for name in {benchmark for suite in file.suites.values() for benchmark in suite.benchmarks}:
        entry = file.benchmarks[name]
        wanted.append(("dataset", entry, paths.fill(paths.items, benchmark=name)))
        if entry.shots:
            shots = entry.shots if entry.shots.hub or entry.shots.path else entry
            wanted.append(("dataset", shots, paths.fill(paths.shots, benchmark=name)))
    if encoder := file.measure.similarity.encoder:
        wanted.append(("model", encoder, paths.encoder))
    return ((kind, source.hub) for kind, source, made in wanted if source.hub and not os.path.exists(made))
