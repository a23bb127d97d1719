"""Which modules of a model are linear layers, and their sizes."""

from __future__ import annotations

from torch import nn

from qtune.ops.nf4 import is_transposed

OF_IMAGES = "ForImageClassification"
CLASSIFIERS = ("ForSequenceClassification", OF_IMAGES)
"""How the names of transformers' classes end that give labels."""


def is_linear(module: nn.Module) -> bool:
    """nn.Linear, its 4-bit and 8-bit forms, and GPT-2's Conv1D."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def output_head(model: nn.Module) -> nn.Module | None:
    """The module that turns hidden states into logits, if the model tells."""
    getter = getattr(model, "get_output_embeddings", None)
    return getter() if getter is not None else None


def class_heads(model: nn.Module) -> list[str]:
    """Full names of what a classifier computes its labels with behind its base, the base's pooler
    included; none of a language model."""
    if not type(model).__name__.endswith(CLASSIFIERS):
        return []
    prefix = str(model.base_model_prefix)
    own = [name for name, child in model.named_children() if name != prefix]
    pooled = f"{prefix}.pooler"
    names = [name for name, _ in model.named_modules() if name == pooled or name in own]
    return [name for name in names if any(True for _ in model.get_submodule(name).parameters())]


def linear_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer except those of the output head, by full name, in module order."""
    head = output_head(model)
    within = tuple(f"{name}." for name in class_heads(model))
    return {
        name: module
        for name, module in model.named_modules()
        if is_linear(module) and module is not head and not f"{name}.".startswith(within)
    }


def features(module: nn.Module) -> tuple[int, int]:
    """(in_features, out_features) of a linear layer of any kind."""
    if is_transposed(module):
        return int(module.nx), int(module.nf)  # type: ignore[arg-type]
    assert isinstance(module, nn.Linear)
    return module.in_features, module.out_features
