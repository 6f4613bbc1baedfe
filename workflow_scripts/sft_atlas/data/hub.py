"""Requests to the model hub: pinned revisions, retries when the network or the hub fails, and errors that say what to do.

The hub's own library reads the token from `HF_TOKEN` (or its login file) and the address from `HF_ENDPOINT`; neither is logged here.
"""

from collections.abc import Callable
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG
from sft_atlas.core.retry import retry
from sft_atlas.study.schema import is_commit

RETRIES = 5
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


def download_model(repository: str, revision: str, folder: Path, remote_code: bool) -> tuple[Path, str]:
    """Download config, tokenizer and safetensors of a model into ``folder``; returns the folder and the commit.

    A partial download is resumed. Python files are downloaded only with ``remote_code``.
    """
    from huggingface_hub import snapshot_download

    commit = resolve_commit("model", repository, revision)
    patterns = [*WEIGHTS, *(["*.py"] if remote_code else [])]
    call = {"revision": commit, "local_dir": folder, "allow_patterns": patterns, "ignore_patterns": SECOND_COPIES}
    return Path(request(lambda: snapshot_download(repository, **call), "model", repository, commit)), commit


def request(load: Callable[[], object], kind: str, repository: str, revision: str, wait: float = 2.0):
    """Call ``load``, with retries while the network or the hub fails; AtlasError that says what to do where it cannot succeed."""
    what = f"{kind} {repository} at {revision}"
    try:
        return retry(
            load,
            what,
            tries=RETRIES,
            wait=wait,
            passes=lambda error: isinstance(error, OSError) and not permanent_reason(error, kind, repository),
            reason=lambda error: type(error).__name__,
        )
    except OSError as error:  # all errors of the hub's library are
        if reason := permanent_reason(error, kind, repository):
            raise AtlasError(f"{what}: {reason}") from None
        raise AtlasError(
            f"{what} could not be loaded from the hub after {RETRIES} tries: {type(error).__name__}: {first_line(error)}. "
            "Try again later (what was downloaded is kept), or give `path:` a local copy"
        ) from None


def permanent_reason(error: OSError, kind: str, repository: str) -> str | None:
    """Why a retry would not help, and what to do; None where it might."""
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it for this job, or give `path:` a local copy"
    if isinstance(error, LocalEntryNotFoundError):  # how the hub's library reports a network that is down
        return None
    if isinstance(error, GatedRepoError) or "gated dataset" in str(error):
        return f"the repository is gated; accept its licence at {page}, and set HF_TOKEN to a token of that account"
    if status in (401, 403) and not isinstance(error, RepositoryNotFoundError):
        return f"the hub refused access ({status}); set HF_TOKEN to a token that may read {page}"
    if isinstance(error, FileNotFoundError) or status in (401, 404):
        return f"does not exist on the hub, or is private: {first_line(error)}. Check the id and the revision at {page}; a private one needs HF_TOKEN"
    return None


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
