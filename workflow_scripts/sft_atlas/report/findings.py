"""What a section of the findings is made of: estimates, the sentences for them, notes, and the figures that show them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isnan

from sft_atlas.stats.estimates import Estimate
from sft_atlas.stats.wording import describe, is_significant, verdict

WIDTH = 100  # characters a line of the page, so that a terminal shows it as it is


@dataclass(frozen=True)
class Statement:
    """An estimate and ``sentence``, which words it given the estimate and its q (p corrected over the page; NaN without a test).

    ``significant``: whether the sentence states an effect, where more is asked of it than :func:`is_significant`.
    """

    estimate: Estimate
    sentence: Callable[[Estimate, float], str]
    significant: Callable[[Estimate, float], bool] = is_significant


def compare(up: str, down: str, neither: str, of: str = "", **shown) -> Callable[[Estimate, float], str]:
    """The sentence "{what}: {up, down or neither}; {of}{number, interval, p, q, n}."; ``shown``: scale, unit and digits of the number."""

    def sentence(estimate: Estimate, q: float) -> str:
        return f"{estimate.what}: {verdict(estimate, q, up, down, neither)}; {of}{describe(estimate, q, **shown)}."

    return sentence


@dataclass(frozen=True)
class Finding:
    """One section of the page.

    ``figure`` and ``more_figures`` are names in :data:`sft_atlas.report.figures.FIGURES`. ``body``, where given, makes the lines from the
    q of all statements; without it each statement is a sentence. ``headline``, where given, makes the sentence for the summary.
    """

    title: str
    figure: str
    statements: list[Statement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    body: Callable[[list[float]], list[str]] | None = None
    more_figures: tuple[str, ...] = ()
    headline: Callable[[list[float]], str | None] | None = None

    def in_short(self, q: list[float]) -> str | None:
        """The sentence for the page's summary, given the q of all statements: the significant one with the smallest q; None without any."""
        if self.headline:
            return self.headline(q)
        found = [
            (one, value) for one, value in zip(self.statements, q, strict=True) if not isnan(value) and one.significant(one.estimate, value)
        ]
        if not found:
            return None
        statement, value = min(found, key=lambda pair: pair[1])
        return statement.sentence(statement.estimate, value)


def unavailable(title: str, figure: str, runs: str) -> Finding:
    """The section for what this study cannot show; ``runs`` says what it lacks."""
    return Finding(title, figure, notes=[f"Not available in this study: needs {runs}."])
