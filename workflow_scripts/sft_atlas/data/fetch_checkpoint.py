"""Fetch a checkpoint that was trained elsewhere from the hub or a local folder, check it against its base model, and publish it as a run's checkpoint."""

import argparse
from pathlib import Path

from sft_atlas.core.files import atomic, link_or_copy, read_json, sha256, write_json
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance, resource_usage
from sft_atlas.data import hub
from sft_atlas.data.checkpoint_check import check_checkpoint, require_safetensors
from sft_atlas.data.fetch_model import FETCHED
from sft_atlas.models.arguments import add_keys, add_model
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.study.outside import EPOCH
from sft_atlas.study.paths import RECORD, WEIGHTS
from sft_atlas.study.schema import OutsideCheckpoint

NETWORK = True
KEYS = ("model", "dataset", "recipe")
# What the record of a training says and nobody can tell of this checkpoint.
NOT_KNOWN = (
    "steps", "tokens", "supervised_tokens", "samples", "train_loss", "seconds", "tokens_per_second", "logit_change_mean", "logit_resolution",
    "weight_change", "device", "dtype", "template",
)  # fmt: skip


def main(args: argparse.Namespace) -> None:
    """Write epoch-1/weights, links to the files where that is possible, and at last train.json."""
    key, entry = f"checkpoints.{args.recipe}", OutsideCheckpoint.model_validate_json(args.entry)
    base = ModelFolder.read(args.base)
    base.verify()
    folder, commit = (args.path, None) if entry.hub is None else _from_hub(entry, args.folder, key)
    found = check_checkpoint(folder, base, args.method, entry.merged, key)
    for remark in found.remarks:
        LOG.info("%s: %s", key, remark)
    weights = args.output / WEIGHTS.format(epoch=EPOCH)
    with atomic(weights, size=sum(path.stat().st_size for path in found.files)) as part:
        part.mkdir()
        for path in found.files:
            link_or_copy(path, part / path.name)
    hashes = {path.name: sha256(weights / path.name) for path in found.files}
    source = entry.model_dump(include={"hub", "revision", "path"}, exclude_none=True) | ({"commit": commit} if commit else {})
    record = {
        **{name: getattr(args, name) for name in KEYS},
        **dict.fromkeys(NOT_KNOWN),
        "outside": {"source": source, **found.facts, "remarks": found.remarks},
        # The weights and, where the checkpoint has a tokenizer of its own, that: on both its answers depend.
        "weights_sha256": {str(EPOCH): {name: digest for name, digest in hashes.items() if name not in found.configuration}},
        "configuration_sha256": {str(EPOCH): {name: digest for name, digest in hashes.items() if name in found.configuration}},
        **record_provenance({"method": args.method, **found.settings}, {"base": args.base}),
        "usage": resource_usage(),
    }
    write_json(args.output / RECORD, record, durable=True)


def _from_hub(entry: OutsideCheckpoint, folder: Path, key: str) -> tuple[Path, str]:
    """Download the files at the top of the repository, and compare them with what was fetched before, as for base models."""
    from huggingface_hub import HfApi

    record = folder / FETCHED
    known = read_json(record) if record.exists() else {}
    commit = hub.resolve_commit("model", entry.hub, entry.revision)
    hub.require_recorded_commit(known, entry, commit, key, record)
    info = hub.request(lambda: HfApi().model_info(entry.hub, revision=commit), "model", entry.hub, commit)
    names = [file.rfilename for file in info.siblings or () if "/" not in file.rfilename]
    require_safetensors(names, f"{entry.hub} at {commit}", key)
    files = hub.download_model(entry.hub, commit, folder / "files", remote_code=False, only_top=True)
    now = hub.record_of(entry, commit, {path.name: sha256(path) for path in sorted(files.iterdir()) if path.is_file()})
    hub.require_recorded_content(known, now, key, record, f"delete {folder} and run again")
    write_json(record, now)
    return files, commit


def add_options(p: argparse.ArgumentParser) -> None:
    add_keys(p, *KEYS)
    add_model(p, weights=False)
    p.add_argument("--entry", required=True, help="its entry of the study file, as JSON")
    p.add_argument("--method", choices=("full", "lora"), required=True, help="how it was trained, as stated or as its files say")
    p.add_argument("--path", type=Path, nargs="?", help="local folder, where the entry names one")
    p.add_argument("--folder", type=Path, required=True, help="where a download goes; kept on failure, so that it resumes")
    p.add_argument("--output", type=Path, required=True, help="folder of the run, for train.json and epoch-1/weights")
