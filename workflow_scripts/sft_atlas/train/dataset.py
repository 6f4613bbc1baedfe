"""The tokenised samples of a run with their loss mask, and the preflight page that shows them."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.files import read_table, write_table
from sft_atlas.models.prompt_template import chat_text, messages_of, render
from sft_atlas.models.tokenization import encode_row, prompt_ids

IGNORE_INDEX = -100  # label of a token without loss, as in torch and transformers
SHOWN = 3  # samples decoded in the preflight


@dataclass(frozen=True)
class Sample:
    """A tokenised sample: its row in the training set, token ids, and the index of the first supervised token.

    ``between``: spans [start, stop) after that without loss: the user's later turns of a conversation, with the text around them.
    """

    row: int
    ids: list[int]
    first: int
    between: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> list[int]:
        labels = [IGNORE_INDEX] * self.first + self.ids[self.first :]
        for start, stop in self.between:
            labels[start:stop] = [IGNORE_INDEX] * (stop - start)
        return labels

    @property
    def supervised(self) -> int:
        """Tokens with loss."""
        return len(self.ids) - self.first - sum(stop - start for start, stop in self.between)

    @property
    def parts(self) -> list[tuple[list[int], bool]]:
        """Token ids in order, in runs with loss (True) or without."""
        edges = [0, self.first, *(edge for span in self.between for edge in span), len(self.ids)]
        return [(self.ids[start:stop], i % 2 == 1) for i, (start, stop) in enumerate(itertools.pairwise(edges))]


@dataclass(frozen=True)
class Samples:
    """The samples that are trained on, and the rows that are too long (dropped whole: neither a response nor a conversation is cut).

    ``scored``: token ids of the first prompts alone, as they are scored.
    """

    kept: list[Sample]
    overlong: list[int]
    scored: tuple[list[int], ...] = ()

    @property
    def longest(self) -> int:
        """Tokens of the longest sample; 0 without samples."""
        return max(map(len, self.kept), default=0)


def tokenize(rows: list[dict[str, str]], tokenizer, template: dict, max_length: int) -> Samples:
    """Tokenise rows {instruction, response}, or with a chat template also {messages}, a conversation as JSON.

    The last token of each sample, and of each reply of a conversation, is a supervised EOS. AtlasError, with the row, where a chat template
    refuses a conversation.
    """
    kept, overlong = [], []
    for row, texts in enumerate(rows):
        try:
            sample = _tokenize_row(row, texts, tokenizer, template)
        except AtlasError as error:
            raise AtlasError(f"row {row} of the training set: {error}") from None
        if len(sample) > max_length:
            overlong.append(row)
        else:
            kept.append(sample)
    prompts = [_first_prompt(rows[sample.row], template) for sample in kept[:SHOWN]]
    return Samples(kept, overlong, tuple(prompt_ids(tokenizer, prompts)))


def write_samples(samples: Samples, path: Path) -> None:
    """Write tokenised samples for the other processes of a run, as Parquet: one row per kept sample, then the overlong rows without ids."""
    import polars as pl

    scored = [*samples.scored, *[None] * (len(samples.kept) - len(samples.scored))]
    rows = [
        {"row": sample.row, "ids": sample.ids, "first": sample.first, "between": [*map(list, sample.between)], "scored": prompt}
        for sample, prompt in zip(samples.kept, scored, strict=True)
    ]
    rows += [{"row": row} for row in samples.overlong]
    ids, spans = pl.List(pl.Int32), pl.List(pl.List(pl.Int32))
    write_table(path, pl.DataFrame(rows, {"row": pl.Int64, "ids": ids, "first": pl.Int32, "between": spans, "scored": ids}))


def read_samples(path: Path) -> Samples:
    """What :func:`write_samples` wrote."""

    rows = read_table(path).to_dicts()
    kept = [row for row in rows if row["ids"] is not None]
    samples = [Sample(row["row"], row["ids"], row["first"], tuple(map(tuple, row["between"]))) for row in kept]
    overlong = [row["row"] for row in rows if row["ids"] is None]
    return Samples(samples, overlong, tuple(row["scored"] for row in kept if row["scored"] is not None))


def _tokenize_row(row: int, texts: dict, tokenizer, template: dict) -> Sample:
    ids, spans = encode_row(tokenizer, template, texts)
    between = tuple((before[1], after[0]) for before, after in itertools.pairwise(spans))
    return Sample(row, ids, spans[0][0], between)


def _first_prompt(texts: dict, template: dict) -> str:
    """The prompt of a row's first reply, as it is scored."""
    if "chat" not in template:
        return render(template, texts["instruction"])[0]
    turns = messages_of(texts)
    return chat_text(template, turns[: next(i for i, turn in enumerate(turns) if turn["role"] == "assistant")], True)


def preflight(samples: Samples, tokenizer, name: str, memory: str = "not forecast") -> str:
    """A page to read before training: decoded samples with the loss mask, counts of tokens, BOS and EOS, the forecast of memory.

    Raises AtlasError where no sample is left, a sample has no supervised token or does not end in a supervised EOS, and where all prompts
    that are shown have other tokens in training than in scoring.
    """
    if not samples.kept:
        raise AtlasError(f"{name}: all {len(samples.overlong)} samples are longer than max_length; raise it in the recipe")
    unsupervised = [sample.row for sample in samples.kept if not sample.supervised]
    if unsupervised:
        raise AtlasError(
            f"{name}: {len(unsupervised)} samples have no supervised token, the first is row {unsupervised[0]}; check its response"
        )
    endless = [sample.row for sample in samples.kept if sample.labels[-1] != tokenizer.eos_token_id]
    if endless:
        raise AtlasError(f"{name}: {len(endless)} samples do not end in a supervised EOS, the first is row {endless[0]}")
    pairs = list(zip(samples.kept, samples.scored, strict=False))
    if pairs and all(sample.ids[: sample.first] != scored for sample, scored in pairs):
        sample, scored = pairs[0]
        raise AtlasError(
            f"{name}: the prompt that is scored ends in {tokenizer.decode(scored[sample.first :])!r}, where training has the token "
            f"{tokenizer.decode(sample.ids[sample.first])!r}: prompt and response merge; in the template, move the end of `prompt` to `response`"
        )
    supervised = sorted(sample.supervised for sample in samples.kept)
    lengths = sorted(map(len, samples.kept))
    bos = [sample.ids.count(tokenizer.bos_token_id) for sample in samples.kept] if tokenizer.bos_token_id is not None else [0]
    eos = [sample.ids.count(tokenizer.eos_token_id) for sample in samples.kept]
    lines = [
        f"Preflight of {name}: what the model is trained on. Tokens between [[ and ]] carry the loss.",
        "",
        f"samples            {len(samples.kept)} ({len(samples.overlong)} dropped as longer than max_length)",
        f"tokens             {sum(lengths)} (per sample {_spread(lengths)})",
        f"supervised tokens  {sum(supervised)} (per sample {_spread(supervised)})",
        f"BOS per sample     {_spread(sorted(bos))} (token {tokenizer.bos_token!r})",
        f"EOS per sample     {_spread(sorted(eos))} (token {tokenizer.eos_token!r}; the last one is supervised in every sample)",
        f"peak memory        {memory}",
    ]
    for index, sample in enumerate(samples.kept[:SHOWN]):
        decoded = "".join(f"[[{tokenizer.decode(ids)}]]" if supervised else tokenizer.decode(ids) for ids, supervised in sample.parts)
        lines += ["", f"--- row {sample.row}: {len(sample.ids)} tokens, {sample.supervised} supervised", decoded]
        if samples.scored[index : index + 1]:
            scored = samples.scored[index]
            lines.append("scored prompt: " + ("the same tokens" if scored == sample.ids[: sample.first] else tokenizer.decode(scored)))
    return "\n".join(lines) + "\n"


def _spread(values: list[int]) -> str:
    median = values[len(values) // 2]
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}, median {median}"
