"""What the methods share that learn something before the row: prompts and prefixes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch

from qtune.errors import ModelError, UsageError
from qtune.methods import peft_format
from qtune.methods.adapter import generator_for
from qtune.methods.base import CannotMerge
from qtune.recipe.methods import PrefixConfig, PromptConfig, PTuningConfig

if TYPE_CHECKING:
    from torch import Tensor

NAME = "prompt_embeddings"  # of the one tensor in PEFT's file
_UNDERSTOOD = {
    "num_virtual_tokens",
    "token_dim",
    "num_transformer_submodules",
    "num_attention_heads",
    "num_layers",
}
Config = TypeVar("Config", PromptConfig, PTuningConfig, PrefixConfig)


def start_tokens(
    config: PromptConfig | PrefixConfig, tokenizer: Any, *, vocabulary: int, seed: int
) -> Tensor:
    """Ids [num_virtual_tokens] to start from: of init_text, repeated or cut, or random ones."""
    count = config.num_virtual_tokens
    if config.init_text is None:
        return torch.randint(0, vocabulary, (count,), generator=generator_for(seed, NAME))
    assert tokenizer is not None, "init_text needs a tokenizer"
    ids = tokenizer(config.init_text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise UsageError("init_text has no tokens", place="method.init_text")
    return torch.tensor((ids * (count // len(ids) + 1))[:count])


def read(kind: type[Config], config: dict[str, Any], *, also: set[str]) -> Config:
    """The section of an adapter_config.json, of which keys `also` do not matter any more."""
    reasons = {"modules_to_save": "trained copies of whole modules"}
    peft_format.refuse_active(config, understood=_UNDERSTOOD | also, reasons=reasons)
    if config.get("num_transformer_submodules") not in (None, 1):
        raise ModelError("made for an encoder and a decoder", place=peft_format.CONFIG_FILE)
    count = config.get("num_virtual_tokens")
    return peft_format.section(kind, {"num_virtual_tokens": count})


def cannot_merge(what: str) -> CannotMerge:
    """The refusal of a method that changes no weight; `what` says what it is instead."""
    return CannotMerge(
        f"{what}, not a change of its weights",
        hint="keep the adapter folder beside the base; qtune eval and generate load both",
    )
