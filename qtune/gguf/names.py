"""Tensor names of transformers and of GGUF, and the order of the rows of queries and keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qtune.errors import ModelError
from qtune.gguf.architecture import model_arch
from qtune.gguf.library import library

if TYPE_CHECKING:
    from torch import Tensor

    from qtune.gguf.architecture import Shape

TABLES = re.compile(r"\.rotary_emb\.inv_freq$")  # old checkpoints keep these; they are computed
_QUERIES, _KEYS = "self_attn.q_proj", "self_attn.k_proj"


class Names:
    """The names of one model's tensors in both worlds, and how each tensor is laid out."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._map = library().get_tensor_name_map(model_arch(shape.architecture), shape.layers)

    def to_gguf(self, name: str) -> str:
        """`blk.0.attn_q.weight` of `model.layers.0.self_attn.q_proj.weight`; `ModelError`."""
        found = self._map.get_name(name, try_suffixes=(".weight", ".bias"))
        if not isinstance(found, str):
            raise ModelError(
                f"GGUF has no name for {name} in the architecture {self._shape.architecture.name}",
                hint="export the adapter or the merged folder instead",
            )
        return found

    def reorder(self, name: str, tensor: Tensor) -> Tensor:
        """Rows [out, ...] as llama.cpp wants them: of each head, channel i beside i + d/2."""
        heads = self._heads(name)
        if not heads:
            return tensor
        rows, rest = tensor.shape[0], tensor.shape[1:]
        halves = tensor.reshape(heads, 2, rows // heads // 2, *rest)
        return halves.swapaxes(1, 2).reshape(tensor.shape).contiguous()

    def restore(self, name: str, tensor: Tensor) -> Tensor:
        """The inverse of `reorder`: rows as transformers has them."""
        heads = self._heads(name)
        if not heads:
            return tensor
        rows, rest = tensor.shape[0], tensor.shape[1:]
        pairs = tensor.reshape(heads, rows // heads // 2, 2, *rest)
        return pairs.swapaxes(1, 2).reshape(tensor.shape).contiguous()

    def _heads(self, name: str) -> int:
        """Into how many heads the rows of a tensor (transformers' name) are reordered, or 0."""
        if not self._shape.architecture.reordered:
            return 0
        if _QUERIES in name:
            return self._shape.heads
        return self._shape.key_heads if _KEYS in name else 0
