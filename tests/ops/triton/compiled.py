"""Compile every launch of the kernels for cards, on any machine that has triton.

    TRITON_INTERPRET=0 python -m tests.ops.triton.compiled 80 90 100

Triton's compiler and its assembler need no card. The interpreter lets pass what they refuse, so
kernels that only it has run are not known to compile. Prints a line for each compiled kernel.
"""

from __future__ import annotations

import sys
from itertools import product
from typing import Any

import torch
from torch import Tensor

from qtune.ops import nf4
from qtune.ops.logits import Criterion
from qtune.ops.triton import cross_entropy, gated, jit, rms_norm, rotary
from qtune.ops.triton import nf4 as nf4_kernels

NAMES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.int64: "*i64",
}
FILES = (rms_norm, gated, nf4_kernels, cross_entropy, rotary)


def compiling(capability: int, found: list[str]) -> Any:
    """A stand-in for `launch` that compiles for a compute capability instead."""
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **fixed: Any) -> None:
        del grid
        names = kernel.arg_names
        options = {name: fixed.pop(name) for name in list(fixed) if name not in names}
        kinds = [_kind(each) for each in arguments] + ["constexpr"] * len(fixed)
        signature = dict(zip(names, kinds, strict=True))
        constants = {
            (number,): fixed.get(name, 1)
            for number, name in enumerate(names)
            if signature[name] == "constexpr"
        }
        source = ASTSource(kernel, signature, constants)
        options["enable_fp_fusion"] = False  # as `launch` does
        made = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        # multiplying and adding would fuse, and the bits of NF4 be others than bitsandbytes'
        assert kernel.__name__ != "_unfold" or "fma" not in made.asm["ptx"]
        assert made.asm["cubin"]
        found.append(f"{kernel.__module__.rpartition('.')[2]}{kernel.__name__} {fixed}")

    return launch


def _kind(argument: Any) -> str:
    """As the compiler sees an argument: a one is part of the kernel."""
    if isinstance(argument, Tensor):
        return NAMES[argument.dtype]
    if isinstance(argument, float):
        return "fp32"
    return "constexpr" if argument == 1 else "i32"


def launches(dtype: torch.dtype) -> None:
    """Each launch with sizes of an 8B model, on few rows."""
    x = torch.zeros(2, 4096, dtype=dtype)
    for rows in (x, x[:, :128], x[:1]):
        _, inverse = rms_norm.forward(rows, rows[0], 1e-6)
        rms_norm.again(rows, rows[0], inverse)
        rms_norm.backward(rows, rows, rows[0], inverse)
    for activation in ("silu", "gelu", "gelu_tanh"):
        gated.forward(x, x, activation)
        gated.backward_in_place(x, x, x, x, activation)
    for double_quant in (False, True):
        packed, state = nf4.quantize(
            torch.ones(64, 64, dtype=dtype), quant_type="nf4", double_quant=double_quant
        )
        nf4_kernels.unfold(packed, state)
    logits, target = torch.zeros(2, 32_000, dtype=dtype), torch.zeros(2, dtype=torch.long)
    for criterion in (Criterion(), Criterion(softcap=30.0)):
        cross_entropy.losses(logits, target, criterion)
        cross_entropy.losses_and_gradient_in_place(logits, target, criterion, factor=0.5)
    for keys, tokens, width, back in product((8, 1), (2, 1), (128, 96), (False, True)):
        query, key = (torch.zeros(1, heads, tokens, 128, dtype=dtype) for heads in (32, keys))
        angles = torch.zeros(1, tokens, width, dtype=dtype)
        rotary.rotate(query, key, angles, angles, back=back)


def main(capabilities: list[str]) -> None:
    """For each compute capability, such as 90."""
    found: list[str] = []
    for capability in capabilities:
        for file in FILES:
            file.launch = compiling(int(capability), found)  # type: ignore[attr-defined]
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            launches(dtype)
    sys.stdout.write("\n".join([f"triton {jit.VERSION}:", *found, ""]))


if __name__ == "__main__":
    main(sys.argv[1:])
