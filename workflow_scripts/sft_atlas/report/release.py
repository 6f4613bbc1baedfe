"""Say what a release to the model hub would upload; upload it only when asked to. The token is that of `hf auth login`."""

import argparse
from pathlib import Path

from sft_atlas.core.files import write_json
from sft_atlas.core.log import LOG
from sft_atlas.report import model_card

NETWORK = True


def main(args: argparse.Namespace) -> None:
    uploads = [model_card.upload(args.namespace, args.study, page) for page in args.cards]
    for each in uploads:
        LOG.info("%s: %d files, %.1f MiB", each.repository, len(each.files), each.size / 2**20)
    addresses = []
    if args.upload:
        from huggingface_hub import HfApi

        addresses = model_card.send(uploads, HfApi(), private=args.private)
    total = sum(each.size for each in uploads)
    what = "uploaded" if args.upload else "would be uploaded; to do it, set release.upload: true"
    LOG.warning("%d checkpoints, %.2f GiB, %s (%s)", len(uploads), total / 2**30, what, args.output)
    plan = [
        {"repository": each.repository, "bytes": each.size, "files": {file: str(path) for file, path in each.files.items()}}
        for each in uploads
    ]
    write_json(args.output, {"uploaded": args.upload, "private": args.private, "checkpoints": plan, "addresses": addresses})


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--cards", type=Path, nargs="+", required=True, help="model cards; weights lie beside them")
    p.add_argument("--study", required=True)
    p.add_argument("--namespace", required=True, help="user or organisation on the hub")
    p.add_argument("--private", action="store_true")
    p.add_argument("--upload", action="store_true", help="without: dry run")
    p.add_argument("--output", type=Path, required=True, help="what was, or would be, uploaded; JSON")
    return p
