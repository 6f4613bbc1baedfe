"""The landing page *Findings*: each finding in words, with its figure and links to the rows behind it."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from markupsafe import Markup

from sft_atlas.atlas import charts
from sft_atlas.atlas.contents import Contents
from sft_atlas.atlas.site import Site
from sft_atlas.core import markdown
from sft_atlas.stats.wording import SIGNIFICANT, label

TITLE = "Findings"


@dataclass(frozen=True)
class Section:
    """One finding: title, text in Markdown, figures (name, caption), and links (text, address) to rows and other pages."""

    title: str
    text: str
    figures: list[tuple[str, str]] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)


def add(site: Site, contents: Contents) -> None:
    """Write the page and copy the figures beside it."""
    figures = {}
    for name in dict.fromkeys(name for section in contents.sections for name, _ in section.figures):
        figures[name] = [site.asset(Path(contents.figures) / f"{name}.{ending}", "figures") for ending in ("png", "pdf")]
    drawn = {name: charts.panels(name, contents) for name in figures}
    kinds = {name: [panel["kind"] for panel in found] for name, found in drawn.items() if found}
    for name in kinds:
        site.data(f"chart/{name}", drawn[name])
    sections = [(section, html(section.text), section.figures, section.links) for section in contents.sections]
    shown = {"best": best(contents), "sections": sections, "figures": figures, "charts": kinds}
    site.page("index", ("plotly",) if kinds else (), heading=contents.heading, opening=html(contents.opening), **shown)


def best(contents: Contents) -> list[dict]:
    """For each group of benchmarks the best training set with the leading method: topic, address, set, gain in words, and who is close."""
    found, study = contents.rankings, contents.study
    rows = [dict(zip(found["sets"], row, strict=True)) for row in zip(*found["sets"].values(), strict=True)]
    method = min((row["method"] for row in rows), default=None)
    result = []
    for topic in found["topics"]:
        own = [row for row in rows if row["topic"] == topic["key"] and row["method"] == method]
        if not own or topic["key"].startswith("benchmark "):
            continue
        names = {row["dataset"]: label(study, "datasets", row["dataset"]) for row in own}
        first, *others = own
        close = [names[row["dataset"]] for row in others if not row["behind_q"] < SIGNIFICANT]
        gain = "no base score" if np.isnan(first["gain"]) else f"{first['gain']:+.1f} points"
        gain += "" if np.isnan(first["low"]) else f" [{first['low']:+.1f} to {first['high']:+.1f}]"
        result.append(
            {
                "topic": topic["label"], "address": f"best_sets.html?{urlencode({'topic': topic['key']})}", "set": names[first["dataset"]],
                "gain": f"{gain}, n = {first['n']} {first['unit']}", "close": ", ".join(close) or "none: every other set is significantly behind",
            }
        )  # fmt: skip
    return result


def html(text: str) -> Markup:
    """Markdown as HTML, for a template."""
    return Markup(markdown.html(text))
