"""Configurations, recipes and machines for the plan's tests."""

from __future__ import annotations

from typing import Any

from qtune.plan import Machine
from qtune.recipe.sections import Recipe

LLAMA_65B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 22016,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
LLAMA_70B = {
    **LLAMA_65B,
    "intermediate_size": 28672,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
LLAMA_8B = {
    **LLAMA_70B,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
QWEN_32B = {
    **LLAMA_70B,
    "model_type": "qwen2",
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "num_hidden_layers": 64,
    "num_attention_heads": 40,
    "vocab_size": 152064,
}
TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "tie_word_embeddings": False,
}
LARGE = Machine("cuda", "large GPU", 10**13, 0, 1)


def gpu(gigabytes: float, *, host: int = 0) -> Machine:
    """A CUDA device with exactly so much memory."""
    return Machine("cuda", "GPU", int(gigabytes * 1e9), host, 8)


def cpu(gigabytes: float) -> Machine:
    """A CPU with so much free memory."""
    return Machine("cpu", "CPU", int(gigabytes * 1e9), int(gigabytes * 1e9), 2)


def recipe(*, max_length: int = 512, **sections: Any) -> Recipe:
    """A recipe with some sections given."""
    data = {"train": [{"path": "rows.jsonl"}], "max_length": max_length}
    return Recipe.model_validate({"model": {"name_or_path": "base"}, "data": data, **sections})
