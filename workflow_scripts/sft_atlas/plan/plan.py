"""Forecast a study: what runs, what it costs in device-hours, disk and time, what is done and what would be done again."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import atomic, write_table
from sft_atlas.core.log import print_to_terminal
from sft_atlas.plan.forecast import Forecast
from sft_atlas.plan.page import jobs_table, page
from sft_atlas.study.device_table import device
from sft_atlas.study.study import from_config


def main(args: argparse.Namespace) -> None:
    study = from_config(json.loads(args.study), "the study")
    forecast = Forecast(study, device(args.devices, study.file.plan.device, "plan.device of the study"), args.results)
    text = page(forecast)
    write_table(args.results / "plan.parquet", jobs_table(forecast))
    with atomic(args.results / "plan.md") as part:
        part.write_text(text, encoding="utf-8")
    print_to_terminal(f"{text}\nWritten to {args.results / 'plan.md'} and plan.parquet")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--study", required=True, help="the study file's content, as JSON")
    p.add_argument("--devices", type=Path, required=True, help="config/devices.yaml")
    p.add_argument("--results", type=Path, required=True, help="results/{study}")
    return p
