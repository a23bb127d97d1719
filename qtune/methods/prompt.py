"""Prompt tuning (Lester et al. 2021): learned embeddings before the input, seen by attention only.

The decoder gets the soft prompt in front of its first tokens and gives back hidden states of the
callers' length, so losses, logits and generation know nothing of it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qtune.methods import peft_format, virtual_tokens
from qtune.methods.adapter import refuse_attached
from qtune.methods.base import Edit, Method
from qtune.methods.soft_prompt import SoftPrompt, VirtualTokens
from qtune.methods.virtual_tokens import start_tokens
from qtune.recipe.methods import PromptConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

CHILD = "soft_prompt"


class BeforeTokens(Method):
    """Virtual tokens on the model's decoder."""

    identity_at_start: ClassVar[bool] = False

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:
        """Make the virtual tokens and hook the decoder."""
        refuse_attached(model)
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        self._decoder = decoder_of(model)
        self._tokens = self.make(embedding, tokenizer)
        # In the model, so that it moves and is counted with it.
        self._decoder.add_module(CHILD, self._tokens)
        self._handles = self._tokens.hook(self._decoder)
        self._layers, self._heads = layers_and_heads(model)
        self.adapters = {CHILD: self._tokens}

    @abstractmethod
    def make(self, embedding: Any, tokenizer: Any) -> VirtualTokens:
        """The virtual tokens at their start, on the device of the model's embedding."""

    def detach(self) -> None:
        """Unhook the decoder."""
        for handle in self._handles:
            handle.remove()
        delattr(self._decoder, CHILD)
        self.adapters = {}

    def prompt_facts(self) -> dict[str, Any]:
        """What PEFT's configs of prompts share."""
        return {
            **peft_format.header(self.peft_type),
            "num_virtual_tokens": self._tokens.count,
            "token_dim": self._tokens.values().shape[1],
            "num_transformer_submodules": 1,
            "num_attention_heads": self._heads,
            "num_layers": self._layers,
            "modules_to_save": None,
        }

    @classmethod
    def merge_edits(
        cls,
        config: Any,  # noqa: ARG003
        tensors: Mapping[str, Tensor],  # noqa: ARG003
        *,
        fan_in_fan_out: bool = False,  # noqa: ARG003
    ) -> dict[str, Edit]:
        """Never: a prompt is input, not weights."""
        raise virtual_tokens.cannot_merge("a soft prompt is input to the model")


class Prompt(BeforeTokens):
    """A soft prompt that learns itself."""

    name: ClassVar[str] = "prompt"
    peft_type: ClassVar[str] = "PROMPT_TUNING"
    config: PromptConfig

    def make(self, embedding: Any, tokenizer: Any) -> VirtualTokens:
        """The embeddings of init_text, or of random tokens."""
        vocabulary, device = embedding.weight.shape[0], embedding.weight.device
        tokens = start_tokens(self.config, tokenizer, vocabulary=vocabulary, seed=self.seed).to(
            device
        )
        with torch.no_grad():
            return SoftPrompt(embedding(tokens).float(), embedding=embedding)

    def parameters(self) -> dict[str, nn.Parameter]:
        """One matrix, [num_virtual_tokens, hidden]."""
        return self._tokens.tensors()

    def peft_config(self) -> dict[str, Any]:
        """A PromptTuningConfig of PEFT."""
        return {
            **self.prompt_facts(),
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
