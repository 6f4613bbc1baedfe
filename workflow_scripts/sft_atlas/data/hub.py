"""What jobs fetch from the model hub: pinned revisions, and content that stays what it was.

The hub's own library reads the token from `HF_TOKEN` (or its login file) and the address from `HF_ENDPOINT`; neither is logged here.
"""

from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.hub import request
from sft_atlas.core.log import LOG
from sft_atlas.study.schema import is_commit

WEIGHTS = ["*.json", "*.safetensors", "*.model", "tokenizer*", "*.txt"]  # never pickles
SECOND_COPIES = ["original/*", "consolidated*", "*.gguf"]


def resolve_commit(kind: str, repository: str, revision: str) -> str:
    """The commit that a revision stands for now; ``kind`` is ``model`` or ``dataset``."""
    if is_commit(revision):
        return revision
    from huggingface_hub import HfApi

    LOG.warning("%s %s: revision %r is not a commit, its content may change; `make pin` writes the commit", kind, repository, revision)
    info = HfApi().model_info if kind == "model" else HfApi().dataset_info
    return request(lambda: info(repository, revision=revision), kind, repository, revision).sha


def record_of(source, commit: str, hashes: dict[str, str]) -> dict[str, object]:
    """What is noted of something that was fetched from the hub: repository, revision as the study names it, commit, SHA-256 by file or content."""
    return {"hub": source.hub, "revision": source.revision, "commit": commit, "sha256": hashes}


def require_recorded_commit(known: dict, source, commit: str, key: str, record: Path) -> None:
    """AtlasError where a branch or tag is another commit than in ``known``, the :func:`record_of` an earlier fetch in the file ``record``."""
    if (known.get("hub"), known.get("revision")) == (source.hub, source.revision) and known.get("commit") != commit:
        raise AtlasError(
            f"{key}: {source.revision} of {source.hub} was commit {known['commit']} when it was fetched before, and is {commit} now. Write"
            f" `revision: {known['commit']}` in the study file to go on with the same content. To take the new one, delete {record} and run again:"
            " what was made of the old one is made again"
        )


def require_recorded_content(known: dict, now: dict, key: str, record: Path, remedy: str) -> None:
    """AtlasError where a commit has other content ``now`` than in ``known``, both by :func:`record_of`; a commit never changes."""
    if (known.get("hub"), known.get("commit")) != (now["hub"], now["commit"]):
        return
    differing = sorted(name for name, digest in now["sha256"].items() if known["sha256"].get(name, digest) != digest)
    if differing:
        raise AtlasError(
            f"{key}: {', '.join(differing)} of {now['hub']} at {now['commit']} is not what was fetched before (SHA-256"
            f" {now['sha256'][differing[0]]}, recorded in {record}: {known['sha256'][differing[0]]}); {remedy}"
        )


def download_model(repository: str, commit: str, folder: Path, remote_code: bool, only_top: bool = False) -> Path:
    """Download config, tokenizer and safetensors of a model into ``folder`` and compare each file with the hub's hash of it.

    A partial download is resumed. Python files are downloaded only with ``remote_code``, folders not with ``only_top``. AtlasError where a file
    is not the hub's.
    """
    from huggingface_hub import HfApi, snapshot_download

    patterns = [*WEIGHTS, *(["*.py"] if remote_code else [])]
    call = {
        "revision": commit,
        "local_dir": folder,
        "allow_patterns": patterns,
        "ignore_patterns": [*SECOND_COPIES, *(["*/*"] if only_top else [])],
    }
    path = Path(request(lambda: snapshot_download(repository, **call), "model", repository, commit))
    verify = lambda: HfApi().verify_repo_checksums(repository, revision=commit, local_dir=path)  # noqa: E731
    if wrong := request(verify, "model", repository, commit).mismatches:
        first = wrong[0]
        raise AtlasError(
            f"{path / first['path']} is not the file of {repository} at {commit}: its {first['algorithm']} is {first['actual']}, the hub's"
            f" {first['expected']}; delete {path} and run again: it is downloaded again"
        )
    return path
