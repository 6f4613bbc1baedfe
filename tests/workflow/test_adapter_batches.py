"""One job scores the LoRA checkpoints of a base model: killed with -9 in its middle it loses no finished one, and one alone can be asked for."""

import json
import os
import shutil
import signal
import subprocess

import polars as pl

from helpers.waiting import HANG, until

MODEL = "qwen3-numbers"
FRESH = {"SFT_ATLAS_WARM": "0"}  # jobs in processes of their own, so that the copy's edited code is what runs
MEMBERS = {"all": "merged-lora", "arithmetic": "lora", "spelling": "lora"}  # dataset -> recipe, in the order in which they are answered
HOLD = """

_answer = answer


def answer(args, engine):
    import os

    while args.dataset == "spelling" and Path("hold").exists():
        Path("held").write_text(str(os.getpid()))
        time.sleep(0.05)
    return _answer(args, engine)
"""


def test_kill_9_in_the_middle_of_a_batch_keeps_what_is_finished_and_asks_nothing_again(copied):
    copied.study["suites"]["tasks"]["batch_adapters"] = True
    copied.write(copied.study)
    module, hold, held = copied.path / "workflow_scripts/sft_atlas/evaluate/answer_adapters.py", copied.path / "hold", copied.path / "held"
    module.write_text(module.read_text() + HOLD)
    places = [f"{MODEL}/{dataset}/{recipe}/epoch-2" for dataset, recipe in MEMBERS.items()]
    files = [copied.result(f"runs/{place}/scores/tasks.parquet") for place in places]
    samples = [copied.result(f"runs/{place}/samples/tasks.parquet") for place in places]
    alone = [pl.read_parquet(path) for path in (*files, *samples)]  # each was scored by a job of its own
    for place, *paths in zip(places, files, samples, strict=True):
        shutil.rmtree(copied.result(f"state/suites/{place}"))
        for path in paths:
            path.unlink()
    targets = ["--cores", "1", *(str(path.relative_to(copied.path)) for path in files)]

    hold.touch()
    process = subprocess.Popen(copied.command(*targets), cwd=copied.path, env=copied.environment(**FRESH), stdout=subprocess.DEVNULL)
    until(held.exists, process)
    until(held.read_text, process)
    os.kill(int(held.read_text()), signal.SIGKILL)
    assert process.wait(HANG) == 1 and not any(path.exists() for path in files)
    hold.unlink()

    def requests(path):
        return json.loads(path.with_suffix(".json").read_text())["requests"]

    printed = copied.run(*targets[:3], **FRESH)  # one alone, by name
    assert "rule evaluate" in printed and "answer_adapters" not in printed
    count = requests(files[0])["taken_over"]
    assert requests(files[0]) == {"asked": 0, "taken_over": count} and count > 0
    assert "rule answer_adapters" in copied.run(*targets, **FRESH)
    (batch,) = copied.result(f"state/adapters/{MODEL}").glob("*.json")
    answered = [(entry["dataset"], entry["asked"], entry["taken_over"]) for entry in json.loads(batch.read_text())["answered"]]
    assert answered == [("arithmetic", 0, count), ("spelling", count, 0)]
    assert [requests(path) for path in files] == [{"asked": 0, "taken_over": count}] * 3
    assert [pl.read_parquet(path).equals(before) for path, before in zip((*files, *samples), alone, strict=True)] == [True] * 6
