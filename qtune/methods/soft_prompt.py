"""The soft prompt inside a decoder: put before the first tokens, taken off the hidden states.

B rows, P virtual tokens, T tokens of the caller, H hidden size. The key-value cache holds P + T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qtune.errors import UsageError
from qtune.methods.adapter import Adapter

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle


class SoftPrompt(Adapter):
    """P learned embeddings [P, H] in fp32."""

    def __init__(self, start: Tensor, *, embedding: nn.Module) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(start.clone())
        # In a list, or the frozen embedding would become a child of this module too.
        self._embedding = [embedding]
        self._inserted = False

    def tensors(self) -> dict[str, nn.Parameter]:
        """The prompt under PEFT's name."""
        return {"prompt_embeddings": self.embeddings}

    def hook(self, decoder: nn.Module) -> list[RemovableHandle]:
        """Work on a decoder's inputs and outputs until the handles are removed."""
        return [
            decoder.register_forward_pre_hook(self._before, with_kwargs=True),
            decoder.register_forward_hook(self._after),
        ]

    def _before(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._inserted = False
        if not self.enabled:
            return None
        if args:
            kwargs = {**kwargs, "input_ids": args[0]}
            assert len(args) == 1, "decoders are called by keyword"
        tokens = kwargs.pop("inputs_embeds", None)
        ids = kwargs.pop("input_ids", None)
        cache = kwargs.get("past_key_values")
        self._inserted = cache is None or cache.get_seq_length() == 0
        if tokens is None:
            tokens = self._embedding[0](ids)
        kwargs["position_ids"] = self._positions(tokens, cache=cache, **_told(kwargs))
        kwargs["attention_mask"] = self._mask(kwargs.get("attention_mask"))
        if self._inserted:
            prompt = self.embeddings.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([prompt, tokens], dim=1)
        kwargs["inputs_embeds"] = tokens
        return (), kwargs

    def _mask(self, mask: Tensor | None) -> Tensor | None:
        """[B, P + ...]: the prompt is always seen."""
        if mask is None:
            return None
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            raise UsageError("prompt tuning needs a plain attention mask and a growing cache")
        return torch.cat([mask.new_ones(mask.shape[0], len(self.embeddings)), mask], dim=1)

    def _positions(
        self, tokens: Tensor, *, cache: Any, mask: Tensor | None, positions: Tensor | None
    ) -> Tensor:
        """Positions after the prompt's, counted from each row's first token that is no padding."""
        rows, length = tokens.shape[:2]
        count = len(self.embeddings)
        if positions is None:
            if isinstance(mask, Tensor) and mask.ndim == 2:
                positions = (mask.long().cumsum(dim=1) - 1).clamp_min(0)[:, -length:]
            else:
                seen = 0 if self._inserted else cache.get_seq_length() - count
                positions = (torch.arange(length, device=tokens.device) + seen).unsqueeze(0)
        elif mask is None and length > 1 and bool((positions.diff(dim=-1) < 0).any()):
            raise UsageError("prompt tuning cannot be used with packed rows")
        positions = positions.expand(rows, -1) + count
        if not self._inserted:
            return positions
        own = torch.arange(count, device=tokens.device, dtype=positions.dtype)
        return torch.cat([own.expand(rows, -1), positions], dim=1)

    def _after(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if not self._inserted:
            return output
        count = len(self.embeddings)
        if isinstance(output, tuple):
            return (output[0][:, count:], *output[1:])
        output.last_hidden_state = output.last_hidden_state[:, count:]
        states = getattr(output, "hidden_states", None)
        if states is not None:
            output.hidden_states = tuple(state[:, count:] for state in states)
        return output


def _told(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"mask": kwargs.get("attention_mask"), "positions": kwargs.get("position_ids")}
