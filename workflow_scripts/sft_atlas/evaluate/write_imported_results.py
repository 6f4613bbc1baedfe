"""Write imported scores in lm-eval's files again, from the imported tables: the files are those that were read."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.files import atomic, read_json, read_table
from sft_atlas.evaluate.imports import lm_eval_files


def main(args: argparse.Namespace) -> None:
    """Write a folder with the folders of the models as they were; empty where the import is of no files of lm-eval."""
    scores, samples, record = read_table(args.scores), read_table(args.samples), read_json(args.record)
    with atomic(args.output) as part:
        part.mkdir(parents=True)
        for index, document in enumerate(record["documents"]):
            folder = part / document["folder"]
            folder.mkdir(exist_ok=True)
            numbers = scores.filter(document=index).iter_rows(named=True)
            text = json.dumps(lm_eval_files.restore(document["rest"], numbers), indent=2, ensure_ascii=False)
            (folder / document["file"]).write_text(text, encoding="utf-8")
            for task, name in document["samples"].items():
                rows = samples.filter(document=index, task=task).sort("line").iter_rows(named=True)
                lines = (json.dumps(lm_eval_files.restore_sample(row), ensure_ascii=False) for row in rows)
                with open(folder / name, "w", encoding="utf-8") as stream:
                    if task in document["arrays"]:
                        stream.write("[" + ",\n".join(lines) + "]")
                    else:
                        stream.writelines(line + "\n" for line in lines)


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--scores", type=Path, required=True, help="Parquet of rule import_scores")
    p.add_argument("--samples", type=Path, required=True, help="Parquet of rule import_scores")
    p.add_argument("--record", type=Path, required=True, help="JSON of rule import_scores")
    p.add_argument("--output", type=Path, required=True, help="folder")
