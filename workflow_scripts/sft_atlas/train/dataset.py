"""What a run is trained on: tokenised samples with their loss mask, and the page that shows them to people."""

from dataclasses import dataclass

from sft_atlas.core.errors import AtlasError
from sft_atlas.models.prompt_template import render
from sft_atlas.models.tokenization import encode

IGNORED = -100  # label of a token without loss (transformers' convention)
SHOWN = 3  # samples decoded in the preflight


@dataclass(frozen=True)
class Sample:
    """A tokenised sample: ids, and the index from which on they are supervised."""

    row: int
    ids: list[int]
    first: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> list[int]:
        return [IGNORED] * self.first + self.ids[self.first :]


@dataclass(frozen=True)
class Samples:
    """The samples that fit, and the rows that do not (dropped whole: a response is never cut)."""

    kept: list[Sample]
    overlong: list[int]


def tokenize(rows: list[dict[str, str]], tokenizer, template: dict[str, str], max_length: int) -> Samples:
    """Tokenise {instruction, response} rows; the last supervised token of each is EOS."""
    kept, overlong = [], []
    for index, row in enumerate(rows):
        ids, first = encode(tokenizer, *render(template, row["instruction"], row["response"]), with_eos=True)
        if len(ids) > max_length:
            overlong.append(index)
        else:
            kept.append(Sample(index, ids, first))
    return Samples(kept, overlong)


# ---------------------------------------------------------------- preflight


def preflight(samples: Samples, tokenizer, name: str, memory: str = "not forecast") -> str:
    """A page for people: decoded samples with the loss mask, counts of supervised tokens, BOS and EOS, the forecast of memory.

    Raises AtlasError when there is nothing to train on, a sample has no supervised token or does not end in a supervised EOS.
    """
    if not samples.kept:
        raise AtlasError(f"{name}: all {len(samples.overlong)} samples are longer than max_length; raise it in the recipe")
    unsupervised = [sample.row for sample in samples.kept if sum(label != IGNORED for label in sample.labels) == 0]
    if unsupervised:
        raise AtlasError(
            f"{name}: {len(unsupervised)} samples have no supervised token, the first is row {unsupervised[0]} of the training set; look at its response"
        )
    endless = [sample.row for sample in samples.kept if sample.labels[-1] != tokenizer.eos_token_id]
    if endless:
        raise AtlasError(
            f"{name}: {len(endless)} samples do not end in a supervised EOS token, the first is row {endless[0]}; the model would never learn to stop"
        )
    supervised = sorted(len(sample.ids) - sample.first for sample in samples.kept)
    lengths = sorted(len(sample.ids) for sample in samples.kept)
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
    for sample in samples.kept[:SHOWN]:
        head, tail = tokenizer.decode(sample.ids[: sample.first]), tokenizer.decode(sample.ids[sample.first :])
        lines += ["", f"--- row {sample.row}: {len(sample.ids)} tokens, {len(sample.ids) - sample.first} supervised", f"{head}[[{tail}]]"]
    return "\n".join(lines) + "\n"


def _spread(values: list[int]) -> str:
    middle = values[len(values) // 2]
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}, median {middle}"
