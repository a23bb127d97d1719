"""Prefix tuning (Li and Liang 2021): learned keys and values in every layer, before the tokens.

They start as those of real tokens, so the first step sees the model with some text before the
row. Through the attention itself and not through a cache: recomputation and packing work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qtune.errors import UsageError
from qtune.methods import attention_interface, peft_format, virtual_tokens
from qtune.methods.adapter import refuse_attached
from qtune.methods.base import Edit, Method
from qtune.methods.prefix_attention import (
    CHILD,
    IMPLEMENTATION,
    Prefix,
    attention,
    shift_positions,
)
from qtune.methods.prompt import decoder_of, layers_and_heads
from qtune.methods.strict import refuse_differences
from qtune.methods.virtual_tokens import NAME, start_tokens
from qtune.recipe.methods import PrefixConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


class PrefixTuning(Method):
    """A prefix in every attention of the model."""

    name: ClassVar[str] = "prefix"
    peft_type: ClassVar[str] = "PREFIX_TUNING"
    identity_at_start: ClassVar[bool] = False
    config: PrefixConfig

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:
        """Start from the keys and values of init_text, or of random tokens."""
        refuse_attached(model)
        attention_interface.refuse_other_bases(model, "prefix tuning")
        attentions = attention_interface.attention_modules(model)
        layers, self._heads = layers_and_heads(model)
        if len(attentions) != layers:
            family = model.config.model_type  # type: ignore[union-attr]
            raise UsageError(f"prefix tuning does not know the attention of {family}")
        starts = self._start(model, tokenizer)
        self._prefixes = [Prefix(start) for start in starts]
        for module, prefix in zip(attentions, self._prefixes, strict=True):
            module.add_module(CHILD, prefix)
        attention_interface.put_in(model, IMPLEMENTATION, attention)
        self._handle = shift_positions(decoder_of(model), self._prefixes[0])
        self._model, self._attentions = model, attentions
        self.adapters = {f"layers.{n}.{CHILD}": each for n, each in enumerate(self._prefixes)}

    @torch.no_grad()
    def _start(self, model: Any, tokenizer: Any) -> list[Tensor]:
        """[2, K, P, D] of each layer: what the base computes for P tokens."""
        vocabulary, device = model.get_input_embeddings().weight.shape[0], model.device
        tokens = start_tokens(self.config, tokenizer, vocabulary=vocabulary, seed=self.seed)
        ids = tokens.to(device)[None]
        training = model.training
        model.eval()
        cache = model(input_ids=ids, use_cache=True).past_key_values
        model.train(training)
        return [torch.cat([each.keys, each.values]).float() for each in cache.layers]

    def detach(self) -> None:
        """Take the prefixes out and give the attention back."""
        self._handle.remove()
        for module in self._attentions:
            delattr(module, CHILD)
        attention_interface.take_out(self._model)
        self.adapters = {}

    def parameters(self) -> dict[str, nn.Parameter]:
        """One tensor a layer, [2, K, P, D]; the file holds them as one."""
        return {f"layers.{n}.{CHILD}": each.values for n, each in enumerate(self._prefixes)}

    def param_groups(self, *, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:  # noqa: ARG002
        """One group without weight decay: nothing says that small keys are simple ones."""
        trainable = list(self.parameters().values())
        return [{"params": trainable, "lr": learning_rate, "weight_decay": 0.0}]

    def adapter_state(self) -> dict[str, Tensor]:
        """PEFT's layout: [P, layers x 2 x K x D]."""
        layers = [each.values.detach().permute(2, 0, 1, 3).flatten(1) for each in self._prefixes]
        return {NAME: torch.cat(layers, dim=1).to("cpu", copy=True).contiguous()}

    def load_adapter(self, tensors: Mapping[str, Tensor]) -> None:
        """Take other weights; `ModelError` lists foreign, missing and misshapen names."""
        refuse_differences(self.adapter_state(), tensors, what="adapter")
        _, heads, count, size = self._prefixes[0].values.shape
        with torch.no_grad():
            layers = tensors[NAME].view(count, len(self._prefixes), 2, heads, size)
            for prefix, layer in zip(self._prefixes, layers.unbind(1), strict=True):
                prefix.values.copy_(layer.permute(1, 2, 0, 3))

    def peft_config(self) -> dict[str, Any]:
        """A PrefixTuningConfig of PEFT."""
        _, heads, count, size = self._prefixes[0].values.shape
        return {
            **peft_format.header(self.peft_type),
            "num_virtual_tokens": count,
            # of the key-value heads: PEFT reads the width of a key off these two
            "token_dim": heads * size,
            "num_attention_heads": heads,
            "num_transformer_submodules": 1,
            "num_layers": len(self._prefixes),
            "encoder_hidden_size": heads * size,
            "prefix_projection": False,
            "modules_to_save": None,
        }

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> PrefixConfig:
        """Read a PrefixTuningConfig of PEFT; how it started does not matter any more."""
        # its file holds the projected prefix, which is ours
        start = {"encoder_hidden_size", "prefix_projection", "init_weights"}
        return virtual_tokens.read(PrefixConfig, config, also=start)

    @classmethod
    def merge_edits(
        cls,
        config: PrefixConfig,  # noqa: ARG003
        tensors: Mapping[str, Tensor],  # noqa: ARG003
        *,
        fan_in_fan_out: bool = False,  # noqa: ARG003
    ) -> dict[str, Edit]:
        """Never: a prefix is input to the attention, not weights."""
        raise virtual_tokens.cannot_merge("a prefix is input to the attention of the model")
