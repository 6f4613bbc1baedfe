"""Tokenizers with the chat templates of real models, from TRL's copies of them; only the vocabulary is tiny."""

from copy import deepcopy
from pathlib import Path

from helpers.tokenizer import make_tokenizer

# The special tokens of each template; the first is what ends a turn.
SPECIAL = {
    "qwen2_5": ("<|im_end|>", "<|im_start|>"),
    "qwen3": ("<|im_end|>", "<|im_start|>", "<think>", "</think>"),
    "llama3": ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    "llama3_2": ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    "gemma": ("<end_of_turn>", "<start_of_turn>"),
    "phi3": ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>"),
}
# Llama 2's, shortened: the reply stands between two spaces, and every exchange begins with BOS.
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def chat_tokenizer(name: str, adds_bos: bool = False):
    """A tokenizer with the chat template ``name`` of SPECIAL, or llama2; it puts BOS before a text itself if ``adds_bos``."""
    import trl
    from tokenizers.processors import TemplateProcessing

    tokenizer = deepcopy(make_tokenizer())
    if name == "llama2":
        tokenizer.chat_template = LLAMA2
    else:
        tokenizer.chat_template = (Path(trl.__file__).parent / f"chat_templates/{name}.jinja").read_text(encoding="utf-8")
        tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[name])})
    if adds_bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer
