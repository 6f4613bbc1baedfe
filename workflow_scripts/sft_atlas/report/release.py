"""Say what a release to the model hub would upload; upload it only when asked to. The token is that of `hf auth login`."""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, write_json
from sft_atlas.core.integrity import damage
from sft_atlas.core.log import LOG
from sft_atlas.report.write_card import checkpoint_name
from sft_atlas.study.paths import RECORD, epoch_of, named_folder

NETWORK = True
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "*.model", "vocab.*", "merges.txt")  # of the base model; training changes none of it
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json")


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
    record = read_json(folder.parent / RECORD)
    manifest = Path(record["inputs"]["base"]["path"])
    base = named_folder(read_json(manifest)["path"], manifest)
    repository = f"{namespace}/{study}-{checkpoint_name(record, epoch_of(folder))}"
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise AtlasError(f"{folder} cannot be called {repository} on the hub: {error}") from error
    files = {path.name: path for pattern in TOKENIZER for path in sorted(base.glob(pattern))}
    files |= {path.name: path for pattern in WEIGHTS for path in sorted((folder / "weights").glob(pattern))}
    if not any(file.endswith(".safetensors") for file in files):
        raise AtlasError(f"{folder}/weights holds no safetensors; train the run again, or leave it out of the release")
    if problem := damage(folder / "weights", record.get("weights_sha256", {}).get(str(epoch_of(folder)), {})):
        raise AtlasError(f"{problem}; train the run again, or leave it out of the release")
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


def main(args: argparse.Namespace) -> None:
    uploads = [upload(args.namespace, args.study, page) for page in args.cards]
    for each in uploads:
        LOG.info("%s: %d files, %.1f MiB", each.repository, len(each.files), each.size / 2**20)
    addresses = []
    if args.upload:
        from huggingface_hub import HfApi

        addresses = send(uploads, HfApi(), private=args.private)
    total = sum(each.size for each in uploads)
    what = "uploaded" if args.upload else "would be uploaded; to do it, set release.upload: true"
    LOG.warning("%d checkpoints, %.2f GiB, %s (%s)", len(uploads), total / 2**30, what, args.output)
    plan = [
        {"repository": each.repository, "bytes": each.size, "files": {file: str(path) for file, path in each.files.items()}}
        for each in uploads
    ]
    write_json(args.output, {"uploaded": args.upload, "private": args.private, "checkpoints": plan, "addresses": addresses})


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--cards", type=Path, nargs="+", required=True, help="model cards; weights lie beside them")
    p.add_argument("--study", required=True)
    p.add_argument("--namespace", required=True, help="user or organisation on the hub")
    p.add_argument("--private", action="store_true")
    p.add_argument("--upload", action="store_true", help="without: dry run")
    p.add_argument("--output", type=Path, required=True, help="what was, or would be, uploaded; JSON")
