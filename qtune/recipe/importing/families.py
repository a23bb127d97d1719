"""Names of a decoder's linears in its Hugging Face checkpoint, by the family in a model's name."""

from __future__ import annotations

import re
from typing import NamedTuple


class Linears(NamedTuple):
    """What query, key, value, projection and MLP are called; of a fused one the same name."""

    query: tuple[str, ...]
    key: tuple[str, ...]
    value: tuple[str, ...]
    projection: tuple[str, ...]
    mlp: tuple[str, ...]
    head: tuple[str, ...] = ("lm_head",)


_LLAMA = Linears(
    ("q_proj",), ("k_proj",), ("v_proj",), ("o_proj",), ("gate_proj", "up_proj", "down_proj")
)
_ONE = ("query_key_value",)
_BY_NAME = {
    r"falcon|pythia|neox|stablelm-(base|tuned)-alpha|dolly": Linears(
        *(_ONE, _ONE, _ONE, ("dense",), ("dense_h_to_4h", "dense_4h_to_h"))
    ),
    r"phi-?(3|4)": Linears(
        *(("qkv_proj",), ("qkv_proj",), ("qkv_proj",), ("o_proj",), ("gate_up_proj", "down_proj"))
    ),
    r"phi-?[12]": Linears(("q_proj",), ("k_proj",), ("v_proj",), ("dense",), ("fc1", "fc2")),
}


def linears_of(model: str) -> Linears:
    """The names in the family of a model's name; those of Llama for most families."""
    name = model.lower()
    return next((own for each, own in _BY_NAME.items() if re.search(each, name)), _LLAMA)
