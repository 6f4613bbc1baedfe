"""Errors for people: the message says what is wrong, where, and what to do. They are shown without a traceback."""

from collections.abc import Iterable

SHOWN = 8  # problems listed in one message


class AtlasError(Exception):
    """An error whose message tells a user what is wrong, where, and what to do."""


class ConfigError(AtlasError):
    """A study file that cannot be used; the message lists every problem with file, key and remedy."""

    def __init__(self, source: str, problems: Iterable[str]):
        lines = [f"{source}: {problem}" for problem in problems]
        if len(lines) > SHOWN:
            lines[SHOWN:] = [f"... and {len(lines) - SHOWN} more of this kind"]
        super().__init__("\n".join(lines))
