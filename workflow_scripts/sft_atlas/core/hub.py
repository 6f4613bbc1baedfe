"""Requests to the model hub: retries when the network or the hub fails, and errors that say what to do."""

from collections.abc import Callable

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.retry import retry

RETRIES = 5
PAGES = {"model": "", "dataset": "datasets/", "collection": "collections/"}


def request(load: Callable[[], object], kind: str, repository: str, revision: str | None, wait: float = 2.0):
    """Call ``load``, with retries while the network or the hub fails; AtlasError that says what to do where it cannot succeed.

    ``kind`` is ``model``, ``dataset`` or ``collection``; the last has no revision.
    """
    what = f"{kind} {repository}" + (f" at {revision}" if revision else "")
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
            + (
                "Check the address, or list its checkpoints in a table"
                if kind == "collection"
                else "Try again later (what was downloaded is kept), or give `path:` a local copy"
            )
        ) from None


def permanent_reason(error: OSError, kind: str, repository: str) -> str | None:
    """Why a retry would not help, and what to do; None where it might."""
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

    page = f"https://huggingface.co/{PAGES[kind]}{repository}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        instead = "list its checkpoints in a table" if kind == "collection" else "give `path:` a local copy"
        return f"HF_HUB_OFFLINE is set; unset it, or {instead}"
    if isinstance(error, LocalEntryNotFoundError):  # how the hub's library reports a network that is down
        return None
    if isinstance(error, GatedRepoError) or "gated dataset" in str(error):
        return f"the {'collection' if kind == 'collection' else 'repository'} is gated; accept its licence at {page}, and set HF_TOKEN to a token of that account"
    if status in (401, 403) and not isinstance(error, RepositoryNotFoundError):
        return f"the hub refused access ({status}); set HF_TOKEN to a token that may read {page}"
    if isinstance(error, FileNotFoundError) or status in (401, 404):
        return f"does not exist on the hub, or is private: {first_line(error)}. Check the id{'' if kind == 'collection' else ' and the revision'} at {page}; a private one needs HF_TOKEN"
    return None


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
