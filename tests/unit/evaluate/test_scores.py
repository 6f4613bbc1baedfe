"""The score of a benchmark from its items: mean, clustered standard error, what is missing."""

import math
import statistics

import pytest

from sft_atlas.evaluate import scores as summaries


def item(score, cluster=None, **more):
    known = {"benchmark": "quiz", "strict": score, "parsed": 1.0, "formed": 1.0, "truncated": False, "shots": 0}
    return known | {"score": score, "cluster": cluster} | more


def test_one_item_has_no_standard_error():
    result = summaries.score_row([item(1.0)], "acc", {"backend": "hf"}, 0)
    assert (result["score"], result["n"]) == (1.0, 1)
    assert math.isnan(result["stderr"])


def test_items_that_share_a_passage_are_one_cluster():
    """Twice the same items in clusters of two: no more information than once, by hand sqrt(G / (G - 1)) * sqrt(sum of squares) / n."""
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    doubled = [item(value, cluster=str(i)) for i, value in enumerate(values) for _ in range(2)]
    result = summaries.score_row(doubled, "acc", {"backend": "hf"}, 0)
    assert result["stderr"] == pytest.approx(summaries.score_row([item(value) for value in values], "acc", {"backend": "hf"}, 0)["stderr"])
    assert (result["n"], result["n_clusters"]) == (12, 6)
    assert result["stderr"] == pytest.approx(statistics.stdev(values) / math.sqrt(6))


def test_what_is_not_known_is_null_and_missing_is_not_zero():
    rows = [item(1.0), item(None, parsed=None, truncated=None), item(0.0, parsed=0.0)]
    result = summaries.score_row(rows, "acc", {"backend": "hf"}, 0)
    assert (result["score"], result["n"], result["n_missing"], result["n_parsed"], result["n_truncated"]) == (0.5, 2, 1, 1, 0)
    assert summaries.score_row([item(None, truncated=None)], "acc", {"backend": "hf"}, 0)["score"] is None
