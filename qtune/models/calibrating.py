"""Calibration rows on their way through a model of which one layer is in memory at a time.

What a layer is called with beside its hidden states (masks, rotary angles) is recorded once, with
layers that pass their input on; the hidden states wait in host memory between the layers.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

SAMPLE = 1024  # inputs of each linear that are kept, to measure on what pruning did


@dataclass
class Seen:
    """What the inputs of one linear were like."""

    with_gram: bool
    share: int
    """Tokens of each row to keep."""
    squares: Tensor | None = None
    """Sum of squares of each feature [in]."""
    gram: Tensor | None = None
    """X^T X [in, in]."""
    _sample: list[Tensor] = field(default_factory=list)

    def add(self, inputs: Tensor) -> None:
        """The inputs [..., in] of one row."""
        flat = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        squares = flat.square().sum(0)
        self.squares = squares if self.squares is None else self.squares + squares
        if self.with_gram:
            if self.gram is None:
                self.gram = flat.new_zeros(flat.shape[1], flat.shape[1])
            self.gram.addmm_(flat.T, flat)
        count = min(self.share, len(flat))
        self._sample.append(flat[:: max(1, len(flat) // max(1, count))][:count].clone())

    @property
    def sample(self) -> Tensor:
        """Some of the inputs [tokens, in], evenly from each row."""
        return torch.cat(self._sample)


class _LastReachedError(Exception):
    """The rest of the model is not wanted."""


class _Recorder:
    """Stands for all layers during one row, and notes what they are called with."""

    def __init__(self, layers: int, *, in_tuple: bool) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.entered: Tensor | None = None
        self._layers, self._in_tuple = layers, in_tuple

    def forward(self, *rest: Any, **keys: Any) -> Any:
        """In the place of a layer's own: the hidden states, unchanged."""
        hidden, rest, keys = _without_hidden(rest, keys)
        if self.entered is None:
            self.entered = hidden
        if hidden.shape != self.entered.shape:
            raise _OtherFormError
        self.calls.append((rest, keys))
        if len(self.calls) == self._layers:
            raise _LastReachedError
        return (hidden,) if self._in_tuple else hidden


class _OtherFormError(Exception):
    """The model took the first item of what a layer returned."""


class Walk:
    """Rows before a layer, and the way through it."""

    def __init__(
        self,
        network: Any,
        layers: Sequence[nn.Module],
        rows: Sequence[Sequence[int]],
        device: torch.device,
    ) -> None:
        """Run what lies before the layers, which must be in memory, on every row."""
        self._layers, self._device = layers, device
        self._hidden: list[Tensor] = []
        self._calls: list[list[tuple[tuple[Any, ...], dict[str, Any]]]] = []
        for row in rows:
            recorder = self._record(network, torch.tensor([list(row)], device=device))
            assert recorder.entered is not None
            self._hidden.append(recorder.entered.cpu())
            self._calls.append(recorder.calls)

    def _record(self, network: Any, ids: Tensor) -> _Recorder:
        for in_tuple in (False, True):
            recorder = _Recorder(len(self._layers), in_tuple=in_tuple)
            try:
                _call(network, self._layers, recorder, ids)
            except _LastReachedError:
                return recorder
            except _OtherFormError:
                continue
        raise ModelError(f"the layers of {type(network).__name__} are not called one by one")

    @torch.no_grad()
    def look(self, layer: int, linears: Mapping[str, nn.Module], *, gram: bool) -> dict[str, Seen]:
        """What comes to the linears of a layer; the hidden states stay before it."""
        share = max(1, SAMPLE // len(self._hidden))
        seen = {name: Seen(gram, share) for name in linears}
        with ExitStack() as stack:
            for name, linear in linears.items():
                handle = linear.register_forward_pre_hook(partial(_note, seen[name]))
                stack.callback(handle.remove)
            for number in range(len(self._hidden)):
                self._through(layer, number)
        missed = [name for name, found in seen.items() if found.squares is None]
        if missed:
            raise ModelError(
                f"no calibration token comes to {missed[0]}", hint="take more rows, or magnitude"
            )
        return seen

    @torch.no_grad()
    def advance(self, layer: int) -> float:
        """Move the rows behind a layer; the mean cosine between what a token was before it and
        after."""
        cosines = []
        for number, before in enumerate(self._hidden):
            after = self._through(layer, number).cpu()
            cosines.append(torch.cosine_similarity(before.float(), after.float(), dim=-1).flatten())
            self._hidden[number] = after
        return float(torch.cat(cosines).mean())

    def _through(self, layer: int, number: int) -> Tensor:
        rest, keys = self._calls[number][layer]
        found = self._layers[layer](self._hidden[number].to(self._device), *rest, **keys)
        hidden: Tensor = found[0] if isinstance(found, tuple) else found
        return hidden


@torch.no_grad()
def _call(network: Any, layers: Sequence[Any], recorder: _Recorder, ids: Tensor) -> None:
    for layer in layers:
        layer.forward = recorder.forward
    try:
        network(input_ids=ids, use_cache=False)
    finally:
        for layer in layers:
            del layer.forward


def _without_hidden(
    rest: tuple[Any, ...], keys: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A layer's hidden states and its other arguments."""
    if rest:
        return rest[0], rest[1:], keys
    others = {key: value for key, value in keys.items() if key != "hidden_states"}
    return keys["hidden_states"], rest, others


def _note(seen: Seen, linear: nn.Module, arguments: tuple[Any, ...]) -> None:
    del linear
    seen.add(arguments[0])
