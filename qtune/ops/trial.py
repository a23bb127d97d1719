"""Which families of Triton's kernels a run takes: each is tried on the run's device first.

One that does not compile there, or gives other values or gradients than torch's operators, is left
to torch; so is unfolding NF4 where bitsandbytes, whose bits are the same, is faster.
"""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from qtune.errors import UsageError
from qtune.ops import gated_mlp, nf4, rms_norm, rotary
from qtune.ops.element_wise import FAMILIES, take, taking, why_torch
from qtune.ops.logits import Criterion

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from qtune.ops.element_wise import Family
    from qtune.recipe.steps import Kernels

FAR = 0.01
"""How far bf16 results of two right ways may be apart, in the 2-norm; rounding makes 0.004."""
TIMED = 4096
"""Rows and columns of the weight whose unfolding is timed."""


def choose(kernels: Kernels, device: torch.device) -> str:
    """Take what the recipe's `memory.kernels` asks for; the line for the log, with the reason."""
    take(())
    if kernels in ("plain", "fused"):
        return f"element by element: torch (memory.kernels is {kernels})"
    reason = why_torch(device)
    if kernels == "auto" and device.type != "cuda":
        reason = "no CUDA device"  # interpreted kernels are for those who ask for them
    if reason is None:
        against = {family: why_not(family, device) for family in FAMILIES}
        taken = [family for family, why in against.items() if why is None]
        take(taken)
        left = [f"{family} by torch ({why})" for family, why in against.items() if why]
        if taken:
            said = "; ".join([", ".join(taken), *left])
            return f"element by element: Triton {_version()}: {said}"
        reason = "; ".join(left)
    if kernels == "triton":
        raise UsageError(reason, place="memory.kernels", hint="set it to auto or fused")
    return f"element by element: torch ({reason})"


def why_not(family: Family, device: torch.device) -> str | None:
    """What speaks against a family's kernels on a device; None if nothing does."""
    try:
        with taking(()):
            wanted = _TRIALS[family](device)
        with taking({family}):
            found = _TRIALS[family](device)
        far = max(map(_distance, found, wanted))
        if not far <= (0.0 if family == "nf4" else FAR):
            return f"its results are {far:.1%} off"
    except Exception as error:  # whatever a compiler or a driver raises
        told = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {told[0]}"[:160]
    if family == "nf4" and device.type == "cuda" and (speed := unfolding_speed(device)) < 1.0:
        return f"{speed:.2f} x the speed of bitsandbytes"
    return None


def unfolding_speed(device: torch.device, rounds: int = 15) -> float:
    """How many times faster than bitsandbytes the kernel unfolds a large weight."""
    packed, state = nf4.quantize(_drawn(device, TIMED, TIMED), quant_type="nf4", double_quant=True)
    times: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds):
        for by_kernel, taken in times.items():
            with taking({"nf4"} if by_kernel else ()):
                torch.cuda.synchronize(device)
                start = time.perf_counter()
                for _ in range(5):
                    nf4.dequantize(packed, state)
                torch.cuda.synchronize(device)
                if number >= rounds // 3:
                    taken.append(time.perf_counter() - start)
    return median(times[False]) / median(times[True])


def _version() -> str | None:
    from qtune.ops.triton.jit import VERSION

    return VERSION


def _distance(found: Tensor, wanted: Tensor) -> float:
    """Relative difference in the 2-norm; not a number if one of them is none."""
    wanted = wanted.double()
    return float((found.double() - wanted).norm() / wanted.norm())


def _drawn(device: torch.device, *shape: int) -> Tensor:
    """Normal numbers in bf16."""
    draw = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=draw).bfloat16().to(device)


def _both(outputs: tuple[Tensor, ...], inputs: list[Tensor]) -> list[Tensor]:
    """Outputs, and the inputs' gradients of fixed ones of them."""
    seeds = [_drawn(output.device, *output.shape) for output in outputs]
    return [*(output.detach() for output in outputs), *torch.autograd.grad(outputs, inputs, seeds)]


def _norm(device: torch.device) -> list[Tensor]:
    x = _drawn(device, 37, 320).requires_grad_()
    return _both((rms_norm.fused(x, _drawn(device, 320), 1e-6),), [x])


def _gated(device: torch.device) -> list[Tensor]:
    found = []
    for activation in gated_mlp.ACTIVATIONS:
        layers = []
        for out, inner in ((96, 64), (96, 64), (64, 96)):
            layer = nn.Linear(inner, out, bias=False, device=device, dtype=torch.bfloat16)
            layer.weight.data = _drawn(device, out, inner) * inner**-0.5
            layers.append(layer.requires_grad_(requires_grad=False))
        x = _drawn(device, 19, 64).requires_grad_()
        mlp = gated_mlp.Mlp(layers[0], layers[1], layers[2], activation)
        found += _both((gated_mlp.fused(x, mlp),), [x])
    return found


def _rotary(device: torch.device) -> list[Tensor]:
    query, key = (
        _drawn(device, 2, 9, heads, 32).transpose(1, 2).requires_grad_() for heads in (4, 2)
    )
    angles = _drawn(device, 2, 9, 24)
    return _both(rotary.fused(query, key, angles.cos(), angles.sin()), [query, key])


def _nf4(device: torch.device) -> list[Tensor]:
    packed, state = nf4.quantize(_drawn(device, 160, 192), quant_type="nf4", double_quant=True)
    return [nf4.dequantize(packed, state)]


def _cross_entropy(device: torch.device) -> list[Tensor]:
    criterion = Criterion(softcap=5.0, label_smoothing=0.1, z_loss=1e-2)
    target = torch.arange(11, device=device) * 97
    return list(criterion.losses_and_gradient(_drawn(device, 11, 5003), target, factor=0.1))


_TRIALS: dict[Family, Callable[[torch.device], list[Any]]] = {
    "rms_norm": _norm,
    "gated": _gated,
    "rotary": _rotary,
    "nf4": _nf4,
    "cross_entropy": _cross_entropy,
}
