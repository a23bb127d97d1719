"""The part `kernels` of the GPU benchmark: each Triton kernel against the plain form.

Plain is the definition by torch's operators under autograd, and bitsandbytes for NF4. Times are of
forward and backward together; `gb_s` counts the bytes that must be read and written at least; `off`
is the relative difference of bf16 results, by how each form rounds.
On a CPU: TRITON_INTERPRET=1 python scripts/bench/gpu.py --small --only kernels
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from qtune.ops import gated_mlp, nf4, rms_norm, rotary, trial
from qtune.ops.element_wise import taking, why_torch
from qtune.ops.logits import Criterion

if TYPE_CHECKING:
    from collections.abc import Callable

    import random_model
    from torch import Tensor

    from qtune.ops.element_wise import Family

BF16 = torch.bfloat16
FACTOR = 1e-3


class Case(NamedTuple):
    """One kernel at one shape: both forms give what they made, gradients included."""

    family: Family
    plain: Callable[[], list[Tensor]]
    kernel: Callable[[], list[Tensor]]
    least_bytes: int


def measure(
    shape: random_model.Shape,
    tokens: int,
    device: torch.device,
    seconds: Callable[[Callable[[], Any], torch.device], float],
) -> dict[str, Any]:
    """What a run would choose, and the figures of each kernel."""
    reason = why_torch(device)
    if reason is not None:
        return {"left_out": reason}
    found: dict[str, Any] = {}
    for name, make in _cases(shape, tokens, device).items():
        try:
            found[name] = _measured(make(), device, seconds)
        except Exception as error:  # one kernel that breaks leaves the others their figures
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
        if device.type == "cuda":
            torch.cuda.empty_cache()
    with taking(()):
        chosen = trial.choose("auto" if device.type == "cuda" else "triton", device)
    return {"chosen": chosen, "tokens": tokens, "runs": found}


def _measured(
    case: Case, device: torch.device, seconds: Callable[[Callable[[], Any], torch.device], float]
) -> dict[str, Any]:
    with taking(()):
        wanted = [each.double() for each in case.plain()]
        plain = seconds(case.plain, device)
    with taking({case.family}):
        made = case.kernel()
        off = max(
            float((one.double() - other).norm() / other.norm())
            for one, other in zip(made, wanted, strict=True)
        )
        del made, wanted
        triton = seconds(case.kernel, device)
    return {
        "speed_up": round(plain / triton, 3),
        "plain_ms": round(1e3 * plain, 4),
        "triton_ms": round(1e3 * triton, 4),
        "gb_s": round(case.least_bytes / triton / 1e9, 1),
        "off": float(f"{off:.1e}"),
    }


def _cases(
    shape: random_model.Shape, tokens: int, device: torch.device
) -> dict[str, Callable[[], Case]]:
    size = shape.hidden // shape.heads
    linears = {name.split(".")[-1]: sizes for name, sizes in shape.linears.items()}
    return {
        "rms_norm": lambda: _norm(device, tokens, shape.hidden),
        "rms_norm of heads": lambda: _norm(device, tokens * shape.heads, size),
        **{
            f"gated {activation}": lambda name=activation: _gated(  # type: ignore[misc]
                device, (tokens, shape.width), name
            )
            for activation in gated_mlp.ACTIVATIONS
        },
        "rotary": lambda: _rotary(device, tokens, (shape.heads, shape.key_value_heads), size),
        **{
            f"nf4 {name}": lambda sizes=linears[name]: _nf4(device, sizes)  # type: ignore[misc]
            for name in ("k_proj", "q_proj", "gate_proj")
        },
        "cross_entropy": lambda: _loss(device, min(tokens, 1024), shape.vocabulary, Criterion()),
        "cross_entropy capped, smoothed, z": lambda: _loss(
            device,
            min(tokens, 1024),
            shape.vocabulary,
            Criterion(softcap=30.0, label_smoothing=0.1, z_loss=1e-4),
        ),
    }


def _drawn(device: torch.device, *shape: int) -> Tensor:
    return torch.randn(shape, device=device, dtype=BF16)


def _both(function: Callable[..., Any], inputs: list[Tensor], seeds: list[Tensor]) -> list[Tensor]:
    """Outputs and gradients."""
    leaves = [each.detach().requires_grad_() for each in inputs]
    made = function(*leaves)
    made = made if isinstance(made, tuple) else (made,)
    return [*(each.detach() for each in made), *torch.autograd.grad(made, leaves, seeds)]


def _norm(device: torch.device, rows: int, width: int) -> Case:
    x, seed, weight = (_drawn(device, *size) for size in ((rows, width), (rows, width), (width,)))
    return Case(
        "rms_norm",
        lambda: _both(lambda x: rms_norm.plain(x, weight, 1e-6), [x], [seed]),
        lambda: _both(lambda x: rms_norm.fused(x, weight, 1e-6), [x], [seed]),
        5 * x.nbytes,
    )


def _gated(device: torch.device, size: tuple[int, int], activation: str) -> Case:
    from qtune.ops.triton import gated

    gate, up, seed = (_drawn(device, *size) for _ in range(3))
    act = gated_mlp.ACTIVATIONS[activation].forward

    def kernel() -> list[Tensor]:
        """What a block's two passes launch: the product is made again in the second."""
        made = gated.forward(gate, up, activation)
        into, again = seed.clone(), made.clone()
        gated.backward_in_place(into, again, gate, up, activation)
        return [made, into, again]

    return Case(
        "gated",
        lambda: _both(lambda gate, up: act(gate) * up, [gate, up], [seed]),
        kernel,
        8 * gate.nbytes,
    )


def _rotary(device: torch.device, tokens: int, heads: tuple[int, int], size: int) -> Case:
    inputs, seeds = (
        [_drawn(device, 1, tokens, count, size).transpose(1, 2) for count in heads]
        for _ in range(2)
    )
    angles = torch.rand(1, tokens, size // 2, device=device).mul_(6.28).repeat(1, 1, 2)
    cos, sin = angles.cos().to(BF16), angles.sin().to(BF16)
    return Case(
        "rotary",
        lambda: _both(lambda q, k: rotary.plain(q, k, cos, sin), inputs, seeds),
        lambda: _both(lambda q, k: rotary.fused(q, k, cos, sin), inputs, seeds),
        4 * sum(each.nbytes for each in inputs),
    )


def _nf4(device: torch.device, sizes: tuple[int, int]) -> Case:
    packed, state = nf4.quantize(_drawn(device, *sizes), quant_type="nf4", double_quant=True)

    def unfolded() -> list[Tensor]:
        return [nf4.dequantize(packed, state)]

    return Case("nf4", unfolded, unfolded, packed.nbytes * 5 + state.absmax.nbytes)


def _loss(device: torch.device, count: int, vocabulary: int, criterion: Criterion) -> Case:
    raw = _drawn(device, count, vocabulary)
    target = torch.randint(vocabulary, (count,), device=device)
    seed = torch.full((count,), FACTOR, device=device)
    own = raw.clone()
    given = [raw]  # the kernel writes over what it is given: the first time it is not `own`

    def kernel() -> list[Tensor]:
        logits = given.pop().clone() if given else own
        return list(criterion.losses_and_gradient(logits, target, factor=FACTOR))

    return Case(
        "cross_entropy",
        lambda: _both(lambda raw: criterion.losses(raw, target), [raw], [seed]),
        kernel,
        3 * raw.nbytes,
    )
