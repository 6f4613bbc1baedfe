"""A stand-in for vLLM, which has no CPU build: the names and signatures of the pinned version, with transformers behind them.

``vllm_signatures.json`` was read from the wheel of the version in envs/vllm.yaml; an argument that it does not have is an error.
"""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

SIGNATURES = json.loads((Path(__file__).parent / "vllm_signatures.json").read_text())


def checked(name, arguments):
    """Fail where the real class or function has no such argument."""
    known = {*SIGNATURES[name], *(SIGNATURES["EngineArgs"] if name == "LLM" else ())}
    assert set(arguments) <= known, f"vllm.{name} has no {sorted(set(arguments) - known)}"
    return SimpleNamespace(**arguments)


def SamplingParams(**arguments):
    return checked("SamplingParams", arguments)


def TokensPrompt(**arguments):
    return checked("TokensPrompt", arguments)


def LoRARequest(*values):
    return checked("LoRARequest", dict(zip(SIGNATURES["LoRARequest"], values, strict=False)))


class LLM:
    """Greedy decoding and prompt log-probabilities of the folder's model, with the request's adapter if it names one."""

    made: ClassVar[list] = []  # the arguments of each engine

    def __init__(self, model, **arguments):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        checked("LLM", {"model": model, **arguments})
        assert arguments["max_lora_rank"] in (1, 8, 16, 32, 64, 128, 256, 320, 512) if arguments.get("enable_lora") else True
        self.made.append({"model": model, **arguments})
        self.arguments, self.folder = arguments, model
        self.tokenizer = AutoTokenizer.from_pretrained(arguments["tokenizer"])
        self.model, self.requests = AutoModelForCausalLM.from_pretrained(model, dtype=arguments["dtype"]).eval(), []

    def generate(self, prompts, sampling_params=None, **options):
        checked("generate", options)
        lora, model = options.get("lora_request"), self.model
        self.requests.append(lora and lora.lora_int_id)
        if lora:
            from peft import PeftModel
            from transformers import AutoModelForCausalLM

            assert self.arguments["enable_lora"]
            model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=self.arguments["dtype"])
            model = PeftModel.from_pretrained(model, lora.lora_path).eval()
        return [self.complete(model, list(prompt.prompt_token_ids), sampling_params) for prompt in prompts]

    def complete(self, model, ids, sampling):
        import torch

        assert len(ids) + 1 <= self.arguments["max_model_len"], "vLLM refuses longer prompts"
        if getattr(sampling, "prompt_logprobs", None):
            with torch.inference_mode():
                logs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
            rows = [None]
            for row, token in zip(logs, ids[1:], strict=False):
                best = row.argmax().item()
                entry = {
                    token: SimpleNamespace(logprob=row[token].item(), rank=int((row > row[token]).sum()) + 1),
                    best: SimpleNamespace(logprob=row.max().item(), rank=1),
                }
                rows.append(entry)
            return SimpleNamespace(prompt_logprobs=rows, outputs=[SimpleNamespace(token_ids=[0], finish_reason="length")])
        new = []
        while len(new) < sampling.max_tokens:
            with torch.inference_mode():
                new.append(model(torch.tensor([ids + new])).logits[0, -1].argmax().item())
            if new[-1] in sampling.stop_token_ids or any(stop in self.tokenizer.decode(new) for stop in sampling.stop):
                break
        return SimpleNamespace(prompt_logprobs=None, outputs=[SimpleNamespace(token_ids=new)])


def install(monkeypatch):
    """Make ``import vllm`` find this module."""
    package, lora, request = (ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request"))
    package.LLM, package.SamplingParams, package.TokensPrompt = LLM, SamplingParams, TokensPrompt
    request.LoRARequest = LoRARequest
    for module in (package, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("sft_atlas.evaluate.engines.vllm.metadata.version", lambda name: SIGNATURES["version"])
    LLM.made = []
