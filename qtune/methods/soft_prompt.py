"""The soft prompt inside a decoder: put before the first tokens, taken off the hidden states.

In a row padded on the left it stands after the padding: a sliding window counts places, so padding
in between would push the prompt out of sight.

B rows, P virtual tokens, T tokens of the caller, H hidden size. The key-value cache holds P + T.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qtune.errors import UsageError
from qtune.methods.adapter import Adapter

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle


class VirtualTokens(Adapter, ABC):
    """P embeddings [P, H] in fp32 that stand before the tokens."""

    def __init__(self, count: int, *, embedding: nn.Module) -> None:
        super().__init__()
        self.count = count
        # In a list, or the frozen embedding would become a child of this module too.
        self._embedding = [embedding]
        self._inserted = False
        self._padding: Tensor | None = None

    @property
    def positions(self) -> int:
        """Every virtual token's."""
        return self.count

    @abstractmethod
    def values(self) -> Tensor:
        """The embeddings, with their gradient."""

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
        mask = _plain(kwargs.get("attention_mask"))
        self._padding = left_padding(mask)
        kwargs["position_ids"] = self._positions(
            tokens, cache=cache, mask=mask, positions=kwargs.get("position_ids")
        )
        if mask is not None:
            seen = mask.new_ones(mask.shape[0], self.count)
            kwargs["attention_mask"] = insert(seen, mask, after=self._padding)
        if self._inserted:
            prompt = self.values().to(tokens.dtype).expand(tokens.shape[0], -1, -1)
            tokens = insert(prompt, tokens, after=self._padding)
        kwargs["inputs_embeds"] = tokens
        return (), kwargs

    def _positions(
        self, tokens: Tensor, *, cache: Any, mask: Tensor | None, positions: Tensor | None
    ) -> Tensor:
        """Positions after the prompt's, counted from each row's first token that is no padding."""
        rows, length = tokens.shape[:2]
        count = self.count
        if positions is None:
            if mask is not None:
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
        return insert(own.expand(rows, -1), positions, after=self._padding)

    def _after(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if not self._inserted:
            return output
        own = partial(remove, count=self.count, after=self._padding)
        if isinstance(output, tuple):
            return (own(output[0]), *output[1:])
        output.last_hidden_state = own(output.last_hidden_state)
        states = getattr(output, "hidden_states", None)
        if states is not None:
            output.hidden_states = tuple(own(state) for state in states)
        return output


class SoftPrompt(VirtualTokens):
    """Embeddings that learn themselves."""

    def __init__(self, start: Tensor, *, embedding: nn.Module) -> None:
        super().__init__(len(start), embedding=embedding)
        self.embeddings = nn.Parameter(start.clone())

    def values(self) -> Tensor:
        """The parameter."""
        return self.embeddings

    def tensors(self) -> dict[str, nn.Parameter]:
        """The prompt under PEFT's name."""
        return {"prompt_embeddings": self.embeddings}


def left_padding(mask: Tensor | None) -> Tensor | None:
    """Zeros at the beginning of each row of a mask, [B, 1]; None when no row begins with one."""
    if mask is None or bool(mask[:, 0].all()):
        return None
    return (mask.cumsum(dim=1) == 0).sum(dim=1, keepdim=True)


def insert(prompt: Tensor, row: Tensor, *, after: Tensor | None) -> Tensor:
    """[B, P, ...] into [B, T, ...] behind the first `after` [B, 1] places; None: at the front."""
    joined = torch.cat([prompt, row], dim=1)
    if after is None:
        return joined
    count = prompt.shape[1]
    place = torch.arange(joined.shape[1], device=joined.device)
    behind = torch.where(place < after + count, place - after, place)
    return _pick(joined, torch.where(place < after, place + count, behind))


def remove(joined: Tensor, *, count: int, after: Tensor | None) -> Tensor:
    """What `insert` was given as row: [B, P + T, ...] -> [B, T, ...]."""
    if after is None:
        return joined[:, count:]
    place = torch.arange(joined.shape[1] - count, device=joined.device)
    return _pick(joined, place + count * (place >= after))


def _pick(values: Tensor, places: Tensor) -> Tensor:
    """values [B, S, ...] at places [B, T]."""
    return values.take_along_dim(places.reshape(*places.shape, *[1] * (values.ndim - 2)), dim=1)


def _plain(mask: Any) -> Tensor | None:
    """A mask [B, T] or none; `UsageError` for one that is prepared already."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise UsageError("prompt tuning needs a plain attention mask and a growing cache")
    return mask
