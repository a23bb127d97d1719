"""Prompt tuning (Lester et al. 2021): learned embeddings before the input, seen by attention only.

The decoder gets the soft prompt in front of its first tokens and gives back hidden states of the
callers' length, so losses, logits and generation know nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qtune.methods import peft_format, virtual_tokens
from qtune.methods.adapter import refuse_attached
from qtune.methods.base import Edit, Method
from qtune.methods.soft_prompt import SoftPrompt
from qtune.methods.virtual_tokens import NAME, start_tokens
from qtune.recipe.methods import PromptConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

CHILD = "soft_prompt"


class Prompt(Method):
    """A soft prompt on the model's decoder."""

    name: ClassVar[str] = "prompt"
    peft_type: ClassVar[str] = "PROMPT_TUNING"
    identity_at_start: ClassVar[bool] = False
    config: PromptConfig

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:
        """Start from the embeddings of init_text, or of random tokens, and hook the decoder."""
        refuse_attached(model)
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        vocabulary, device = embedding.weight.shape[0], embedding.weight.device
        tokens = start_tokens(self.config, tokenizer, vocabulary=vocabulary, seed=self.seed).to(
            device
        )
        with torch.no_grad():
            start = embedding(tokens).float()
        self._decoder = decoder_of(model)
        self._prompt = SoftPrompt(start, embedding=embedding)
        # In the model, so that it moves and is counted with it.
        self._decoder.add_module(CHILD, self._prompt)
        self._handles = self._prompt.hook(self._decoder)
        self._layers, self._heads = layers_and_heads(model)
        self.adapters = {CHILD: self._prompt}

    def detach(self) -> None:
        """Unhook the decoder."""
        for handle in self._handles:
            handle.remove()
        delattr(self._decoder, CHILD)
        self.adapters = {}

    def parameters(self) -> dict[str, nn.Parameter]:
        """One matrix, [num_virtual_tokens, hidden]."""
        return {NAME: self._prompt.embeddings}

    def peft_config(self) -> dict[str, Any]:
        """A PromptTuningConfig of PEFT."""
        return {
            **peft_format.header(self.peft_type),
            "num_virtual_tokens": self.config.num_virtual_tokens,
            "token_dim": self._prompt.embeddings.shape[1],
            "num_transformer_submodules": 1,
            "num_attention_heads": self._heads,
            "num_layers": self._layers,
            "modules_to_save": None,
            # How it started is of no use to a reader, who would need the tokenizer for it.
            "prompt_tuning_init": "RANDOM",
            "prompt_tuning_init_text": None,
            "tokenizer_name_or_path": None,
            "tokenizer_kwargs": None,
        }

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> PromptConfig:
        """Read a PromptTuningConfig of PEFT; how it started does not matter any more."""
        start = {"prompt_tuning_init", "prompt_tuning_init_text"}
        start |= {"tokenizer_name_or_path", "tokenizer_kwargs"}
        return virtual_tokens.read(PromptConfig, config, also=start)

    @classmethod
    def merge_edits(
        cls,
        config: PromptConfig,  # noqa: ARG003
        tensors: Mapping[str, Tensor],  # noqa: ARG003
        *,
        fan_in_fan_out: bool = False,  # noqa: ARG003
    ) -> dict[str, Edit]:
        """Never: a prompt is input, not weights."""
        raise virtual_tokens.cannot_merge("a soft prompt is input to the model")


def decoder_of(model: nn.Module) -> nn.Module:
    """The stack of layers that takes embeddings and gives hidden states."""
    prefix = getattr(model, "base_model_prefix", "")
    decoder = getattr(model, prefix, None) if prefix else None
    return decoder if decoder is not None else model


def layers_and_heads(model: nn.Module) -> tuple[int, int]:
    """(layers, attention heads) of the model's text config."""
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(text.num_hidden_layers), int(text.num_attention_heads)
