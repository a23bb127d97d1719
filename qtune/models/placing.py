"""Put one checkpoint tensor where it belongs: cast, quantised, on its device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qtune.errors import ModelError
from qtune.models.skeleton import keeps_fp32
from qtune.ops.nf4 import bits_of, first_non_finite, library, quantize, quantize_int8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qtune.recipe.inputs import QuantizationSection


def place(
    network: Any, name: str, stored: Tensor, quantization: QuantizationSection, device: torch.device
) -> None:
    """Move a dense tensor into the model, quantised where its layer wants; may keep it itself."""
    owner, leaf = owner_of(network, name)
    value = stored if device.type == "cpu" else stored.to(device)
    check_finite(name, value)
    bits = bits_of(owner) if leaf == "weight" else 16
    if bits == 4:
        _set_4bit(owner, value, quantization)
    elif bits == 8:
        dtype = getattr(torch, quantization.compute_dtype)
        set_8bit(owner, *quantize_int8(value, dtype=dtype))
    elif leaf in owner._buffers:
        owner._buffers[leaf] = value.to(owner._buffers[leaf].dtype)
    else:
        dtype = torch.float32 if keeps_fp32(network, name) else owner._parameters[leaf].dtype
        owner._parameters[leaf] = nn.Parameter(value.to(dtype), requires_grad=False)


def place_packed(
    network: Any,
    name: str,
    parts: Mapping[str, Tensor],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Move a weight that is stored quantised; `parts` holds `weight` and its constants."""
    owner, _ = owner_of(network, name)
    for constant, part in parts.items():
        if constant != "weight":  # codes may be stored under a float's name, for sharding
            check_finite(f"{name} ({constant})", part)
    constants = dict(parts)
    weight = constants.pop("weight")
    if bits_of(owner) == 8:
        set_8bit(owner, weight.to(device), constants["SCB"].to(device, torch.float32))
        return
    layers = library().nn
    owner.weight = layers.Params4bit.from_prequantized(
        weight, constants, requires_grad=False, device=device, module=owner
    )
    # One dtype for the forward and the backward pass, whatever the quantiser computed in.
    owner.weight.quant_state.dtype = dtype


def _set_4bit(layer: Any, value: Tensor, quantization: QuantizationSection) -> None:
    packed, state = quantize(
        value,
        quant_type=quantization.quant_type,
        double_quant=quantization.double_quant,
        dtype=getattr(torch, quantization.compute_dtype),
    )
    layer.weight = library().nn.Params4bit(
        packed,
        quant_state=state,
        compress_statistics=quantization.double_quant,
        quant_type=quantization.quant_type,
        module=layer,
        bnb_quantized=True,
    )
    layer.quant_state = state


def set_8bit(layer: Any, codes: Tensor, maxima: Tensor) -> None:
    """Give an 8-bit layer its codes [out, in] and row maxima [out]."""
    layer.weight = library().nn.Int8Params(codes, requires_grad=False, CB=codes, SCB=maxima)


def check_finite(name: str, value: Tensor, *, first: int = 0, of: int | None = None) -> None:
    """`ModelError` naming the tensor that holds a NaN or an infinity; `value` may be a piece of it,
    from element `first` on, `of` so many."""
    if not value.is_floating_point():
        return
    position = first_non_finite(value)
    if position is not None:
        found = value.reshape(-1)[position].item()
        raise ModelError(
            f"{name} holds {found} (element {first + position} of {of or value.numel()})",
            hint="these weights are broken; take another copy",
        )


def owner_of(network: nn.Module, name: str) -> tuple[Any, str]:
    """The module that holds a tensor, and the tensor's own name there."""
    parent, _, leaf = name.rpartition(".")
    return network.get_submodule(parent), leaf
