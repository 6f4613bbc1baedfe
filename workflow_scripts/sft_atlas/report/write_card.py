"""Write the model card of one checkpoint from its provenance and scores."""

import argparse
import json
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_json, read_table, write_text
from sft_atlas.core.markdown import table
from sft_atlas.study.outside import FACTS
from sft_atlas.study.result_files import without_subtasks
from sft_atlas.study.runs import UNKNOWN


def card(record: dict, base: dict, scores: list[dict], base_scores: list[dict], study: str, epoch: int, facts: dict | None = None) -> str:
    """The card as Markdown with the hub's front matter.

    ``record`` is train.json, ``base`` model.json; ``scores`` and ``base_scores`` are rows of the score tables of checkpoint and base model.
    ``facts``: of a checkpoint that was trained elsewhere what the study says of its training. AtlasError where these are not of the same run
    and epoch.
    """
    title = checkpoint_name(record, epoch)
    for row in scores:
        if any(row[key] != record[key] for key in ("model", "dataset", "recipe")) or row["epoch"] != epoch:
            raise AtlasError(f"a score of {row['model']}/{row['dataset']}/{row['recipe']}, epoch {row['epoch']}, is no score of {title}")
    if base["name"] != record["model"]:
        raise AtlasError(f"model.json is that of {base['name']}, the run is of {record['model']}")
    if "outside" in record:
        return _outside_card(record, base, scores, base_scores, study, epoch, facts or {})
    settings, template, code = record["settings"], record["template"], record["code"]
    source = base["provenance"]["settings"].get("source", {})
    adapter = settings["method"] == "lora"
    origin = f" ({source['hub']} at {source['revision']})" if source.get("hub") else ""
    used = [(key, _setting(value)) for key, value in settings.items() if value is not None and (adapter or key != "lora")]
    provenance = [
        ("code", f"{code['commit']}{' with changes' if code['dirty'] else ''}"),
        ("versions", ", ".join(f"{package} {version}" for package, version in record["versions"].items())),
        *((f"{part}, sha256 of {Path(entry['path']).name}", f"`{entry['sha256']}`") for part, entry in record["inputs"].items()),
        *((f"sha256 of {file}", f"`{digest}`") for file, digest in record["weights_sha256"][str(epoch)].items()),
    ]
    return f"""---
{_front_matter(source, adapter, scores, study, title)}
---

# {title}

{_what(settings)} of {record["model"]}{origin}, \
fine-tuned on {record["dataset"]} ({record["samples"]:,} samples, epoch {epoch} of {settings["epochs"]}) \
in the study {study} of sft-atlas, after arXiv 2506.14681.

## Prompt

Use this format; the model was trained on no other.

{_prompt(template)}

## Scores

{_scores(scores, base_scores)}

## Training

{_lines(["setting", "value"], used)}

{record["steps"]} optimiser steps on {record["device"]} ({record["dtype"]} weights, autocast {record["autocast"]}, \
attention {record["attention"]}, micro-batch {record["micro_batch_size"]} x {record["gradient_accumulation_steps"]}); \
{record["dropped_overlong"]} samples were too long and left out; mean loss {record["train_loss"]:.4f}.

{_effect(record)}

## Provenance

{_lines(["what", "value"], provenance)}

The licences of the base model and of the training data apply to these weights.
"""


def _outside_card(record: dict, base: dict, scores: list[dict], base_scores: list[dict], study: str, epoch: int, facts: dict) -> str:
    """The card of a checkpoint that was trained elsewhere: what is known of it, and what is not."""
    outside, title = record["outside"], checkpoint_name(record, epoch)
    origin = outside["source"].get("hub") or outside["source"]["path"]
    revision = outside["source"].get("commit")
    known = {"dataset": None if record["dataset"] == UNKNOWN else record["dataset"]} | facts
    rows = [(name, "unknown" if known.get(name) is None else _setting(known[name])) for name in ("dataset", *FACTS)]
    lora = record["settings"].get("lora")
    rows += [("lora", _setting({key: value for key, value in lora.items() if value is not None}))] if lora else []
    files = [
        (f"sha256 of {file}", f"`{digest}`")
        for part in ("weights_sha256", "configuration_sha256")
        for file, digest in record[part][str(epoch)].items()
    ]
    remarks = "\n".join(f"- {remark}" for remark in outside["remarks"]) or "None."
    base_hub = base["provenance"]["settings"].get("source", {})
    return f"""---
{_front_matter(base_hub, outside["kind"] == "adapter", scores, study, title, made=())}
---

# {title}

A checkpoint of {record["model"]} that was trained elsewhere ({outside["kind"]}), taken from {origin}{f" at {revision}" if revision else ""} \
and measured in the study {study} of sft-atlas.

## Scores

Asked with the prompt template of the study; the one that it was trained with is not known.

{_scores(scores, base_scores)}

## Training, as far as it is known

{_lines(["what", "value"], rows)}

## What was found when it was checked against its base model

{remarks}

## Files

{_lines(["what", "value"], files)}

The licences of the checkpoint, its base model and its training data apply to these weights.
"""


def checkpoint_name(record: dict, epoch: int) -> str:
    """The name of a checkpoint, from train.json. Of one that was trained elsewhere the epoch of its folder says nothing."""
    name = f"{record['model']}-{record['dataset']}-{record['recipe']}"
    return name if "outside" in record else f"{name}-epoch-{epoch}"


def _front_matter(source: dict, adapter: bool, scores: list[dict], study: str, title: str, made: tuple = ("sft", "trl")) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [EvalResult("text-generation", row["benchmark"], row["benchmark"], row["metric"], round(row["score"], 6)) for row in scores]
    return ModelCardData(
        base_model=source.get("hub"),
        base_model_relation=("adapter" if adapter else "finetune") if source.get("hub") else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=[*made, "sft-atlas", study],
        model_name=title,
        eval_results=results or None,
    ).to_yaml()


def _prompt(template: dict) -> str:
    """The format of training, for people who use the weights."""
    if "chat" not in template:
        return f"```\n{template['prompt']}{template['response']}\n```"
    end = template["after"].strip()
    return (
        "The chat template of the base model's tokenizer, with `enable_thinking=False` where it has that switch:\n\n"
        "```python\ntokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)\n```\n\n"
        f"A reply ends in `{end}`: stop there (`eos_token_id=tokenizer.convert_tokens_to_ids({end!r})`)."
    )


def _what(settings: dict) -> str:
    """What the weights are: full weights, or an adapter of which kind."""
    if settings["method"] == "full":
        return "Full weights"
    base = ", trained on NF4 weights: QLoRA" if settings["load_in_4bit"] else ""
    return f"{'DoRA' if settings['lora']['dora'] else 'LoRA'} adapter (rank {settings['lora']['rank']}{base})"


def _effect(record: dict) -> str:
    """What the last epoch changed, in words."""
    if record["logit_change_mean"] is None:
        return "Its effect on logits was not measured."
    weights = "" if record["weight_change"] is None else f"The update is {record['weight_change']:.2g} of the size of the weights. "
    text = (
        f"{weights}Logits on its own samples differ from the base model's by {record['logit_change_mean']:.3g} on average and {record['logit_change_max']:.3g}"
        f" at most (measured in {record['logit_dtype']}); the most likely token changed at {record['top_tokens_changed']:.0%} of the positions."
    )
    still = record["logit_change_mean"] < record["logit_resolution"]
    return text + (
        f" **This run did not move:** that is less than the rounding of a logit ({record['logit_resolution']:.2g})." if still else ""
    )


def _setting(value: object) -> str:
    return ", ".join(f"{key} {inner}" for key, inner in value.items()) if isinstance(value, dict) else str(value)


def _scores(scores: list[dict], base_scores: list[dict]) -> str:
    """A table of scores in percent with standard errors and, where it was measured the same way, the base model's."""
    if not scores:
        return "None were measured."

    def percent(row: dict | None) -> str:
        return f"{100 * row['score']:.2f} ± {100 * row['stderr']:.2f}" if row else "not measured"

    def measurement(row: dict) -> tuple[str, str, str]:
        return row["benchmark"], row["metric"], row["backend"]

    bases = {measurement(row): row for row in base_scores}
    rows = [
        (row["benchmark"], row["metric"], row["n"], percent(row), percent(bases.get(measurement(row))), row["backend"])
        for row in sorted(scores, key=lambda row: row["benchmark"])
    ]
    return _lines(["benchmark", "metric", "n", "score, %", "base model, %", "backend"], rows)


def _lines(head: list[str], rows: list[tuple]) -> str:
    return "\n".join(table(head, rows, pad=False))


def main(args: argparse.Namespace) -> None:

    def rows(paths: list[Path]) -> list[dict]:
        return [row for path in paths for row in without_subtasks(read_table(path)).to_dicts()]

    record, base = (read_json(path) for path in (args.record, args.base))
    text = card(record, base, rows(args.scores), rows(args.base_scores), args.study, args.epoch, args.facts)
    write_text(args.output, text)


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--record", type=Path, required=True, help="train.json of the run")
    p.add_argument("--base", type=Path, required=True, help="model.json of the base model")
    p.add_argument("--scores", type=Path, nargs="*", default=[], help="score tables of the checkpoint")
    p.add_argument("--base-scores", type=Path, nargs="*", default=[], help="score tables of the base model")
    p.add_argument("--study", required=True)
    p.add_argument("--facts", type=json.loads, help="what is known of the training of a checkpoint from elsewhere, as JSON")
    p.add_argument("--epoch", type=int, required=True)
    p.add_argument("--output", type=Path, required=True, help="the card, Markdown")
