"""Model cards of kept checkpoints, written from their provenance and scores, and what of them goes to the hub."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.core.errors import AtlasError

TOKENIZER = ("tokenizer*", "special_tokens_map.json", "*.model", "vocab.*", "merges.txt")  # of the base model; training changes none of it
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json")


def card(record: dict, base: dict, scores: list[dict], before: list[dict], study: str, epoch: int) -> str:
    """The card as Markdown with the hub's front matter.

    ``record`` is train.json, ``base`` model.json, ``scores`` and ``before`` the rows of the checkpoint's and the base model's score tables.
    AtlasError where these are not of the same run and epoch.
    """
    from huggingface_hub import EvalResult, ModelCardData

    keys = {key: record[key] for key in ("model", "dataset", "recipe")}
    for row in scores:
        if {key: row[key] for key in keys} != keys or row["epoch"] != epoch:
            raise AtlasError(
                f"a score of {row['model']}/{row['dataset']}/{row['recipe']}, epoch {row['epoch']}, is no score of {name(record, epoch)}"
            )
    if base["name"] != record["model"]:
        raise AtlasError(f"model.json is that of {base['name']}, the run is of {record['model']}")
    settings = record["settings"]
    source = base["provenance"]["settings"].get("source", {})
    adapter = settings["method"] == "lora"
    front = ModelCardData(
        base_model=source.get("hub"),
        base_model_relation=("adapter" if adapter else "finetune") if source.get("hub") else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["sft", "trl", "sft-atlas", study],
        model_name=name(record, epoch),
        eval_results=[
            EvalResult("text-generation", row["benchmark"], row["benchmark"], row["metric"], round(row["score"], 6)) for row in scores
        ] or None,
    )  # fmt: skip
    kind = f"LoRA adapter, rank {settings['lora']['rank']}" if adapter else "Full weights"
    lines = [
        f"---\n{front.to_yaml()}\n---",
        "",
        f"# {name(record, epoch)}",
        "",
        f"{kind} of {record['model']}{_at(source)}, fine-tuned on {record['dataset']} ({record['samples']:,} samples, epoch {epoch} of {settings['epochs']})"
        f" in the study {study} of sft-atlas, after arXiv 2506.14681.",
        "",
        "## Prompt",
        "",
        "Give prompts in this form; the model was trained on no other.",
        "",
        f"```\n{record['template']['prompt']}{record['template']['response']}\n```",
        "",
        "## Scores",
        "",
        *_scores(scores, before),
        "",
        "## Training",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {key} | {_value(value)} |" for key, value in settings.items() if value is not None and (adapter or key != "lora")),
        "",
        f"{record['steps']} optimiser steps on {record['device']} ({record['dtype']} weights, autocast {record['autocast']}, attention {record['attention']},"
        f" micro-batch {record['micro_batch_size']} x {record['gradient_accumulation_steps']}); {record['dropped_overlong']} samples were too long and left out;"
        f" mean loss {record['train_loss']:.4f}.",
        "",
        "## Provenance",
        "",
        "| what | value |",
        "|---|---|",
        f"| code | {record['code']['commit']}{' with changes' if record['code']['dirty'] else ''} |",
        f"| versions | {', '.join(f'{package} {version}' for package, version in record['versions'].items())} |",
        *(f"| {part}, sha256 of {Path(entry['path']).name} | `{entry['sha256']}` |" for part, entry in record["inputs"].items()),
        *(f"| sha256 of {file} | `{digest}` |" for file, digest in record["weights_sha256"][str(epoch)].items()),
        "",
        "The licences of the base model and of the training data hold for these weights.",
    ]
    return "\n".join(lines) + "\n"


def name(record: dict, epoch: int) -> str:
    """The name of a checkpoint, from train.json."""
    return f"{record['model']}-{record['dataset']}-{record['recipe']}-epoch-{epoch}"


def _at(source: dict) -> str:
    return f" ({source['hub']} at {source['revision']})" if source.get("hub") else ""


def _value(value: object) -> str:
    return ", ".join(f"{key} {inner}" for key, inner in value.items()) if isinstance(value, dict) else str(value)


def _scores(scores: list[dict], before: list[dict]) -> list[str]:
    """A table of scores in percent with standard errors and, where it was measured the same way, the base model's."""
    if not scores:
        return ["None were measured."]
    key = ("benchmark", "metric", "backend")
    bases = {tuple(row[part] for part in key): row for row in before}
    lines = ["| benchmark | metric | n | score, % | base model, % | backend |", "|---|---|---|---|---|---|"]
    for row in sorted(scores, key=lambda row: row["benchmark"]):
        base = bases.get(tuple(row[part] for part in key))
        lines.append(
            f"| {row['benchmark']} | {row['metric']} | {row['n']} | {_percent(row)} | {_percent(base) if base else 'not measured'} | {row['backend']} |"
        )
    return lines


def _percent(row: dict) -> str:
    return f"{100 * row['score']:.2f} ± {100 * row['stderr']:.2f}"


# ---------------------------------------------------------------- release


@dataclass(frozen=True)
class Upload:
    """One checkpoint on its way to the hub: repository, files on disk by their name there, and bytes in all."""

    repository: str
    files: dict[str, Path]

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())


def upload(namespace: str, study: str, page: Path) -> Upload:
    """What is uploaded for the checkpoint whose card is ``page``: weights, card, and the base model's tokenizer."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    folder = page.parent
    record = json.loads((folder.parent / "train.json").read_text(encoding="utf-8"))
    base = json.loads(Path(record["inputs"]["base"]["path"]).read_text(encoding="utf-8"))
    repository = f"{namespace}/{study}-{name(record, int(folder.name.removeprefix('epoch-')))}"
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise AtlasError(f"{folder} cannot be called {repository} on the hub: {error}") from error
    files = {path.name: path for pattern in TOKENIZER for path in sorted(Path(base["path"]).glob(pattern))}
    files |= {path.name: path for pattern in WEIGHTS for path in sorted((folder / "weights").glob(pattern))}
    if not any(file.endswith(".safetensors") for file in files):
        raise AtlasError(f"{folder}/weights holds no safetensors; train the run again, or leave it out of the release")
    return Upload(repository, files | {"README.md": page})


def send(uploads: Iterable[Upload], api, private: bool) -> list[str]:
    """Upload through an ``HfApi``, one commit per checkpoint; returns the addresses. What is there already is not sent again."""
    from huggingface_hub import CommitOperationAdd

    addresses = []
    for each in uploads:
        api.create_repo(each.repository, private=private, exist_ok=True)
        additions = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=str(path)) for file, path in each.files.items()]
        addresses.append(str(api.create_commit(each.repository, operations=additions, commit_message="Checkpoint, card and tokenizer")))
    return addresses
