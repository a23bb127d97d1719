"""Prompt tuning (Lester et al. 2021): learned embeddings before the input, seen by attention only.

The decoder gets the soft prompt in front of its first tokens and gives back hidden states of the
callers' length, so losses, logits and generation know nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qtune.errors import ModelError, UsageError
from qtune.methods import peft_format
from qtune.methods.adapter import generator_for, refuse_attached
from qtune.methods.base import CannotMerge, Edit, Method
from qtune.methods.soft_prompt import SoftPrompt
from qtune.recipe.methods import PromptConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

NAME = "prompt_embeddings"
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
        tokens = self._start(tokenizer, embedding.weight.shape[0]).to(embedding.weight.device)
        with torch.no_grad():
            start = embedding(tokens).float()
        self._decoder = decoder_of(model)
        self._prompt = SoftPrompt(start, embedding=embedding)
        # In the model, so that it moves and is counted with it.
        self._decoder.add_module(CHILD, self._prompt)
        self._handles = self._prompt.hook(self._decoder)
        self._layers, self._heads = layers_and_heads(model)
        self.adapters = {CHILD: self._prompt}

    def _start(self, tokenizer: Any, vocabulary: int) -> Tensor:
        count = self.config.num_virtual_tokens
        if self.config.init_text is None:
            generator = generator_for(self.seed, NAME)
            return torch.randint(0, vocabulary, (count,), generator=generator)
        assert tokenizer is not None, "init_text needs a tokenizer"
        ids = tokenizer(self.config.init_text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise UsageError("init_text has no tokens", place="method.init_text")
        return torch.tensor((ids * (count // len(ids) + 1))[:count])

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
        understood = {
            "num_virtual_tokens",
            "token_dim",
            "num_transformer_submodules",
            "num_attention_heads",
            "num_layers",
            "prompt_tuning_init",
            "prompt_tuning_init_text",
            "tokenizer_name_or_path",
            "tokenizer_kwargs",
        }
        reasons = {"modules_to_save": "trained copies of whole modules"}
        peft_format.refuse_active(config, understood=understood, reasons=reasons)
        if config.get("num_transformer_submodules") not in (None, 1):
            raise ModelError("a prompt for an encoder and a decoder", place=peft_format.CONFIG_FILE)
        count = config.get("num_virtual_tokens")
        return peft_format.section(PromptConfig, {"num_virtual_tokens": count})

    @classmethod
    def merge_edits(
        cls,
        config: PromptConfig,  # noqa: ARG003
        tensors: Mapping[str, Tensor],  # noqa: ARG003
        *,
        fan_in_fan_out: bool = False,  # noqa: ARG003
    ) -> dict[str, Edit]:
        """Never: a prompt is input, not weights."""
        raise CannotMerge(
            "a soft prompt is input to the model, not a change of its weights",
            hint="keep the adapter folder beside the base; qtune eval and generate load both",
        )


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
