"""Small checkpoints to load, and to break."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qtune.models import Base, load
from qtune.recipe.inputs import ModelSection, QuantizationSection
from qtune.recipe.steps import ActivationPolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IDS = torch.arange(3, 43).reshape(2, 20)
CPU = torch.device("cpu")
INDEX = "model.safetensors.index.json"


def load_folder(
    folder: Path | str, *, activations: ActivationPolicy = "none", **quantization: Any
) -> Base:
    """Load with the recipe's defaults, in float32 unless told otherwise."""
    section = QuantizationSection(**{"compute_dtype": "float32", **quantization})
    model = ModelSection(name_or_path=str(folder))
    return load(model, section, device=CPU, activations=activations)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Logits in eval mode of the fixed ids."""
    return model.eval()(input_ids=IDS).logits


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """Rewrite the only weight file of a folder after a change of its tensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def edit_config(folder: Path, **changes: Any) -> Path:
    """Rewrite some keys of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


class Adapted(nn.Module):
    """A frozen linear with a low-rank addition: y = Wx + BAx, A and B in float32."""

    def __init__(self, base: nn.Module, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.base = base
        self.a = nn.Parameter(torch.randn(4, base.in_features, generator=generator) * 0.1)
        self.b = nn.Parameter(torch.randn(base.out_features, 4, generator=generator) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        addition = (x.float() @ self.a.t()) @ self.b.t()
        return self.base(x) + addition.to(x.dtype)


def adapt(model: Any) -> list[nn.Parameter]:
    """Wrap every query and down projection; returns the new parameters."""
    adapted = []
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.q_proj = Adapted(layer.self_attn.q_proj, seed=number)
        layer.mlp.down_proj = Adapted(layer.mlp.down_proj, seed=100 + number)
        adapted += [layer.self_attn.q_proj, layer.mlp.down_proj]
    return [parameter for module in adapted for parameter in (module.a, module.b)]


def gradients(model: Any, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Gradients of the mean loss in train mode; zeros where none arrived."""
    model.train()
    for parameter in parameters:
        parameter.grad = None
    model(input_ids=IDS, labels=IDS).loss.backward()
    return [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for parameter in parameters
    ]
