"""The tokenised samples of a run with their loss mask, and the preflight page that shows them."""

from dataclasses import dataclass

from sft_atlas.core.errors import AtlasError
from sft_atlas.models.prompt_template import render
from sft_atlas.models.tokenization import encode

IGNORE_INDEX = -100  # label of a token without loss, as in torch and transformers
SHOWN = 3  # samples decoded in the preflight


@dataclass(frozen=True)
class Sample:
    """A tokenised sample: its row in the training set, token ids, and the index of the first supervised token."""

    row: int
    ids: list[int]
    first: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> list[int]:
        return [IGNORE_INDEX] * self.first + self.ids[self.first :]

    @property
    def supervised(self) -> int:
        """Tokens with loss."""
        return len(self.ids) - self.first


@dataclass(frozen=True)
class Samples:
    """The samples that are trained on, and the rows that are too long (dropped whole: a response is never cut)."""

    kept: list[Sample]
    overlong: list[int]

    @property
    def longest(self) -> int:
        """Tokens of the longest sample; 0 without samples."""
        return max(map(len, self.kept), default=0)


def tokenize(rows: list[dict[str, str]], tokenizer, template: dict[str, str], max_length: int) -> Samples:
    """Tokenise rows {instruction, response}; the last token of each sample is a supervised EOS."""
    kept, overlong = [], []
    for row, texts in enumerate(rows):
        ids, first = encode(tokenizer, *render(template, texts["instruction"], texts["response"]), with_eos=True)
        if len(ids) > max_length:
            overlong.append(row)
        else:
            kept.append(Sample(row, ids, first))
    return Samples(kept, overlong)


# ---------------------------------------------------------------- preflight


def preflight(samples: Samples, tokenizer, name: str, memory: str = "not forecast") -> str:
    """A page to read before training: decoded samples with the loss mask, counts of tokens, BOS and EOS, the forecast of memory.

    Raises AtlasError where no sample is left, a sample has no supervised token, or one does not end in a supervised EOS.
    """
    if not samples.kept:
        raise AtlasError(f"{name}: all {len(samples.overlong)} samples are longer than max_length; raise it in the recipe")
    unsupervised = [sample.row for sample in samples.kept if not sample.supervised]
    if unsupervised:
        raise AtlasError(
            f"{name}: {len(unsupervised)} samples have no supervised token, the first is row {unsupervised[0]} of the training set; check its response"
        )
    endless = [sample.row for sample in samples.kept if sample.labels[-1] != tokenizer.eos_token_id]
    if endless:
        raise AtlasError(f"{name}: {len(endless)} samples do not end in a supervised EOS, the first is row {endless[0]}")
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
    for sample in samples.kept[:SHOWN]:
        prompt, response = tokenizer.decode(sample.ids[: sample.first]), tokenizer.decode(sample.ids[sample.first :])
        lines += ["", f"--- row {sample.row}: {len(sample.ids)} tokens, {sample.supervised} supervised", f"{prompt}[[{response}]]"]
    return "\n".join(lines) + "\n"


def _spread(values: list[int]) -> str:
    median = values[len(values) // 2]
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}, median {median}"
