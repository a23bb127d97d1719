"""Which modules of a model are linear layers, and their sizes."""

from __future__ import annotations

from torch import nn

from qtune.ops.nf4 import is_transposed


def is_linear(module: nn.Module) -> bool:
    """nn.Linear, its 4-bit and 8-bit forms, and GPT-2's Conv1D."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def output_head(model: nn.Module) -> nn.Module | None:
    """The module that turns hidden states into logits, if the model tells."""
    getter = getattr(model, "get_output_embeddings", None)
    return getter() if getter is not None else None


def linear_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer except the output head, by full name, in module order."""
    head = output_head(model)
    return {
        name: module
        for name, module in model.named_modules()
        if is_linear(module) and module is not head
    }


def features(module: nn.Module) -> tuple[int, int]:
    """(in_features, out_features) of a linear layer of any kind."""
    if is_transposed(module):
        return int(module.nx), int(module.nf)  # type: ignore[arg-type]
    assert isinstance(module, nn.Linear)
    return module.in_features, module.out_features
