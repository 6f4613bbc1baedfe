"""The paper's base models and training sets (arXiv 2506.14681): the names under which its scores are published."""

MODELS: dict[str, tuple[str, str, str, str]] = {  # name in the file: key, label, family, pre-training language
    "OLMo-7B-hf": ("olmo-7b", "OLMo 7B", "olmo", "en"),
    "Meta-Llama-3-8B": ("llama3-8b", "Llama 3 8B", "llama3", "en"),
    "Mistral-7B-v0.1": ("mistral-7b", "Mistral 7B", "mistral", "en"),
    "Gemma2-9B": ("gemma2-9b", "Gemma 2 9B", "gemma2", "en"),
    "Qwen2.5-7B": ("qwen2.5-7b", "Qwen2.5 7B", "qwen2.5", "zh"),
    "llama-3-chinese-8b": ("chinese-llama3-8b", "Chinese-Llama 3 8B", "llama3", "zh"),
    "Chinese-Mistral-7B-v0.1": ("chinese-mistral-7b", "Chinese-Mistral 7B", "mistral", "zh"),
    "Yi-1.5-9B": ("yi1.5-9b", "Yi 1.5 9B", "yi", "zh"),
    "LLM-jp-3-7B": ("llmjp-3-7b", "LLM-jp-3 7B", "llmjp", "ja"),
    "Llama-3-Swallow-8B-v0.1": ("llama3-swallow-8b", "Llama 3 Swallow 8B", "llama3", "ja"),
    "Swallow-MS-7b-v0.1": ("swallow-mistral-7b", "Swallow-Mistral 7B", "mistral", "ja"),
    "Sarashina2-7B": ("sarashina2-7b", "Sarashina2 7B", "sarashina", "ja"),
}
KEYS = {key: facts for key, *facts in MODELS.values()}  # label, family and language by key
HUBS = {  # as on the hub, by key; config/paper.yaml has the same
    "allenai/OLMo-7B-hf": "olmo-7b",
    "meta-llama/Meta-Llama-3-8B": "llama3-8b",
    "mistralai/Mistral-7B-v0.1": "mistral-7b",
    "google/gemma-2-9b": "gemma2-9b",
    "Qwen/Qwen2.5-7B": "qwen2.5-7b",
    "hfl/llama-3-chinese-8b": "chinese-llama3-8b",
    "itpossible/Chinese-Mistral-7B-v0.1": "chinese-mistral-7b",
    "01-ai/Yi-1.5-9B": "yi1.5-9b",
    "llm-jp/llm-jp-3-7.2b": "llmjp-3-7b",
    "tokyotech-llm/Llama-3-Swallow-8B-v0.1": "llama3-swallow-8b",
    "tokyotech-llm/Swallow-MS-7b-v0.1": "swallow-mistral-7b",
    "sbintuitions/sarashina2-7b": "sarashina2-7b",
}
DATASETS: dict[str, tuple[str, str]] = {  # label, group
    "alpaca_cleaned": ("Alpaca", "general"),
    "lima": ("LIMA", "general"),
    "ultrachat": ("UltraChat", "general"),
    "code_alpaca": ("CodeAlpaca", "code"),
    "magicoder": ("Magicoder", "code"),
    "openmath": ("OpenMathInstruct", "mathematics"),
    "math": ("MathInstruct", "mathematics"),
    "flan_knowledge": ("FLAN knowledge", "knowledge"),
    "flan_reasoning": ("FLAN reasoning", "reasoning"),
    "flan_comprehension": ("FLAN comprehension", "comprehension"),
}

SET_HUBS = {  # as on the hub, by key; config/paper.yaml has the same. The three of FLAN are parts of one repository
    "alpaca_cleaned": "yahma/alpaca-cleaned",
    "lima": "GAIR/lima",
    "ultrachat": "stingning/ultrachat",
    "code_alpaca": "sahil2801/CodeAlpaca-20k",
    "magicoder": "ise-uiuc/Magicoder-Evol-Instruct-110K",
    "openmath": "nvidia/OpenMathInstruct-1",
    "math": "TIGER-Lab/MathInstruct",
    "flan_knowledge": "Open-Orca/FLAN",
    "flan_reasoning": "Open-Orca/FLAN",
    "flan_comprehension": "Open-Orca/FLAN",
}


def model_key(name: str) -> str | None:
    """The key of one of the paper's base models by key, name in the CSV, label or hub id, whatever the case of its letters; else None."""
    known = {other.lower(): key for other, (key, *_) in MODELS.items()} | {facts[0].lower(): key for key, facts in KEYS.items()}
    known |= {hub.lower(): key for hub, key in HUBS.items()} | {key: key for key in KEYS}
    return known.get(name.lower())


def dataset_key(name: str) -> str | None:
    """The key of one of the paper's training sets by key or label, whatever the case of its letters; else None."""
    return ({label.lower(): key for key, (label, _) in DATASETS.items()} | {key: key for key in DATASETS}).get(name.lower())


def set_key(name: str, hub: str | None) -> str | None:
    """The key of the paper's training set that an entry of a study is: by its hub id, and of parts of one repository by its name too; else None.

    A name alone says nothing: a study's own `math` is another set.
    """
    found = [key for key, other in SET_HUBS.items() if hub and other.lower() == hub.lower()]
    return found[0] if len(found) == 1 else name if name in found else None
