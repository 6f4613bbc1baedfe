"""Repeat what may fail for a while: requests to the hub, to a judge, to a file server."""

import math
from collections.abc import Callable

from sft_atlas.core.log import LOG


def retry(
    call: Callable[[], object],
    what: str,
    *,
    tries: int,
    wait: float,
    passes: Callable[[BaseException], bool],
    reason: Callable[[BaseException], str] = str,
    longest: float = math.inf,
    log: Callable = LOG.warning,
) -> object:
    """Return ``call()``, repeated up to ``tries`` times while it raises errors that may pass (``passes(error)``); then raise the last error.

    Pauses start at ``wait`` seconds and double, up to ``longest``; the attribute ``retry_after`` of an error asks for a longer one. Each
    failure but the last is logged as ``what`` and ``reason(error)``.
    """
    from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

    def pause(state: RetryCallState) -> float:
        retry_after = getattr(state.outcome.exception(), "retry_after", None) or 0.0
        return min(longest, max(wait * 2 ** (state.attempt_number - 1), retry_after))

    def announce(state: RetryCallState) -> None:
        log(
            "%s: %s; try %d of %d in %.1f s", what, reason(state.outcome.exception()), state.attempt_number + 1, tries, state.upcoming_sleep
        )

    policy = Retrying(retry=retry_if_exception(passes), stop=stop_after_attempt(tries), wait=pause, before_sleep=announce, reraise=True)
    return policy(call)
