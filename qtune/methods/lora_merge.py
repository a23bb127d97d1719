"""The fold of a LoRA or DoRA adapter into dense weights, from its tensors alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from qtune.errors import ModelError
from qtune.methods.base import Edit
from qtune.methods.lora_scale import scale_of
from qtune.methods.peft_format import module_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from qtune.recipe.methods import LoraConfig

DOWN, UP, MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"


def edits(
    config: LoraConfig, tensors: Mapping[str, Tensor], *, fan_in_fan_out: bool
) -> dict[str, Edit]:
    """One edit for each adapted or replaced base parameter; `ModelError` for a lone half."""
    plan: dict[str, Edit] = {}
    for name, tensor in tensors.items():
        if name.endswith(DOWN):
            whole = name.removesuffix(DOWN)
            plan[f"{module_of(whole)}.weight"] = _update(
                config, tensors, whole, fan_in_fan_out=fan_in_fan_out
            )
        elif name.endswith((UP, MAGNITUDE)):
            suffix = UP if name.endswith(UP) else MAGNITUDE
            _require(tensors, name.removesuffix(suffix) + DOWN)
        else:
            plan[module_of(name)] = replacing(tensor)
    return plan


def _update(
    config: LoraConfig, tensors: Mapping[str, Tensor], whole: str, *, fan_in_fan_out: bool
) -> Edit:
    down, up = tensors[whole + DOWN], _require(tensors, whole + UP)
    magnitude = _require(tensors, whole + MAGNITUDE) if config.use_dora else None
    scale = scale_of(config, module_of(whole))

    def apply(base: Tensor | None) -> Tensor:
        assert base is not None, "needs_base"
        weight = base.t() if fan_in_fan_out else base
        weight = weight.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        merged = _fold(weight, down.float(), up.float(), scale=scale, magnitude=magnitude)
        return merged.t().contiguous() if fan_in_fan_out else merged

    def by_rows(base: Tensor | None, start: int, stop: int) -> Tensor:
        assert base is not None, "needs_base"
        if fan_in_fan_out:  # a row of W^T is a column of A
            return base.addmm_(down[:, start:stop].t().float(), up.t().float(), alpha=scale)
        norms = None if magnitude is None else magnitude[start:stop]
        return _fold(base, down.float(), up[start:stop].float(), scale=scale, magnitude=norms)

    shape = (len(up), down.shape[1])
    return Edit(
        True,
        apply,
        # DoRA's norm is that of a row of W, which a row of W^T does not hold
        by_rows=None if fan_in_fan_out and magnitude is not None else by_rows,
        shape=shape[::-1] if fan_in_fan_out else shape,
    )


def _fold(
    weight: Tensor, down: Tensor, up: Tensor, *, scale: float, magnitude: Tensor | None
) -> Tensor:
    """W + s B A, or m (W + s B A) / ||W + s B A||_row, in the place of W; all [n, m] fp32."""
    if weight.shape != (up.shape[0], down.shape[1]):
        raise ModelError(
            f"an update of {up.shape[0]}x{down.shape[1]} does not fit a weight of "
            f"{'x'.join(str(size) for size in weight.shape)}",
            hint="the adapter belongs to another base model",
        )
    merged = weight.addmm_(up, down, alpha=scale)
    if magnitude is None:
        return merged
    tiny = torch.finfo(torch.float32).tiny
    norm = torch.linalg.vector_norm(merged, dim=1).clamp_min(tiny)
    return merged.mul_((magnitude.float() / norm).unsqueeze(1))


def replacing(tensor: Tensor) -> Edit:
    """The edit of a parameter that was trained whole."""

    def by_rows(_: Tensor | None, start: int, stop: int) -> Tensor:
        return tensor[start:stop].float()

    shape = tuple(tensor.shape)
    rows = by_rows if shape else None
    return Edit(False, partial(_replace, tensor), by_rows=rows, shape=shape)


def _replace(tensor: Tensor, base: Tensor | None) -> Tensor:
    if base is not None and base.shape != tensor.shape:
        raise ModelError("a trained module has another shape than that of the base")
    return tensor.float()


def _require(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ModelError(f"the adapter file lacks {name}", hint="save or fetch it again")
    return tensors[name]
