"""Three findings in plain sentences, also where the scores decide nothing; and where the pages are."""

import json

import polars as pl
import pytest

from sft_atlas.published import summarise_published as script

SCORES = pl.DataFrame({"row": [1, 1, 2], "model": ["a", "a", "b"], "task": ["math-0", "nq-0", "math-0"], "score": [1.0, 2.0, 3.0]})
REPAIRS = pl.DataFrame({"row": [1, 2], "task": ["math-0", "math-0"], "value": [4.0, None]})


def consistency(n: int, q: float | None, sets: tuple[str, ...] = ("lima", "math")) -> pl.DataFrame:
    rows = [(name, "math-0", "centred", n, 3.0, 1.0, 5.0, float("nan") if q is None else q) for name in sets]
    return pl.DataFrame(rows, schema=["dataset", "benchmark", "value", "n", "effect", "low", "high", "q"], orient="row")


def claims(verdict: str) -> pl.DataFrame:
    rows = [("a", verdict, "A helps B: " + verdict + ".", "for"), ("b", "undecided", "C.", "open")]
    return pl.DataFrame(rows, schema=["claim", "verdict", "sentence", "answer"], orient="row")


def test_the_audit_in_one_sentence():
    assert script.of_audit(SCORES, REPAIRS) == "Of 3 scores of 2 checkpoints of 2 base models, the audit recomputes 1 and sets 1 to null."
    assert "none of the 3 scores" in script.of_audit(SCORES, REPAIRS.clear())


def test_the_largest_effect_or_why_there_is_none():
    assert (
        "LIMA on MATH 0-shot, +3.0 points [+1.0 to +5.0] against the mean of all sets (q = 0.010, n = 8 base models)"
        in script.of_effects(consistency(8, 0.01))
    )
    assert "None of 2 effects" in script.of_effects(consistency(8, 0.5))
    assert script.of_effects(consistency(1, None)) == "No effect of a training set can be decided with 1 base model; six are needed."
    assert script.of_effects(consistency(8, 0.01, ("lima",))) == "Training sets cannot be compared: the scores are of 1 training set."


def test_claims_are_counted_and_a_decided_one_is_told():
    assert script.of_claims(claims("mixed")) == "Of 2 claims of the paper: 1 mixed, 1 undecided. A helps B: mixed."
    assert script.of_claims(claims("undecided")) == "Of 2 claims of the paper: 2 undecided."


@pytest.mark.parametrize("authors", [True, False])
def test_the_page_is_written_and_printed(authors, tmp_path, run_script, monkeypatch):
    said = []
    monkeypatch.setattr(script, "print_to_terminal", said.append)
    source, folder = tmp_path / "source.json", tmp_path / "tables"
    source.write_text(json.dumps({"source": "my scores.csv", "authors_file": authors}))
    for name, table in (
        ("scores", SCORES),
        ("repairs", REPAIRS),
        ("claims", claims("mixed")),
        ("repaired/consistency", consistency(8, 0.01)),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        table.write_parquet(folder / f"{name}.parquet")
    paths = {name: folder / f"{name}.parquet" for name in ("scores", "repairs")}
    run_script(script, **paths, source=source, tables=folder, table=folder / "claims.parquet", page=tmp_path / "summary.md")
    page, printed = (tmp_path / "summary.md").read_text(), "".join(said)
    assert page.startswith("# Published scores of" if authors else "# Scores of my scores.csv")
    for text in (page, printed):
        assert "1. Of 3 scores" in text and "3. Of 2 claims" in text and "claims.md" in text and "figures/repaired" in text
    assert str(tmp_path) in printed
