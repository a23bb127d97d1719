"""What torch.compile would give on a CPU: each element-wise op of a layer, as it is and compiled.

    python scripts/bench/compiled.py [--tokens 1049] [--rounds 30] [--output FILE]

The functions are those of `qtune.ops`, written down plainly for the compiler; they take turns. The
last line adds up what one layer of size S would gain, and for how long the compiler works first.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from qtune.ops import gated_mlp, rms_norm, rotary

if TYPE_CHECKING:
    from collections.abc import Callable

HIDDEN, MLP, HEADS = 1024, 2816, 16
CALLS = {"norm": 4, "norm back": 2, "gated": 1, "gated back": 1, "rotary": 2}
"""How often a layer's step calls each; the norm is made again in the backward pass."""


def norm(x: Any, weight: Any) -> Any:
    """RMSNorm and 1/rms."""
    wide = x.float()
    inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    return (wide * inverse).to(x.dtype) * weight, inverse


def norm_back(gradient: Any, x: Any, weight: Any, inverse: Any) -> Any:
    """The gradient of its input."""
    normal, wide = x.float() * inverse, gradient.float() * weight.float()
    along = (wide * normal).mean(-1, keepdim=True)
    return ((wide - normal * along) * inverse).to(gradient.dtype)


def gated(gate: Any, up: Any) -> Any:
    """SwiGLU."""
    return functional.silu(gate) * up


def gated_back(gradient: Any, gate: Any, up: Any) -> Any:
    """The gradients of gate and up."""
    acted = functional.silu(gate)
    into_gate = torch.ops.aten.silu_backward(gradient * up, gate)
    return into_gate, gradient * acted


def turned(query: Any, key: Any, cos: Any, sin: Any) -> Any:
    """Rotary positions."""
    return rotary.plain(query, key, cos, sin)


def gated_back_now(gradient: Any, gate: Any, up: Any) -> Any:
    """As `gated_mlp` does it around the products."""
    function = gated_mlp.ACTIVATIONS["silu"]
    acted = function.forward(gate)
    into_up = acted.mul_(gradient)
    return function.backward(gradient.clone().mul_(up), gate), into_up


def pairs(tokens: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Each op as qtune runs it, and compiled, on random inputs."""
    x, gradient = (torch.randn(tokens, HIDDEN).bfloat16() for _ in range(2))
    weight = torch.randn(HIDDEN).bfloat16()
    gate, up, inner = (torch.randn(tokens, MLP).bfloat16() for _ in range(3))
    shape = (1, tokens, HEADS, HIDDEN // HEADS)
    query, key = (torch.randn(shape).bfloat16().transpose(1, 2) for _ in range(2))
    cos, sin = (torch.randn(1, tokens, HIDDEN // HEADS).bfloat16() for _ in range(2))
    _, inverse = norm(x, weight)
    seed = gradient.clone()
    asked = x.clone().requires_grad_()
    graph = rms_norm.fused(asked, weight, 1e-6)

    def back_now() -> Any:
        return torch.autograd.grad(graph, asked, seed, retain_graph=True)

    by = {name: torch.compile(one, dynamic=True) for name, one in FUNCTIONS.items()}
    return {
        "norm": (lambda: rms_norm.fused(x, weight, 1e-6), lambda: by["norm"](x, weight)),
        "norm back": (back_now, lambda: by["norm back"](gradient, x, weight, inverse)),
        "gated": (lambda: functional.silu(gate).mul_(up), lambda: by["gated"](gate, up)),
        "gated back": (
            lambda: gated_back_now(inner, gate, up),
            lambda: by["gated back"](inner, gate, up),
        ),
        "rotary": (
            lambda: rotary.plain(query, key, cos, sin),
            lambda: by["rotary"](query, key, cos, sin),
        ),
    }


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "norm": norm,
    "norm back": norm_back,
    "gated": gated,
    "gated back": gated_back,
    "rotary": turned,
}


def seconds(function: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@torch.no_grad()
def measure(tokens: int, rounds: int) -> dict[str, Any]:
    """Medians in milliseconds, and seconds until everything is compiled."""
    with torch.enable_grad():
        both = pairs(tokens)
    warm = sum(seconds(compiled) for _, compiled in both.values())
    found: dict[str, Any] = {}
    for name, (now, compiled) in both.items():
        times = [(seconds(now), seconds(compiled)) for _ in range(rounds)]
        found[name] = [round(median(column) * 1e3, 3) for column in zip(*times, strict=True)]
    gain = sum(CALLS[name] * (now - compiled) for name, (now, compiled) in found.items())
    return {"tokens": tokens, "warm_up_seconds": round(warm, 1), "milliseconds": found} | {
        "gain_a_layer_milliseconds": round(gain, 2)
    }


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=1049)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.tokens, arguments.rounds)
    for name, (now, compiled) in found["milliseconds"].items():
        print(f"{name:12} {now:8.3f} ms {compiled:8.3f} ms compiled")
    print(f"a layer: {found['gain_a_layer_milliseconds']} ms; {found['warm_up_seconds']} s before")
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
