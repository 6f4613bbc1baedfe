"""What a decoder's parameters are, by their names: the layer and the kind of matrix, as Llama and its kin name them."""

import re

MODULES = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "gate_proj": "gate", "up_proj": "up", "down_proj": "down",
    "embed_tokens": "embedding", "lm_head": "head",
}  # fmt: skip
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def layer_and_component(name: str) -> tuple[int | None, str]:
    """Index of the layer (None outside the layers) and component of a parameter such as ``model.layers.3.self_attn.q_proj.weight``.

    The component is a value of ``MODULES``, ``norm`` or ``other``.
    """
    layer = LAYER.search(name)
    module = name.split(".")[-2] if "." in name else name
    component = "norm" if "norm" in module else MODULES.get(module, "other")
    return int(layer[1]) if layer else None, component


def layers_in_range(depths: tuple[float, float] | None, layers: int) -> list[int]:
    """Those of ``layers`` layers whose depth, layer / (layers - 1), lies in the range, ends included; all of them where it is None."""
    low, high = depths or (0.0, 1.0)
    return [layer for layer in range(layers) if low <= layer / max(layers - 1, 1) <= high]
