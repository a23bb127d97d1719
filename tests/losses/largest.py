"""What the largest tensor is that a computation makes."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """The most elements of one result of an operator, weights apart."""

    def __init__(self, *models: Any) -> None:
        super().__init__()
        weights = (weight for model in models for weight in model.parameters())
        self.weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self.elements = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        del types
        result = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and (
                tensor.untyped_storage().data_ptr() not in self.weights
            ):
                self.elements = max(self.elements, tensor.numel())
        return result
