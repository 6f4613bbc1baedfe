"""Log-likelihoods by a transformers model that reads no token twice: the texts of a benchmark as one tree of their common beginnings.

Few-shot examples are read once for all items, a question once for all of its options, and options of one token come from one row of logits.
The tree is read in packs of tokens, without padding: each token sees those on the way from the root to it, by an attention mask of its own,
and stands at its depth. Keys and values that the next pack needs are kept. The way is exact; sums differ from those of texts read alone by
rounding.
"""

import math
from bisect import bisect_left
from inspect import signature

from sft_atlas.core.errors import AtlasError
from sft_atlas.core.log import LOG, progress
from sft_atlas.models.tokenization import batches, common_length

Pair = tuple[list[int], list[int]]  # token ids of a context and of its continuation
PACK = {"cpu": 512, "cuda": 8192}  # tokens that one forward pass reads; the memory of its mask has their square
ROWS = 1024  # rows of logits that are turned into float32 at a time
ATTENTION = {"full_attention", "sliding_attention"}  # kinds of layers that obey a mask
BY_LENGTH = {"dynamic", "longrope"}  # rotary embeddings that depend on the longest text of a forward pass
REFUSALS = (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError)  # of models that do not know such masks
PROBE = [([5, 6, 7], [8, 9]), ([5, 6, 7], [9, 8, 7]), ([5, 6, 7], [6]), ([5, 7], [6, 5, 8]), ([6, 5], [5])]  # token ids


class PrefixTree:
    """The tokens to read for pairs, as a tree in preorder.

    Of each node: its token's ``ids``, its ``depth``, and the ``end`` of its subtree, the first node behind it. ``wanted``: nodes, pairs and
    tokens, by node: the log-probability of the token after the node belongs to the pair. ``unshared``: tokens of all pairs, each read alone.
    """

    def __init__(self, pairs: list[Pair], max_length: int):
        self.ids: list[int] = []
        self.depth: list[int] = []
        self.end: list[int] = []
        reads = [tuple((context + continuation)[-(max_length + 1) : -1]) for context, continuation in pairs]
        self.unshared = sum(map(len, reads))
        wanted, path, last = [], [], ()
        for i in sorted(range(len(reads)), key=reads.__getitem__):
            ids, targets = reads[i], pairs[i][1]
            if len(targets) > len(ids):
                raise AtlasError(f"an option has {len(targets)} tokens, more than max_length ({max_length})")
            shared = common_length(last, ids)
            for node in path[shared:]:
                self.end[node] = len(self.ids)
            del path[shared:]
            path += range(len(self.ids), len(self.ids) + len(ids) - shared)
            self.ids += ids[shared:]
            self.depth += range(shared, len(ids))
            self.end += [0] * (len(ids) - shared)
            wanted += zip(path[len(ids) - len(targets) :], [i] * len(targets), targets, strict=True)
            last = ids
        for node in path:
            self.end[node] = len(self.ids)
        self.wanted = sorted(wanted)


class Likelihoods:
    """What lm-eval asks of a model with likelihoods, for pairs of token ids. ``pad``: any token id, for models without such masks.

    ``tokens``: how many were read (`computed`), and how many the same texts have when each is read alone (`without_sharing`).
    """

    def __init__(self, model, max_length: int, pad: int, pack: int | None = None):
        self.model, self.max_length, self.pad = model, max_length, pad
        self.pack = pack or PACK.get(model.device.type, PACK["cuda"])
        self.tokens = {"computed": 0, "without_sharing": 0}
        self.reason: str | None = None  # why texts are read alone
        self.tried = False

    def of(self, pairs: list[Pair]) -> list[tuple[float, bool]]:
        """Of each continuation after its context: the sum of its tokens' log-probabilities, and whether greedy decoding gives it.

        Contexts are truncated from the left to ``max_length``, as in lm-eval.
        """
        if not self.tried:
            self.reason, self.tried = unshareable(self.model, self.max_length), True
            if self.reason:
                LOG.warning("likelihoods: common beginnings of texts are not shared: %s", self.reason)
        found, computed, unshared = (read_alone if self.reason else read_shared)(
            self.model, pairs, self.max_length, self.pack, pad=self.pad
        )
        self.tokens["computed"] += computed
        self.tokens["without_sharing"] += unshared
        return found


def unshareable(model, max_length: int) -> str | None:
    """Why a model cannot read texts as a tree; None where it can. A short probe decides what its configuration does not say."""
    config = model.config.get_text_config(decoder=True)
    kinds, rotary = set(getattr(config, "layer_types", None) or ()), getattr(config, "rope_parameters", None) or {}
    if kinds - ATTENTION:
        return f"it has layers of kind {', '.join(sorted(kinds - ATTENTION))}"
    if not {"position_ids", "past_key_values", "logits_to_keep"} <= set(signature(model.forward).parameters) or getattr(
        config, "alibi", False
    ):
        return "it does not take positions as numbers"
    rotary = rotary.values() if any(isinstance(value, dict) for value in rotary.values()) else [rotary]
    if any(isinstance(entry, dict) and entry.get("rope_type") in BY_LENGTH for entry in rotary):
        return "its rotary embeddings depend on the longest text of a batch"
    if str(getattr(config, "_attn_implementation", "")) not in ("sdpa", "eager"):
        return f"its attention ({config._attn_implementation}) takes no mask"
    try:
        shared = read_shared(model, PROBE, max_length, 4)[0]
    except REFUSALS as error:
        return f"it takes no mask of its texts: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    alone = read_alone(model, PROBE, max_length, 4, pad=PROBE[0][0][0])[0]
    tolerance = 1e-3 if str(model.dtype) == "torch.float32" else 0.05
    gaps = [abs(one[0] - other[0]) / max(1.0, abs(other[0])) for one, other in zip(shared, alone, strict=True)]
    return None if all(gap <= tolerance for gap in gaps) else f"a probe differs by {max(gaps):.2g}"  # a gap may be NaN


def read_shared(model, pairs: list[Pair], max_length: int, pack: int, **_) -> tuple[list[tuple[float, bool]], int, int]:
    """Answers to pairs, tokens that were read, and tokens of the same texts read alone. ``pack``: tokens of a forward pass."""
    import torch
    from transformers import DynamicCache

    tree = PrefixTree(pairs, max_length)
    ids, depth, end = (torch.tensor(values, device=model.device) for values in (tree.ids, tree.depth, tree.end))
    sums, greedy = [0.0] * len(pairs), [True] * len(pairs)
    known, kept = torch.empty(0, dtype=torch.long, device=model.device), []  # nodes above the next one, and their keys and values by layer
    start = 0
    while start < len(tree.ids):
        stop = min(start + pack, len(tree.ids))
        wanted = tree.wanted[bisect_left(tree.wanted, (start,)) : bisect_left(tree.wanted, (stop,))]
        new = torch.arange(start, stop, device=model.device)
        seen = torch.cat([known, new])
        nodes = sorted({node for node, _, _ in wanted})
        rows = torch.tensor([node - start for node in nodes] or [0], device=model.device)
        cache = DynamicCache(kept)  # the model adds to it
        try:
            with torch.inference_mode():
                logits = model(
                    input_ids=ids[new][None], position_ids=depth[new][None], attention_mask=_masks(model, new, seen, depth, end),
                    past_key_values=cache, use_cache=True, logits_to_keep=rows,
                ).logits[0]  # fmt: skip
                values, best = _log_probabilities(logits, nodes, wanted)
        except torch.OutOfMemoryError:
            if pack <= ROWS // 16:
                raise
            pack //= 2
            LOG.warning("not enough memory for a forward pass of %d tokens; %d from here", stop - start, pack)
            continue
        for (_, pair, token), value, likeliest in zip(wanted, values, best, strict=True):
            sums[pair] += value
            greedy[pair] = greedy[pair] and likeliest == token
        above = end[seen] > stop
        known, kept = seen[above], [(layer.keys[:, :, above], layer.values[:, :, above]) for layer in cache.layers]
        if (start // pack) % 50 == 49:
            progress(f"{stop} of {len(tree.ids)} tokens")
        start = stop
    return list(zip(sums, greedy, strict=True)), len(tree.ids), tree.unshared


def _masks(model, new, seen, depth, end):
    """Which of the tokens ``seen`` each of the ``new`` ones attends to, [1, 1, new, seen] as models take it: those above it in the tree
    and itself; in layers with a sliding window those of them that are in it."""
    config = model.config.get_text_config(decoder=True)
    full = ((seen[None] <= new[:, None]) & (new[:, None] < end[seen][None]))[None, None]
    window, kinds = getattr(config, "sliding_window", None), set(getattr(config, "layer_types", None) or ())
    # Differences of positions are needed only beyond the window; their memory has the square of the pack.
    fits = window is None or int(depth[seen].max()) < window
    near = full if fits else full & (depth[new][:, None] - depth[seen][None] < window)
    masks = {"full_attention": full, "sliding_attention": near}
    if config._attn_implementation != "sdpa":
        masks = {kind: _added(model, mask) for kind, mask in masks.items()}
    if len(kinds) > 1:
        return masks
    return masks[next(iter(kinds), "sliding_attention")]


def _added(model, mask):
    """A mask as what eager attention adds to its scores."""
    import torch

    return torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill(~mask, torch.finfo(model.dtype).min)


def _log_probabilities(logits, nodes: list[int], wanted: list[tuple[int, int, int]]) -> tuple[list[float], list[int]]:
    """Of each that is wanted the log-probability, in float32, and the likeliest token in its place. ``logits``: [nodes, vocabulary]."""
    import torch

    if not wanted:
        return [], []
    row = {node: i for i, node in enumerate(nodes)}
    rows = torch.tensor([row[node] for node, _, _ in wanted], device=logits.device)
    tokens = torch.tensor([token for _, _, token in wanted], device=logits.device)
    totals, best = [], []
    for part in logits.split(ROWS):
        totals.append(part.float().logsumexp(-1))
        best.append(part.argmax(-1))
    values = logits[rows, tokens].float() - torch.cat(totals)[rows]
    return values.tolist(), torch.cat(best)[rows].tolist()


def read_alone(model, pairs: list[Pair], max_length: int, pack: int, pad: int) -> tuple[list[tuple[float, bool]], int, int]:
    """As :func:`read_shared`, each different text in a row of its own, in padded batches of at most ``pack`` tokens."""
    import torch

    asked: dict[tuple[int, ...], list[int]] = {}  # what the model reads -> the pairs that it answers
    for i, (context, continuation) in enumerate(pairs):
        asked.setdefault(tuple((context + continuation)[-(max_length + 1) : -1]), []).append(i)
    texts, found = [list(ids) for ids in asked], [(math.nan, False)] * len(pairs)
    size = max(1, pack // max(map(len, texts), default=1))
    for chosen, ids, mask in batches(texts, size, pad, model.device):
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask).logits
        for index, row in zip(chosen, logits, strict=True):
            length = len(texts[index])
            for i in asked[tuple(texts[index])]:
                targets = torch.tensor(pairs[i][1], device=row.device)
                logs = row[length - len(targets) : length].float().log_softmax(-1)
                values = logs.gather(1, targets[:, None])
                found[i] = (values.double().sum().item(), bool((logs.argmax(-1) == targets).all()))
    unshared = sum(len(ids) * len(members) for ids, members in asked.items())
    return found, sum(map(len, texts)), unshared
