"""A `workflow_scripts/run.py` that takes the outputs of an expensive job from a cache if it ran before: the same command on the same content.

It makes a run from nothing cheap without hiding a stale result: Snakemake still decides which jobs run, and a job gets what its command
and the content of its inputs give. ``SFT_ATLAS_TEST_CACHE`` names the cache. The door itself is `real_run.py` beside this file.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TABLES = {
    "analyse_predictors": ("gains", "perplexity", "properties", "similarity"),
    "analyse_layers": ("gains", "layers"),
    "analyse_map": ("likelihood",),
    "analyse_noise": ("gains",),
}
READ_STDIN = ("resolve_study", "plan", "pack")  # the study comes on standard input
OUTPUTS = ("--output", "--log", "--state", "--folder")


def content(path: Path) -> str:
    """Hash of a file or of a folder's files, without the time stamps that Snakemake and provenance leave."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file.name != ".snakemake_timestamp":
            digest.update(f"{file.relative_to(path) if path.is_dir() else ''}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def unnamed(rule: str, options: dict[str, list[str]]) -> list[Path]:
    """Files that a job reads although its command does not name them."""
    if "--base" in options:  # the manifest names the weights
        return [Path(options["--base"][0]).with_name("weights")]
    if rule in ("collect", "score_clean_items"):
        from sft_atlas.study.paths import Paths, result_files

        study, root = json.loads(Path(options["--study"][0]).read_text()), Path(options["--study"][0]).parent
        tables = (options.get("--table", ["gains"])[0], "runs")  # gains and the scores of clean items are made from the same files
        files = [file.path for table in tables for file in result_files(study, table, root)]
        return [*files, *root.glob(Paths("").sample_manifest.replace("{dataset}", "*").replace("{rows}", "*").strip("/"))]
    return [Path(options["--tables"][0], f"{name}.parquet") for name in TABLES.get(rule, ())]


def main(rule: str, arguments: list[str]) -> None:
    options: dict[str, list[str]] = {}
    for word in arguments:
        if word.startswith("--"):
            name = word
            options.setdefault(name, [])
        else:
            options[name].append(word)
    is_output = lambda name: name.startswith(OUTPUTS) or (name == "--weights" and rule == "pretrain_demo_model")  # noqa: E731
    given = sys.stdin.read() if rule in READ_STDIN else ""
    key = hashlib.sha256(" ".join([rule, *arguments, given]).encode())
    named = [word.rpartition("=")[2] for name, words in options.items() if not is_output(name) and name != "--tables" for word in words]
    for path in [*map(Path, named), *unnamed(rule, options)]:
        if len(str(path)) < 256 and path.exists():
            key.update(f"{path} {content(path)}\n".encode())
    stored = Path(os.environ["SFT_ATLAS_TEST_CACHE"], key.hexdigest())
    if stored.exists():
        shutil.copytree(stored, ".", dirs_exist_ok=True, copy_function=shutil.copyfile)
        return
    done = subprocess.run([sys.executable, Path(__file__).with_name("real_run.py"), rule, *arguments], input=given, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    with tempfile.TemporaryDirectory(dir=stored.parent) as temporary:
        kept = Path(temporary, "kept")
        for name, words in options.items():
            if is_output(name) and name not in ("--state", "--folder"):
                for path in map(Path, words):
                    if rule == "train" and name == "--output":
                        made = [
                            *path.glob("train.json"),
                            *path.glob("history.parquet"),
                            *path.glob("preflight.txt"),
                            *path.glob("epoch-*/weights"),
                        ]
                    else:
                        made = [path, path.with_suffix(".json"), path.with_name("manifest.json")]
                    for each in filter(Path.exists, made):
                        (kept / each).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copytree(each, kept / each) if each.is_dir() else shutil.copyfile(each, kept / each)
        if not stored.exists():
            os.rename(kept, stored)


if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.abspath(__file__))
    main(sys.argv[1], sys.argv[2:])
