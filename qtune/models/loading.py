"""Load a base model tensor by tensor: read, cast, quantise, place; one dense one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qtune.errors import ModelError
from qtune.models.base import Base, inventory
from qtune.models.files import resolve, shard_index
from qtune.models.fingerprint import fingerprint
from qtune.models.preparation import freeze, use_checkpointing
from qtune.models.skeleton import build, exchange
from qtune.ops.nf4 import library, quantize, quantize_int8

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qtune.recipe.sections import ModelSection, QuantizationSection


def load(
    model: ModelSection,
    quantization: QuantizationSection,
    *,
    device: torch.device,
    gradient_checkpointing: bool,
    on_progress: Callable[[int, int], None] | None = None,
) -> Base:
    """The frozen base of a recipe; `on_progress(done, total)` counts tensors."""
    folder = resolve(model)
    dtype = getattr(torch, quantization.compute_dtype)
    network = build(folder, model, dtype=dtype)
    exchange(network, quantization)
    _fill(network, shard_index(folder), quantization, device, on_progress)
    network.tie_weights(recompute_mapping=False)
    freeze(network)
    if gradient_checkpointing:
        use_checkpointing(network)
    return Base(network, model, quantization, inventory(network), fingerprint(folder))


def _fill(
    network: Any,
    index: dict[str, Path],
    quantization: QuantizationSection,
    device: torch.device,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    from safetensors import safe_open

    done = 0
    for file in sorted(set(index.values())):
        with safe_open(file, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118
                place(network, name, shard.get_tensor(name), quantization, device)
                done += 1
                if on_progress is not None:
                    on_progress(done, len(index))
    for name, buffer in network.named_non_persistent_buffers():
        owner, leaf = _owner(network, name)
        owner._buffers[leaf] = torch.empty_like(buffer, device=device)
    for tensor in (*network.parameters(), *network.buffers()):
        tensor._is_hf_initialized = tensor.device.type != "meta"
    for name, _ in network.named_non_persistent_buffers():
        network.get_buffer(name)._is_hf_initialized = False
    network.initialize_weights()


def place(
    network: nn.Module,
    name: str,
    value: Tensor,
    quantization: QuantizationSection,
    device: torch.device,
) -> None:
    """Cast one checkpoint tensor, quantise it where its layer wants that, and put it there."""
    owner, leaf = _owner(network, name)
    if leaf in owner._buffers:
        owner._buffers[leaf] = value.to(device, owner._buffers[leaf].dtype, copy=True)
        return
    target = owner._parameters.get(leaf)
    if target is None:
        raise ModelError(f"the checkpoint holds {name}, which the model has not")
    layers = library().nn
    dense = value.to(device, getattr(torch, quantization.compute_dtype), copy=True)
    if leaf == "weight" and isinstance(owner, layers.Linear4bit):
        packed, state = quantize(
            dense, quant_type=quantization.quant_type, double_quant=quantization.double_quant
        )
        owner.weight = layers.Params4bit(
            packed,
            quant_state=state,
            compress_statistics=quantization.double_quant,
            quant_type=quantization.quant_type,
            module=owner,
            bnb_quantized=True,
        )
        owner.quant_state = state
    elif leaf == "weight" and isinstance(owner, layers.Linear8bitLt):
        codes, maxima = quantize_int8(dense)
        owner.weight = layers.Int8Params(codes, requires_grad=False, CB=codes, SCB=maxima)
    else:
        owner._parameters[leaf] = nn.Parameter(dense.to(target.dtype), requires_grad=False)


def _owner(network: nn.Module, name: str) -> tuple[Any, str]:
    parent, _, leaf = name.rpartition(".")
    try:
        return network.get_submodule(parent), leaf
    except AttributeError as error:
        raise ModelError(f"the checkpoint holds {name}, which the model has not") from error
