"""Pre-train a tiny base model on procedural tasks, for machines without a model hub (ours; the paper has no such step).

The result is an ordinary Hugging Face folder. The text never shows the study's prompt template: items stand as plain text or as
"Q: ... A: ...", so that the model has the knowledge but not the format, like a real base model.
"""

import argparse
import math
import random
import time
from pathlib import Path

from sft_atlas.core.files import atomic
from sft_atlas.core.log import progress
from sft_atlas.data import procedural
from sft_atlas.models.base_model import ModelFolder
from sft_atlas.study.schema import Pretraining

EOS, BOS, PAD = "<eos>", "<bos>", "<pad>"
ITEMS_PER_TASK = 3000  # distinct items behind the endless text; many times what the benchmarks hold


def main(args: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(args.threads)
    settings = Pretraining.model_validate_json(args.settings)
    model, tokenizer, facts = pretrain(settings)
    with atomic(args.weights) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
    ModelFolder(args.name, args.weights, "float32", False).write(args.output, {"pretrain": settings.model_dump(), **facts})


def corpus(settings: Pretraining) -> list[str]:
    """Documents of the mixture, each shown once as plain text or as question and answer."""
    rng = random.Random(settings.seed)
    heaviest = max(settings.mixture.values())
    documents = []
    for name, weight in settings.mixture.items():
        size = round((900 if name == procedural.PROSE else ITEMS_PER_TASK) * weight / heaviest)
        for item in procedural.generate({name: 1.0}, size, rng.randrange(2**31), "train"):
            question, answer = item["instruction"], item["response"]
            documents.append(rng.choice((f"{question} {answer}", f"Q: {question}\nA: {answer}")))
    rng.shuffle(documents)
    return documents


def train_tokenizer(documents: list[str], vocabulary: int):
    """A byte-level BPE tokenizer with BOS, EOS and PAD; BOS is put before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    names = {"special_tokens": [PAD, BOS, EOS], "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    core.train_from_iterator(documents, trainers.BpeTrainer(vocab_size=vocabulary, show_progress=False, **names))
    core.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, core.token_to_id(BOS))])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BOS, eos_token=EOS, pad_token=PAD)


def build(settings: Pretraining, tokenizer):
    """A randomly initialised causal language model of the architecture that the settings name."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(settings.seed)
    head = settings.hidden_size // settings.heads
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": settings.hidden_size, "intermediate_size": 2 * settings.hidden_size, "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads, "num_key_value_heads": 2, "head_dim": head, "max_position_embeddings": 512, "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    if settings.architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape))
    if settings.architecture == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**shape))
    return Gemma3ForCausalLM(Gemma3TextConfig(**shape, sliding_window=512, query_pre_attn_scalar=head))


def pretrain(settings: Pretraining):
    """Train tokenizer and model; returns (model, tokenizer, facts). Same settings, same machine kind: same weights.

    Matrices of the layers by Muon, the rest by AdamW, both on a linear decay: the quickest recipe measured at this size.
    All in float32: torch's own Muon multiplies in bfloat16, which is slow on processors that have no instructions for it.
    """
    import torch

    documents = corpus(settings)
    tokenizer = train_tokenizer(documents, settings.vocabulary)
    model = build(settings, tokenizer)
    stream = torch.tensor([token for ids in tokenizer(documents)["input_ids"] for token in (*ids, tokenizer.eos_token_id)])
    usable = (len(stream) - 1) // settings.sequence_length
    windows = stream[: usable * settings.sequence_length].view(usable, settings.sequence_length)
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    chosen = {id(p) for p in inner}
    outer = [p for p in model.parameters() if id(p) not in chosen]
    momenta = [torch.zeros_like(p) for p in inner]
    adam = torch.optim.AdamW(outer, lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: _decay(step, settings.steps))
    order = torch.Generator().manual_seed(settings.seed)
    model.train()
    losses, started = [], time.perf_counter()
    for step in range(settings.steps):
        batch = windows[torch.randint(usable, (settings.batch_size,), generator=order)]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon_step(inner, momenta, 0.03 * _decay(step, settings.steps))
        adam.step()
        schedule.step()
        model.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            rate = settings.batch_size * settings.sequence_length * (step + 1) / (time.perf_counter() - started)
            progress(f"pre-training: step {step + 1}/{settings.steps}, loss {sum(losses[-100:]) / 100:.3f}, {rate:,.0f} tokens/s")
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "text_tokens": len(stream),
        "documents": len(documents),
        "final_loss": sum(losses[-50:]) / len(losses[-50:]),
        "seconds": round(time.perf_counter() - started, 1),
    }
    return model.eval(), tokenizer, facts


def muon_step(matrices: list, momenta: list, lr: float, momentum: float = 0.95) -> None:
    """One step of Muon with Nesterov momentum (Jordan 2024, kellerjordan.github.io/posts/muon), in the type of the matrices [out, in]."""
    import torch

    with torch.no_grad():
        for matrix, average in zip(matrices, momenta, strict=True):
            average.lerp_(matrix.grad, 1 - momentum)
            update = orthogonal(matrix.grad.lerp(average, momentum))
            matrix.sub_(update, alpha=lr * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5)


def orthogonal(matrix):
    """Five Newton-Schulz iterations with Muon's coefficients: all singular values come near 1 (between 0.7 and 1.2)."""
    import torch

    a, b, c = 3.4445, -4.775, 2.0315
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def _decay(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 20) * max(0.05, 1.0 - step / math.ceil(steps))


def add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--name", required=True)
    p.add_argument("--settings", required=True, help="the `pretrain` entry of the study file, as JSON")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--weights", type=Path, required=True, help="folder to write")
    p.add_argument("--output", type=Path, required=True, help="manifest to write")
