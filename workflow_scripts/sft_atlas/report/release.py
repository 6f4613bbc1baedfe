"""Say what a release to the model hub would upload, checkpoints and the atlas; upload it only when asked to. The token is that of `hf auth login`."""

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, write_json
from sft_atlas.core.integrity import damage
from sft_atlas.core.log import LOG
from sft_atlas.report import shared_atlas
from sft_atlas.report.write_card import checkpoint_name
from sft_atlas.study.paths import RECORD, epoch_of, named_folder

NETWORK = True
TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "*.model",
    "vocab.*",
    "merges.txt",
)  # of the base model, unless the checkpoint has its own
MOST = 10  # checkpoints of others that a message names
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
    files |= {path.name: path for pattern in (*TOKENIZER, *WEIGHTS) for path in sorted((folder / "weights").glob(pattern))}
    if not any(file.endswith(".safetensors") for file in files):
        raise AtlasError(f"{folder}/weights holds no safetensors; train the run again, or leave it out of the release")
    recorded = {
        name: digest
        for key in ("weights_sha256", "configuration_sha256")
        for name, digest in record.get(key, {}).get(str(epoch_of(folder)), {}).items()
    }
    if problem := damage(folder / "weights", recorded):
        raise AtlasError(f"{problem}; train the run again, or leave it out of the release")
    return Upload(repository, files | {"README.md": page})


def send(uploads: Iterable[Upload], api, private: bool) -> list[str]:
    """Upload through an ``HfApi``, one commit per checkpoint; returns the addresses. What is there already is not sent again."""
    from huggingface_hub import CommitOperationAdd

    addresses = []
    for each in uploads:
        with _refused(each.repository):
            api.create_repo(each.repository, private=private, exist_ok=True)
            additions = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=str(path)) for file, path in each.files.items()]
            addresses.append(str(api.create_commit(each.repository, operations=additions, commit_message="Checkpoint, card and tokenizer")))
    return addresses


def pages(atlas: Path, study: str) -> dict[str, bytes]:
    """What a static Space shows: the files of the atlas, and the README that tells the hub so."""
    about = {"title": f"{study} (sft-atlas)", "sdk": "static", "app_file": "index.html"}
    head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in about.items())
    return shared_atlas.files(atlas.parent, shared_atlas.study_beside(atlas.parent)) | {"README.md": f"---\n{head}---\n".encode()}


def send_pages(space: str, content: dict[str, bytes], api, private: bool) -> str:
    """Make a static Space show these files and no others, through an ``HfApi``, in one commit; returns its address."""
    with tempfile.TemporaryDirectory() as folder, _refused(space):
        for name, data in content.items():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        address = api.create_repo(space, repo_type="space", space_sdk="static", private=private, exist_ok=True)
        api.upload_folder(repo_id=space, repo_type="space", folder_path=folder, delete_patterns="*", commit_message="Atlas")
    return str(address)


@contextlib.contextmanager
def _refused(repository: str) -> Iterator[None]:
    """Say what to do where the hub does not take an upload."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        raise AtlasError(
            f"the hub did not take {repository}: {str(error).strip()}. Log in with `hf auth login` and a token that may write there; what is uploaded "
            "already is not sent again"
        ) from error


def main(args: argparse.Namespace) -> None:
    uploads = [upload(args.namespace, args.study, page) for page in args.cards]
    for each in uploads:
        LOG.info("%s: %d files, %.1f MiB", each.repository, len(each.files), each.size / 2**20)
    if args.not_ours:
        names = ", ".join(args.not_ours[:MOST]) + (f" and {len(args.not_ours) - MOST} more" if len(args.not_ours) > MOST else "")
        LOG.warning("left out, as others trained them: %s; where their licences allow an upload, set release.outside: true", names)
    shown = pages(args.atlas, args.study) if args.space else {}
    if shown:
        LOG.info("Space %s: %d files, %.1f MiB", args.space, len(shown), sum(map(len, shown.values())) / 2**20)
    addresses = []
    if args.upload:
        from huggingface_hub import HfApi

        addresses = send(uploads, HfApi(), private=args.private)
        addresses += [send_pages(args.space, shown, HfApi(), private=args.private)] if shown else []
    total = sum(each.size for each in uploads)
    what = "uploaded" if args.upload else "would be uploaded; to do it, set release.upload: true"
    also = f" and the atlas as Space {args.space}" if shown else ""
    LOG.warning("%d checkpoints, %.2f GiB,%s %s (%s)", len(uploads), total / 2**30, also, what, args.output)
    plan = [
        {"repository": each.repository, "bytes": each.size, "files": {file: str(path) for file, path in each.files.items()}}
        for each in uploads
    ]
    space = {"repository": args.space, "bytes": sum(map(len, shown.values())), "files": sorted(shown)} if shown else None
    write_json(
        args.output,
        {
            "uploaded": args.upload,
            "private": args.private,
            "checkpoints": plan,
            "left_out": args.not_ours,
            "space": space,
            "addresses": addresses,
        },
    )


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--cards", type=Path, nargs="*", default=[], help="model cards; weights lie beside them")
    p.add_argument("--not-ours", nargs="*", default=[], help="checkpoints that others trained, which are left out")
    p.add_argument("--study", required=True)
    p.add_argument("--namespace", required=True, help="user or organisation on the hub")
    p.add_argument("--space", default="", help="owner/name of the static Space for the atlas")
    p.add_argument("--atlas", type=Path, help="index.html of the atlas")
    p.add_argument("--private", action="store_true")
    p.add_argument("--upload", action="store_true", help="without: dry run")
    p.add_argument("--output", type=Path, required=True, help="what was, or would be, uploaded; JSON")
