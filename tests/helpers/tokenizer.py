"""A tokenizer small enough to be made on the spot, offline."""

TEXT = [
    "###Question: How many apples are left?\n###Answer: There are 12 apples left.",
    "###Question: Spell the word backward: lemon.\n###Answer: nomel",
    "The quick brown fox jumps over the lazy dog while it counts from 1 to 9.",
]


def make_tokenizer():
    """A byte-level BPE tokenizer of 320 tokens with the specials <pad>, <s> and </s>; it adds none of them itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    options = {"special_tokens": ["<pad>", "<s>", "</s>"], "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    inner.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=320, show_progress=False, **options))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
