"""A job of the fault tests: does something harmful the first time, and ends well the second."""

import argparse
import sys
import time
from pathlib import Path

from sft_atlas.core import job
from sft_atlas.core.errors import AtlasError


def main(args: argparse.Namespace) -> None:
    tried = args.output.with_suffix(".tried")
    if not tried.exists():
        tried.touch()
        if args.fault == "memory":
            held = bytearray(args.mem_mb * 1_000_000)
            held[::4096] = b"x" * len(held[::4096])
        if args.fault == "failing":
            raise AtlasError("the probe fails, as it should")
        if args.fault != "none":
            time.sleep(3600)
    args.output.touch()


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--fault", required=True)
    p.add_argument("--mem-mb", type=int, required=True)
    p.add_argument("--output", type=Path, required=True)


if __name__ == "__main__":
    job.run_module(sys.modules[__name__], "probe", sys.argv[1:])
