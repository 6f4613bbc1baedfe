"""Run the training invariants on tiny models and write the page that shows them."""

import argparse
from pathlib import Path

from sft_atlas.core.files import atomic
from sft_atlas.core.log import LOG
from sft_atlas.core.provenance import record_provenance
from sft_atlas.report import correctness


def main(args: argparse.Namespace) -> None:
    outcomes = correctness.run()
    said = correctness.statements(sorted(correctness.INVARIANTS.glob("test_*.py")))
    with atomic(args.output) as part:
        part.write_text(correctness.page(outcomes, said, record_provenance(None)), encoding="utf-8")
    failed = [outcome for outcome in outcomes if outcome.result == "failed"]
    for outcome in failed:
        LOG.error("%s[%s]: %s", outcome.test, outcome.case, outcome.message)
    if failed:  # the page stands all the same: it says which
        LOG.error("%d of %d cases of the training invariants fail; see %s", len(failed), len(outcomes), args.output)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--output", type=Path, required=True, help="the page, Markdown")
    return p
