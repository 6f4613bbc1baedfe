"""Errors for people: the message says what is wrong, where, and what to do. They are shown without a traceback."""

from collections.abc import Iterable

SHOWN = 8  # problems listed in one message


class AtlasError(Exception):
    """An error whose message tells a user what is wrong, where, and what to do."""


class ConfigError(AtlasError):
    """A study file that cannot be used; the message lists every problem with place, key and remedy.

    ``source``: the name of the file, or a :class:`sft_atlas.study.places.ConfigSources`, which finds the line and column of each problem.
    """

    def __init__(self, source: object, problems: Iterable[str]):
        lines = [source.located(problem) if hasattr(source, "located") else f"{source}: {problem}" for problem in problems]
        if len(lines) > SHOWN:
            lines[SHOWN:] = [f"... and {len(lines) - SHOWN} more of this kind"]
        super().__init__("\n".join(lines))
