"""Show what this machine has and lacks for a study, with the remedy for each; exit status 1 if something that the study needs is missing.

    make doctor STUDY=paper          also where Snakemake or its packages are not installed
    snakemake doctor                 the same in the workflow; with --profile slurm for jobs on the cluster

Nothing phones home: the model hub is asked, with a time-out, only about repositories that the study names, and not while HF_HUB_OFFLINE is
set. Judges and other servers are not asked. Tokens and keys are reported as present or not, and never shown.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from sft_atlas.core import markdown
from sft_atlas.core.errors import AtlasError
from sft_atlas.core.job import long_text
from sft_atlas.core.log import print_to_terminal
from sft_atlas.core.provenance import ROOT
from sft_atlas.machine import facilities
from sft_atlas.machine.facilities import Finding
from sft_atlas.machine.needs import Needs, needs_of

NETWORK = True


def examine(needs: Needs, results: Path, site) -> list[Finding]:
    """Everything that is looked at, in the order of the table."""
    parts = [
        facilities.python(ROOT),
        facilities.gpus(needs),
        facilities.kernels(needs),
        facilities.compiler(needs),
        facilities.disks(results),
    ]
    parts += [facilities.hub(needs), facilities.keys(needs), facilities.slurm(needs, site), facilities.fonts(needs)]
    parts += [facilities.sandbox(needs), facilities.browser(needs), facilities.tools(needs)]
    return [finding for part in parts for finding in part]


def page(found: Iterable[Finding], study: str) -> str:
    """The table, and what is missing in a sentence."""
    found = list(found)
    rows = [(each.thing, each.here, each.verdict, each.needed if not each.ok else "", "" if each.ok else each.remedy) for each in found]
    missing = [each.thing for each in found if each.verdict == "missing"]
    end = f"{study} lacks here: {', '.join(missing)}." if missing else f"{study} has here what it needs."
    return "\n".join([*markdown.table(("", "here", "", "needed by", "remedy"), rows), "", end])


def study_needs(text: str | None, file: Path | None, slurm: bool) -> tuple[str, Needs, list[Finding]]:
    """The name and needs of a study, from JSON or a file; a finding where it cannot be read."""
    try:
        from sft_atlas.study import study as studies

        study = studies.from_config(json.loads(text), "study") if text else studies.load(file)
    except ModuleNotFoundError as error:
        return str(file), Needs(), [Finding("study", f"{file} not read: no module {error.name}", False, "make env", "every job")]
    except AtlasError as error:
        return str(file), Needs(), [Finding("study", str(error), False, "correct the file", "every job")]
    return study.name, needs_of(study, slurm), []


def main(args: argparse.Namespace) -> None:
    name, needs, found = study_needs(args.study, args.file, args.slurm)
    site = None
    if not found and args.site and args.site.exists():
        from sft_atlas.study import site as sites

        site = sites.load(args.site)
    found += examine(needs, Path("results"), site)
    print_to_terminal(facilities.as_json(found) if args.json else page(found, name))
    if any(each.verdict == "missing" for each in found):
        sys.exit(1)


def add_options(p: argparse.ArgumentParser) -> None:
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("--study", type=long_text, help="the study file's content, as JSON; -: standard input")
    which.add_argument("--file", type=Path, help="the study file")
    p.add_argument("--site", type=Path, default=Path("slurm/site.yaml"), help="the site file")
    p.add_argument("--slurm", action="store_true", help="jobs run on the cluster of the site file")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")
