"""A small copy of the package with jobs that do what a test asks for."""

import shutil

import pytest

from sft_atlas.core.provenance import ROOT

# The job is called `train` because only jobs of some rules are forked from the warm server.
JOB = """
import argparse, json, os, subprocess, sys, time, warnings

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG, print_to_terminal, progress


def main(args):
    if args.how == "ok":
        print("a library prints")
        subprocess.run(["echo", "a child prints"])
        warnings.warn("a library warns")
        progress("step 1")
        LOG.warning("look here")
        LOG.info("offline: %s", os.environ.get("HF_HUB_OFFLINE"))
    elif args.how == "mistake":
        raise AtlasError("rows: must be at most 2; lower `rows`")
    elif args.how == "interrupt":
        raise KeyboardInterrupt
    elif args.how == "bug":
        {}["missing"]
    elif args.how == "full":
        with open("/dev/full", "w", buffering=1) as full:
            full.write("x\\n")
    elif args.how == "answer":
        print_to_terminal("the answer")
    elif args.how == "say":
        names = ("PROBE", "SECRET")
        print(json.dumps({"argv": sys.argv, "cwd": os.getcwd(), **{name: os.environ.get(name) for name in names}}))
        print("to the other stream", file=sys.stderr)
    elif args.how == "warm":
        print("this" in sys.modules, getattr(sys, "touched", False))
        sys.touched = True
    elif args.how == "exit":
        sys.exit(eval(args.what))
    elif args.how == "sleep":
        print(os.getpid(), flush=True)
        time.sleep(3600)


def add_options(p):
    p.add_argument("how")
    p.add_argument("what", nargs="?")
"""


@pytest.fixture(scope="session")
def scripts(tmp_path_factory):
    """Like `workflow_scripts/`: run.py and the package with the room `core` and a room `probe` of jobs."""
    folder = tmp_path_factory.mktemp("scripts")
    source = ROOT / "workflow_scripts"
    shutil.copy(source / "run.py", folder)
    shutil.copytree(source / "sft_atlas/core", folder / "sft_atlas/core", ignore=shutil.ignore_patterns("__pycache__"))
    probe = folder / "sft_atlas/probe"
    probe.mkdir()
    (folder / "sft_atlas/__init__.py").touch()
    (probe / "__init__.py").touch()
    (probe / "train.py").write_text(f'"""Do what a test asks for."""\n{JOB}')
    (probe / "fetch.py").write_text('"""The same with a network."""\nfrom sft_atlas.probe.train import add_options, main\nNETWORK = True\n')
    (probe / "library.py").write_text('"""No job."""\n')
    return folder
