"""Ask the judge about one checkpoint's answers to a judged suite, and score them (may use the network)."""

import json
from pathlib import Path

from sft_atlas.core.files import lock_folder, sha256, write_table
from sft_atlas.core.log import LOG
from sft_atlas.evaluate.scoring_job import keys, suite, suite_parser, write
from sft_atlas.study import task_files
from sft_atlas.study.schema import Judge

NETWORK = True


def main(args) -> None:
    import polars as pl

    from sft_atlas.evaluate import judge_client, judging
    from sft_atlas.evaluate.scores import samples_frame, scores_frame
    from sft_atlas.study.items import read_items

    judge = Judge.model_validate_json(args.judge)
    ask, identity, concurrency = who(judge, args)
    answers = pl.read_parquet(args.answers)
    record = json.loads(args.answers.with_suffix(".json").read_text(encoding="utf-8"))
    plan = []  # (benchmark, kind, items, answers, questions)
    for file in suite(args).benchmarks:
        rows = answers.filter(benchmark=file.name)
        said = {(item, turn): output for item, turn, output in rows.select("item", "turn", "output").iter_rows()}
        items, kind = read_items(file.items), task_files.judged(str(file.task))
        plan.append((file, kind, items, said, judging.questions(kind, file.name, items, said, judge.repeats)))
    arguments = {
        question.key(judge, identity): (question.system, question.user, judge.logprobs and kind == "alpaca_eval", question.repeat)
        for _, kind, _, _, questions in plan
        for question in questions
    }
    with lock_folder(args.state.with_suffix("")):
        replies, counts = judge_client.ask_all(arguments, ask, judge_client.Memory(args.state), concurrency)
    scores, samples, judgements = [], [], []
    for file, kind, items, said, questions in plan:
        heard = [replies[question.key(judge, identity)] for question in questions]
        values = judging.verdicts(kind, questions, heard)
        rows, noise, lengths = item_rows(file.name, kind, items, said, questions, values, answers)
        metric = task_files.task_file(str(file.task))["metric_list"][0]["metric"]
        scores.append(judging.score_row(kind, metric, rows, noise, lengths, identity, record["backend"], args.seed))
        samples += rows
        judgements += [
            {
                "benchmark": q.benchmark,
                "item": q.item,
                "part": q.part,
                "repeat": q.repeat,
                "verdict": value,
                "text": reply.text,
                "refused": reply.refused,
            }
            for q, value, reply in zip(questions, values, heard, strict=True)
        ]
        malformed = sum(value is None and reply.text is not None for value, reply in zip(values, heard, strict=True))
        counts[f"{file.name}: malformed"] = malformed
        LOG.info("%s: %s of %d judgements malformed; %s", file.name, malformed, len(values), scores[-1])
    schema = {
        "benchmark": pl.String,
        "item": pl.Int64,
        "part": pl.Int64,
        "repeat": pl.Int64,
        "verdict": pl.Float64,
        "text": pl.String,
        "refused": pl.String,
    }
    write_table(args.output_judgements, pl.DataFrame(judgements, schema=schema).select(*keys(args), pl.all()))
    facts = {
        "judge": judge.model_dump(),
        "judge_identity": identity,
        "judgements": counts,
        "judge_prompts_sha256": sha256(judging.PROMPTS),
    }
    generated = {name: record.get(name) for name in ("settings", "template_sha256", "weights", "device", "dtype")}
    write(args, scores_frame(scores), samples_frame(samples), backend=record["backend"], generated=generated, **facts)
    missing = sum(row["n_missing"] for row in scores)
    if missing:
        LOG.warning(
            "%s/%s/%s, %s: %d of %d items have no score; see %s",
            args.model,
            args.dataset,
            args.recipe,
            suite(args).name,
            missing,
            len(samples),
            args.output_judgements,
        )


def who(judge: Judge, args):
    """(function that asks, the judge's identity for scores and keys, questions at a time)."""
    from sft_atlas.evaluate import judge_client
    from sft_atlas.models.base_model import ModelFolder, load_model, load_tokenizer

    if judge.url:
        return judge_client.Endpoint(judge).ask, f"{judge.model} at {judge.url}", judge.concurrency
    import torch

    torch.set_num_threads(args.threads)
    base = ModelFolder.read(args.judge_base)
    weights = sha256(sorted(base.path.glob("*.safetensors"))[0])[:16]
    return judge_client.Local(judge, load_model(base), load_tokenizer(base)).ask, f"{judge.model} (local, {weights})", 1


def item_rows(name, kind, items, said, questions, values, answers):
    """(sample rows, the judge's noise, lengths of answer and baseline) of a benchmark, item by item."""
    import polars as pl

    from sft_atlas.evaluate.judging import scored_items

    found = scored_items(kind, questions, values)
    cut = dict(answers.filter(benchmark=name).group_by("item").agg(pl.col("truncated").any()).iter_rows())
    verdicts: dict[int, dict[str, list]] = {}
    for question, value in zip(questions, values, strict=True):
        verdicts.setdefault(question.item, {}).setdefault(str(question.part), []).append(value)
    rows, noise, lengths = [], [], []
    for number, item in enumerate(items):
        score, variance = found.get(number, (None, None))
        outputs = [said[number, turn] for turn in (1, 2) if (number, turn) in said]
        rows.append(
            {
                "benchmark": name, "item": number, "prompt": item["instruction"], "target": item["answer"],
                "output": outputs[0] if len(outputs) == 1 else json.dumps(outputs, ensure_ascii=False), "extracted": json.dumps(verdicts.get(number, {})),
                "score": score, "strict": None, "parsed": None, "formed": None, "truncated": cut.get(number), "shots": 0, "cluster": None,
            }
        )  # fmt: skip
        noise.append(variance)
        lengths.append((len(outputs[0] or "") if outputs else 0, len(item["answer"])))
    return rows, noise, lengths


def parser():
    p = suite_parser(__doc__)
    p.add_argument("--answers", type=Path, required=True, help="Parquet of rule generate")
    p.add_argument("--judge", required=True, help="the suite's judge of the study file, as JSON")
    p.add_argument("--judge-base", type=Path, nargs="?", help="model.json of the base model that judges, without an endpoint")
    p.add_argument("--state", type=Path, required=True, help="JSON lines of every judgement so far; kept")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--output-scores", type=Path, required=True)
    p.add_argument("--output-samples", type=Path, required=True)
    p.add_argument("--output-judgements", type=Path, required=True)
    return p


def gpus(args) -> int:
    """GPUs that the job takes in a local run."""
    return 1 if args.judge_base else 0
