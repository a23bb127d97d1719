"""A linear layer with a low-rank update and a sparse one, whose places its gradient chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from qtune.errors import ModelError
from qtune.methods.lora_linear import LoraLinear
from qtune.ops.linears import features
from qtune.ops.sparse import Places, gradient_rows, largest, sparse_product, watched

if TYPE_CHECKING:
    from collections.abc import Mapping

VALUES, COLUMNS, POINTERS = "rosa_values", "rosa_columns", "rosa_row_pointers"


class RosaLinear(LoraLinear):
    """y = base(x) + scale B A dropout(x) + S x; S has k places, none before they are chosen."""

    choosing: bool = False
    """Whether the next backward pass chooses the places."""
    places: Places | None = None
    values: nn.Parameter
    _chosen: Tensor | None = None

    def make_room(self, count: int) -> RosaLinear:
        """Take the memory of `count` values, which train once they have places."""
        # of the base itself, before whatever another method puts in its place
        self._features = features(self.base)
        values = torch.zeros(count, device=self.device, dtype=self.down.dtype)
        self.values = nn.Parameter(values, requires_grad=False)
        return self

    def tensors(self) -> dict[str, nn.Parameter]:
        """A, B and the sparse values."""
        return {**super().tensors(), VALUES: self.values}

    def forward(self, x: Tensor) -> Tensor:
        """[..., m] -> [..., n] in the base's dtype."""
        output = super().forward(x)
        if not self.enabled:
            return output
        if self.places is not None:
            output = output + sparse_product(x, self.values, self.places).to(output.dtype)
        return watched(output, x, self.choose) if self.choosing else output

    def choose(self, x: Tensor, grad: Tensor) -> None:
        """Note where the gradient of W is largest; the first micro-batch of a step chooses."""
        if self._chosen is None:
            self._chosen = largest(gradient_rows(x, grad), len(self.values))

    def look_out(self, *, choosing: bool) -> None:
        """Choose in this step, or do not; what was chosen in a step that was not done is void."""
        self.choosing, self._chosen = choosing, None

    @property
    def chosen(self) -> Tensor | None:
        """Places in the flattened weight that this step's first micro-batch chose, on the CPU."""
        return None if self._chosen is None else self._chosen.cpu()

    def settle(self, chosen: Tensor | None) -> None:
        """Take the places that were chosen, if any; their values are zero and train from now on."""
        if chosen is None:
            return
        self.put(chosen)
        # with a gradient the optimizer makes its state now, and a checkpoint has it
        self.values.grad = torch.zeros_like(self.values)

    def put(self, flat: Tensor) -> None:
        """Take places as ascending positions in the flattened weight."""
        inputs, outputs = self._features
        self.places = Places.of_flat(flat.to(self.device), outputs=outputs, inputs=inputs)
        self.values.requires_grad_(True)
        self.look_out(choosing=False)

    def clear(self) -> None:
        """Have no places, as at the start."""
        self.places = None
        self.values.requires_grad_(False)

    def indices(self) -> dict[str, Tensor]:
        """Columns [k] and row pointers [n + 1] on the CPU, int32; all zero without places."""
        inputs, outputs = self._features
        if self.places is None:
            sizes = {COLUMNS: len(self.values), POINTERS: outputs + 1}
            return {name: torch.zeros(size, dtype=torch.int32) for name, size in sizes.items()}
        flat = self.places.flat().cpu()
        pointers = torch.bincount(flat // inputs, minlength=outputs).cumsum(0)
        return {
            COLUMNS: (flat % inputs).int(),
            POINTERS: torch.cat([pointers.new_zeros(1), pointers]).int(),
        }

    def load_indices(self, columns: Tensor, pointers: Tensor) -> None:
        """Take back what `indices` gave; `ModelError` where they are no places of this layer."""
        inputs, _ = self._features
        if not pointers.any():
            self.clear()
            return
        self.put(flat_places(columns, pointers, inputs=inputs))


def flat_places(columns: Tensor, pointers: Tensor, *, inputs: int) -> Tensor:
    """Ascending positions in the flattened weight [n, m] of k columns and n + 1 row pointers;
    `ModelError` if they are none."""
    counts = pointers.long().diff()
    sound = int(pointers[0]) == 0 and bool((counts >= 0).all())
    if sound and int(pointers[-1]) == len(columns):
        rows = torch.arange(len(counts)).repeat_interleave(counts.cpu())
        flat = rows * inputs + columns.long().cpu()
        inside = bool(((columns >= 0) & (columns < inputs)).all())
        if inside and bool((flat.diff() > 0).all()):
            return flat
    raise ModelError("the sparse part's indices are no places in its layer")


def split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the sparse part's tensors, the others) of an adapter file."""
    ends = (f".{VALUES}", f".{COLUMNS}", f".{POINTERS}")
    sparse = {name: tensor for name, tensor in tensors.items() if name.endswith(ends)}
    return sparse, {name: tensor for name, tensor in tensors.items() if name not in sparse}
