"""The lm-eval model of engines that take token ids: the same tokens, stop texts and truncation whichever engine it is."""

from abc import abstractmethod
from dataclasses import dataclass, field

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from sft_atlas.core.errors import AtlasError
from sft_atlas.evaluate.engines.engine import DEFAULT_LENGTH, Truncation
from sft_atlas.evaluate.engines.likelihoods import Pair
from sft_atlas.evaluate.engines.tokens import encode, encode_pairs

SAMPLING = ("top_p", "top_k", "min_p")  # settings of `generation_kwargs` that transformers and vLLM both have under these names


@dataclass(frozen=True)
class Decoding:
    """How answers are generated: at most ``max_new_tokens``, until the first of the ``stop`` texts; greedily, unless ``temperature`` > 0.

    ``sampling``: those of the engine's `settings` that the task states.
    """

    max_new_tokens: int
    stop: list[str]
    temperature: float = 0.0
    sampling: dict[str, float] = field(default_factory=dict)


class TokenModel(TemplateLM):
    """An lm-eval model; what an engine must add is :meth:`generate` and :meth:`likelihoods`, on token ids.

    ``max_length``: tokens of prompt and answer; ``ends``: ids of the tokens that end an answer. Prompts are tokenised as in training.
    """

    max_gen_toks = DEFAULT_LENGTH
    backend = "causal"
    settings = SAMPLING  # of generation, besides length, stop texts and temperature

    def __init__(self, tokenizer, max_length: int, ends: list[int]):
        super().__init__()
        self.tokenizer, self.max_length, self.ends, self.truncation = tokenizer, max_length, ends, Truncation()

    @abstractmethod
    def generate(self, prompts: list[list[int]], decoding: Decoding) -> list[list[int]]:
        """The new tokens of each prompt, up to one of ``ends`` or the token that completes a stop text, both included, or to the limit."""

    @abstractmethod
    def likelihoods(self, pairs: list[Pair]) -> list[tuple[float, bool]]:
        """Of each continuation after its context: the sum of its tokens' log-probabilities, and whether greedy decoding gives it."""

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    def tok_encode(self, string, add_special_tokens=None, **_):
        return encode(self.tokenizer, string, add_special_tokens)

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        prompts = self.tok_encode([request.args[0] for request in requests])
        groups: dict[str, list[int]] = {}  # requests with the same settings; a task has one group
        for i, request in enumerate(requests):
            groups.setdefault(Truncation.key(request.args[1:]), []).append(i)
        texts = [""] * len(requests)
        for members in groups.values():
            decoding = self.decoding(dict(requests[members[0]].args[1]))
            room = self.max_length - decoding.max_new_tokens
            if room <= 0:
                raise AtlasError(
                    f"{requests[0].task_name}: max_gen_toks ({decoding.max_new_tokens}) leaves no room for a prompt in max_length ({self.max_length})"
                )
            written = self.generate([prompts[i][-room:] for i in members], decoding)
            for i, ids in zip(members, written, strict=True):
                length = next((n for n, token in enumerate(ids) if token in self.ends), len(ids))
                text = self.tokenizer.decode(ids[:length], skip_special_tokens=True)
                texts[i] = postprocess_generated_text(text, decoding.stop, None)
                self.truncation.note(requests[i].args, length == len(ids) and texts[i] == text)
        return texts

    def decoding(self, settings: dict) -> Decoding:
        """lm-eval's settings of generation. AtlasError for one that this engine does not have."""
        given = normalize_gen_kwargs(settings, self.max_gen_toks)
        until = handle_stop_sequences(given.pop("until", None), eos=self.tokenizer.decode(self.eot_token_id))
        length, temperature = given.pop("max_gen_toks"), given.pop("temperature", 0.0)
        if given.pop("do_sample", False) is False:
            temperature = 0.0
        sampling = {name: given.pop(name) for name in self.settings if name in given}
        if given:
            raise AtlasError(
                f"generation_kwargs.{next(iter(given))}: only `backend: hf` has this setting; choose it, or remove the setting"
            )
        return Decoding(length, [text for text in until if text], temperature, sampling)

    def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        encode_pairs(self.tokenizer, requests)
        return super().loglikelihood(requests, disable_tqdm)

    def _loglikelihood_tokens(self, requests, disable_tqdm: bool = False, **_) -> list[tuple[float, bool]]:
        return self.likelihoods([(context, continuation) for _, context, continuation in requests])

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False):
        raise AtlasError("perplexity of texts is no benchmark here; see `measure.perplexity`")
