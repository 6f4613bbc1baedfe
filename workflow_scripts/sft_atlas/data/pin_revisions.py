"""Replace the branches in a study file by the commits that they stand for now (uses the model hub).

make pin STUDY=paper
"""

import argparse
import re
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.data import hub
from sft_atlas.study.schema import is_commit
from sft_atlas.study.study import load

NETWORK = True


def pin(text: str, repository: str, revision: str, commit: str) -> str:
    """The text of a study file with the revision that follows a hub id replaced by a commit; nothing else changes.

    Raises AtlasError where the two keys do not follow each other, in this order.
    """
    beside = rf"(\bhub:\s*['\"]?{re.escape(repository)}['\"]?\s*[,\n]\s*revision:\s*['\"]?){re.escape(revision)}(?=['\"]?\s*[,}}\n#])"
    text, count = re.subn(beside, rf"\g<1>{commit}", text)
    if not count:
        raise AtlasError(f"hub: {repository} is not followed by revision: {revision}; write the commit {commit} there by hand")
    return text


def main(args: argparse.Namespace) -> None:
    file = load(args.study).file
    shots, encoder = [entry.shots for entry in file.benchmarks.values() if entry.shots], file.measure.similarity.encoder
    models = [*file.models.values(), *file.checkpoints.values(), *([encoder] if encoder else [])]
    entries = {"model": models, "dataset": [*file.datasets.values(), *file.benchmarks.values(), *shots]}
    branches = {(kind, e.hub, e.revision) for kind, part in entries.items() for e in part if e.hub and not is_commit(e.revision)}
    for kind, repository, revision in sorted(branches):
        commit = hub.resolve_commit(kind, repository, revision)
        args.study.write_text(pin(args.study.read_text(encoding="utf-8"), repository, revision, commit), encoding="utf-8")
        print(f"{repository}: {revision} is {commit}")
    print(f"{args.study}: {len(branches)} revisions pinned")


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("study", type=Path, help="the study file, which is changed in place")
