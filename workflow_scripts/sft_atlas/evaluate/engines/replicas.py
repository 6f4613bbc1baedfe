"""vLLM's engines and what is asked of them: one in this process, or one on each GPU in a process of its own.

vLLM's own data parallelism does not work from a single process, and lm-eval's starts the engines anew for every task.
"""

import multiprocessing
import os

from sft_atlas.core.errors import AtlasError


def generate(engine, prompts: list[list[int]], sampling: dict, lora) -> list[list[int]]:
    """By a vLLM engine: the new tokens of each prompt."""
    return [list(output.outputs[0].token_ids) for output in _outputs(engine, prompts, sampling, lora)]


def likelihoods(engine, asked: list[tuple[list[int], int]], sampling: dict, lora) -> list[tuple[float, bool]]:
    """By a vLLM engine: of the last tokens of each sequence, the sum of their log-probabilities and whether each is the most likely one."""
    found = []
    outputs = _outputs(engine, [ids for ids, _ in asked], sampling, lora)
    for (ids, count), output in zip(asked, outputs, strict=True):
        entries = [by_token[token] for token, by_token in zip(ids[-count:], output.prompt_logprobs[-count:], strict=True)]
        found.append((sum(entry.logprob for entry in entries), all(entry.rank == 1 for entry in entries)))
    return found


def _outputs(engine, prompts: list[list[int]], sampling: dict, lora):
    from vllm import SamplingParams, TokensPrompt
    from vllm.lora.request import LoRARequest

    request = LoRARequest(*lora) if lora else None
    return engine.generate(
        [TokensPrompt(prompt_token_ids=ids) for ids in prompts], SamplingParams(**sampling), use_tqdm=False, lora_request=request
    )


KINDS = {"generate": generate, "likelihoods": likelihoods}


class Replicas:
    """A vLLM engine in this process, or with ``gpus`` > 1 one in a process of its own on each of the job's GPUs."""

    def __init__(self, arguments: dict, gpus: int):
        self.workers: list[tuple] = []
        if gpus == 1:
            from vllm import LLM

            self.engine = LLM(**arguments)
            return
        names = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        context = multiprocessing.get_context("spawn")
        for name in names[:gpus]:
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, arguments, name))
            process.start()
            there.close()
            self.workers.append((process, here))

    def ask(self, kind: str, requests: list, sampling: dict, lora) -> list:
        """The answers to requests, in their order."""
        if not self.workers:
            return KINDS[kind](self.engine, requests, sampling, lora)
        count, answers = len(self.workers), [None] * len(requests)
        for i in range(count):
            self._with(i, lambda connection, i=i: connection.send((kind, requests[i::count], sampling, lora)))  # lengths are alike then
        for i in range(count):
            answers[i::count] = self._with(i, lambda connection: connection.recv())
        return answers

    def _with(self, i: int, action):
        """The result of an action on the connection to an engine; AtlasError where its process has ended."""
        process, connection = self.workers[i]
        try:
            return action(connection)
        except (EOFError, OSError):
            process.join()
            raise AtlasError(
                f"vLLM on GPU {i + 1} of {len(self.workers)} ended with exit code {process.exitcode}; its messages are above"
            ) from None

    def close(self) -> None:
        """End the engines."""
        for process, connection in self.workers:
            connection.close()
            process.join()
        self.workers, self.engine = [], None


def _serve(connection, arguments: dict, gpu: str) -> None:
    """In a process of its own: answer requests until the other end closes."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when vLLM starts CUDA
    from vllm import LLM

    engine = LLM(**arguments)
    while True:
        try:
            kind, *asked = connection.recv()
        except EOFError:
            return
        connection.send(KINDS[kind](engine, *asked))
