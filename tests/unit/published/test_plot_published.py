"""Figures of published scores, of a table of one's own."""

import matplotlib.text
import pytest

from sft_atlas.published import FIGURES, POLICIES, figures
from sft_atlas.report.figures import style


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn(own, name, policy):
    scores, _, repairs, data, tables = own
    figure = figures.draw(name, data[policy], tables[policy], scores, repairs, policy)
    figure.draw_without_rendering()
    texts = figure.findobj(matplotlib.text.Text)
    shown = "\n".join(text.get_text() for text in texts)
    assert "Nothing to show" not in shown and "n" in shown and figures.POLICY_LABELS[policy] in shown
    assert figure.get_figwidth() <= style.PAGE
    assert min(text.get_fontsize() for text in texts if text.get_text().strip()) >= style.SMALL
