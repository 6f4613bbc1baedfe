"""The backend `endpoint`: a server with OpenAI's completions protocol (vLLM, SGLang, llama.cpp, TGI), asked by lm-eval's own client.

The server must serve each checkpoint under a model id that the study states as a pattern. Prompts are sent as token ids, so that the server
cannot tokenise them in another way than training did, or as text for servers that take nothing else.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate.engines.engine import DEFAULT_LENGTH, Engine, Truncation
from sft_atlas.evaluate.engines.tokens import encode
from sft_atlas.models.base_model import ModelFolder

# Where servers state their version, and the key of it: vLLM and ours; SGLang; llama.cpp; TGI.
VERSIONS = (("/version", "version"), ("/get_server_info", "version"), ("/props", "build_info"), ("/info", "version"))
TIMEOUT = 10  # seconds for these questions


class EndpointEngine(Engine):
    """A server that holds the checkpoints already; it is asked for its version and models once."""

    def __init__(self, settings, base: ModelFolder, tokenizer):
        super().__init__(settings, base, tokenizer)
        self.server = dict(settings.endpoint or {})
        self.url = str(self.server["url"]).rstrip("/")
        self.key = os.environ.get(self.server["key_variable"], "") if self.server.get("key_variable") else ""
        if self.server.get("key_variable") and not self.key:
            raise AtlasError(f"the environment variable {self.server['key_variable']} is empty; set it to the key for {self.url}")
        self.models = {entry["id"]: entry for entry in self._ask(f"{self.url}/models").get("data", [])}
        root = self.url.removesuffix("/v1")
        stated = ((name, self._ask(root + name, optional=True).get(key)) for name, key in VERSIONS)
        self.stated = next((f"{value}" for _, value in stated if value), "version not stated")
        owner = next((entry.get("owned_by") for entry in self.models.values() if entry.get("owned_by")), "server")
        self.software = f"{owner} {self.stated}"

    @property
    def version(self) -> str:
        return self.software

    def dtype(self, weights: Path | None) -> str:
        return self.server["dtype"]

    def model_id(self, names: Mapping[str, object]) -> str:
        """The id under which a checkpoint is served. AtlasError where the server has no such model."""
        name = self.server["model"].format(**names)
        if name not in self.models:
            served = ", ".join(list(self.models)[:10]) or "none"
            raise AtlasError(f"{self.url} serves no model {name!r} (it serves {served}); serve it, or correct `endpoint.model`")
        return name

    def checkpoint(self, weights: Path | None, names: Mapping[str, object]):
        name = self.model_id(names)
        self.facts = {
            "dtype": self.dtype(weights), "device": self.url,
            "endpoint": {"url": self.url, "version": self.version, "model": name, "root": self.models[name].get("root")},
        }  # fmt: skip
        return completions_model(self, name)

    def close(self) -> None:
        """Nothing is held: the server goes on."""

    def _ask(self, address: str, optional: bool = False) -> dict:
        """JSON from an address of the server; {} where an optional one is not there."""
        import requests

        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            reply = requests.get(address, headers=headers, timeout=TIMEOUT, allow_redirects=False)
            if reply.status_code == 200:
                found = reply.json()
                return found if isinstance(found, dict) else {}
            reason = f"status {reply.status_code}"
        except (requests.RequestException, ValueError) as error:
            reason = f"{type(error).__name__}"
        if optional:
            return {}
        raise AtlasError(f"{address} does not answer as a server of models should ({reason}); start it, or correct `endpoint.url`")


def completions_model(engine: EndpointEngine, name: str):
    """lm-eval's client of a completions server, which tokenises as training does and notes which answers the token limit cut off."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from lm_eval.models.utils import postprocess_generated_text

    server, tokenizer, key = engine.server, engine.tokenizer, engine.key

    class Model(LocalCompletionsAPI):
        max_gen_toks = DEFAULT_LENGTH
        api_key = key  # lm-eval would send OPENAI_API_KEY to any server

        def tok_encode(self, string, left_truncate_len=None, add_special_tokens=None, **_):
            return encode(tokenizer, string, add_special_tokens, left_truncate_len)

        def parse_generations(self, outputs, **_):
            choices = sorted(outputs["choices"], key=lambda choice: choice["index"])
            self.reasons = [choice.get("finish_reason") for choice in choices]
            return [choice["text"] for choice in choices]

        def add_partial(self, kind: str, request, answer) -> None:
            """lm-eval's cache hook, which it calls after each reply that it has parsed."""
            if kind == "generate_until":
                reason = self.reasons.pop(0)
                self.truncation.note(request, None if reason is None else reason == "length")

        def loglikelihood(self, requests, disable_tqdm: bool = False):
            return self._finish(super().loglikelihood, requests)

        def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
            texts = self._finish(super().generate_until, requests)
            stops = [(request.args[1] or {}).get("until") for request in requests]
            return [postprocess_generated_text(text, stop, None) for text, stop in zip(texts, stops, strict=True)]

        def _finish(self, ask, requests):
            import aiohttp
            import requests as http

            try:
                return ask(requests)
            except (aiohttp.ClientError, http.RequestException, TimeoutError) as error:
                reason = str(error) or type(error).__name__
                raise AtlasError(f"{engine.url}: {name}: no answer after {server['retries']} attempts: {reason}") from None
            except (KeyError, TypeError, IndexError, ValueError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise AtlasError(
                    f"{engine.url}: {name}: a reply lacks what is needed ({reason}); likelihoods need a server with `echo` and `logprobs` of prompts"
                ) from None

    model = Model(
        model=name, base_url=f"{engine.url}/completions", tokenizer=str(engine.base.path), tokenizer_backend="huggingface",
        tokenized_requests=server["prompts"] == "tokens", max_length=engine.settings.max_length + 1, num_concurrent=server["concurrency"],
        max_retries=server["retries"], timeout=server["timeout"], seed=engine.settings.seed, batch_size=1,
        header={"Authorization": f"Bearer {key}"} if key else {"Accept": "application/json"},
        add_bos_token=None,  # as training does; by default lm-eval's client leaves BOS out of prompts for generation
    )  # fmt: skip
    model.truncation, model.cache_hook = Truncation(), model
    return model
