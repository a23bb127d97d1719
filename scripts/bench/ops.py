"""Each op of qtune/ops, as defined (plain) against fused, and both against the matmul ceiling.

    python scripts/bench/ops.py [--size S] [--tokens 1024] [--rounds 7] [--output FILE.json]

Forward and backward of one op on tensors of the model sizes of workload.py, plain, fused and the
bare products taking turns. The ceiling of an op is the time of the products with its frozen
weights, held in bf16: forward and to the input. Speed-ups are medians of the rounds' own ratios.
`kept` is what waits for the backward pass, per token, weights apart.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pictures
import torch
import workload
from torch import Tensor, nn

from qtune.methods.lora_linear import LoraLinear
from qtune.ops import document_attention, gated_mlp, lora_linear, rms_norm
from qtune.ops.cross_entropy import fused_cross_entropy, plain_cross_entropy
from qtune.ops.logits import Criterion
from qtune.ops.nf4 import library, quantize

if TYPE_CHECKING:
    from collections.abc import Callable

BF16 = torch.bfloat16
DOCUMENT = 128  # tokens of each document, as alpaca's mean
LEARNT = 2  # one position in so many is learnt


@dataclass(frozen=True)
class Case:
    """One op at one size: a function of no arguments each, which returns what is differentiated.

    `weights`: (outputs, inputs, rows) of the frozen products that no form of it can avoid.
    """

    plain: Callable[[], Tensor]
    fused: Callable[[], Tensor]
    weights: tuple[tuple[int, int, int], ...]


def adapted(outputs: int, inputs: int) -> LoraLinear:
    """An NF4 linear with a LoRA adapter away from its start."""
    weight = torch.randn(outputs, inputs).mul_(0.02).to(BF16)
    layers = library().nn
    base: Any = layers.Linear4bit(inputs, outputs, bias=False, compute_dtype=BF16)
    packed, state = quantize(weight, quant_type="nf4", double_quant=True)
    base.weight = layers.Params4bit(
        packed, requires_grad=False, quant_state=state, bnb_quantized=True, module=base
    )
    base.support_avx512bf16_for_cpu = False
    layer = LoraLinear(
        base,
        rank=workload.RANK,
        scale=1.0,
        dropout=0.0,
        dtype=torch.float32,
        generator=torch.Generator().manual_seed(0),
    )
    nn.init.normal_(layer.up, std=0.02)
    return layer


def values(*shape: int) -> Tensor:
    """Random bf16 inputs that want a gradient."""
    return torch.randn(*shape, dtype=BF16).requires_grad_()


def linears(size: workload.Size, tokens: int, *names: str) -> Case:
    """Adapted projections of one input."""
    shapes = [size.linears()[name] for name in names]
    layers = [adapted(*shape) for shape in shapes]
    x = values(1, tokens, shapes[0][1])
    return Case(
        lambda: torch.cat(lora_linear.plain(x, layers), -1),
        lambda: torch.cat(lora_linear.fused(x, layers), -1),
        tuple((*shape, tokens) for shape in shapes),
    )


def mlp(size: workload.Size, tokens: int, *, recompute: bool) -> Case:
    """The gated MLP, keeping its products or making them again."""
    shapes = [size.linears()[name] for name in ("gate_proj", "up_proj", "down_proj")]
    block = gated_mlp.Mlp(*(adapted(*shape) for shape in shapes), activation="silu")
    x = values(1, tokens, size.hidden)
    return Case(
        lambda: gated_mlp.plain(x, block),
        lambda: gated_mlp.fused(x, block, recompute=recompute),
        tuple((*shape, tokens) for shape in shapes),
    )


def attention(size: workload.Size, tokens: int, *, prefix: int = 0) -> Case:
    """Causal attention of packed documents, plain: sdpa with a mask that is there already.

    What it must compute has no frozen weight. `prefix`: tokens that all documents stand behind.
    """
    count = max(1, (tokens - prefix) // DOCUMENT)
    length = (tokens - prefix) // count
    parts = [values(1, size.heads, tokens, size.hidden // size.heads) for _ in range(3)]
    documents = [
        document_attention.Document(0, begin, begin + length, 0, prefix)
        for begin in range(prefix, prefix + count * length, length)
    ]
    if prefix:
        documents.insert(0, document_attention.Document(0, 0, prefix))
    mask = torch.eye(tokens, dtype=torch.bool)
    for _, begin, end, behind, behind_end in documents:
        mask[begin:end, begin:end] = mask[begin:end, behind:behind_end] = True
    mask = mask.tril()[None, None]
    scale = (size.hidden // size.heads) ** -0.5
    return Case(
        lambda: nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask, scale=scale),
        lambda: document_attention.fused(*parts, tuple(documents), scale=scale),
        (),
    )


def norm(size: workload.Size, tokens: int) -> Case:
    """RMSNorm; as it keeps what it is given, the count of kept bytes has its input, too."""
    x, weight = values(1, tokens, size.hidden), torch.ones(size.hidden, dtype=BF16)
    return Case(
        lambda: rms_norm.plain(x, weight, 1e-6), lambda: rms_norm.fused(x, weight, 1e-6), ()
    )


def head(size: workload.Size, tokens: int) -> Case:
    """Head and cross-entropy on the learnt positions; plain has all positions' logits."""
    layer = nn.Linear(size.hidden, size.vocabulary, bias=False, dtype=BF16).requires_grad_(False)
    hidden = values(tokens, size.hidden)
    targets = torch.randint(size.vocabulary, (tokens,))
    learnt = torch.arange(0, tokens, LEARNT)
    ignored = targets.clone()
    ignored[1::LEARNT] = -100

    def everywhere() -> Tensor:
        return nn.functional.cross_entropy(layer(hidden).float(), ignored, reduction="sum")

    def supervised() -> Tensor:
        return fused_cross_entropy(
            hidden[learnt], targets[learnt], layer, Criterion(), chunk_size=1024
        )

    return Case(everywhere, supervised, ((size.vocabulary, size.hidden, len(learnt)),))


def head_learnt(size: workload.Size, tokens: int) -> Case:
    """Head and cross-entropy, both on the learnt positions alone."""
    layer = nn.Linear(size.hidden, size.vocabulary, bias=False, dtype=BF16).requires_grad_(False)
    count = tokens // LEARNT
    hidden, targets = values(count, size.hidden), torch.randint(size.vocabulary, (count,))
    return Case(
        lambda: plain_cross_entropy(hidden, targets, layer, Criterion()),
        lambda: fused_cross_entropy(hidden, targets, layer, Criterion(), chunk_size=1024),
        ((size.vocabulary, size.hidden, count),),
    )


CASES: dict[str, Callable[[workload.Size, int], Case]] = {
    "lora q, k, v": lambda size, tokens: linears(size, tokens, "q_proj", "k_proj", "v_proj"),
    "lora o": lambda size, tokens: linears(size, tokens, "o_proj"),
    "gated MLP": lambda size, tokens: mlp(size, tokens, recompute=False),
    "gated MLP, recomputed": lambda size, tokens: mlp(size, tokens, recompute=True),
    "attention of documents": attention,
    "attention behind a prefix": lambda size, tokens: attention(size, tokens, prefix=tokens // 16),
    "RMSNorm": norm,
    "head + loss, all positions": head,
    "head + loss, learnt positions": head_learnt,
}


def ceiling(weights: tuple[tuple[int, int, int], ...]) -> Callable[[], None]:
    """The bare bf16 products of an op: x W^T forward, g W to the input."""
    made = [
        (
            torch.randn(outputs, inputs, dtype=BF16),
            torch.randn(rows, inputs, dtype=BF16),
            torch.randn(rows, outputs, dtype=BF16),
        )
        for outputs, inputs, rows in weights
    ]

    def products() -> None:
        for weight, x, gradient in made:
            torch.mm(x, weight.t())
            torch.mm(gradient, weight)

    return products


def both_ways(function: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward, and backward of a fixed gradient."""

    def run() -> None:
        made = function()
        made.backward(torch.ones_like(made))

    return run


def kept(function: Callable[[], Tensor]) -> int:
    """Bytes that wait for the backward pass, each storage once, parameters apart."""
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and tensor.dtype != torch.uint8:
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made = function()
    del made
    return sum(found.values())


def seconds(function: Callable[[], None]) -> float:
    """Of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(case: Case, tokens: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of each form, the speed-up, the shares of the ceiling, what is kept."""
    forms = {"plain": both_ways(case.plain), "fused": both_ways(case.fused)}
    if case.weights:
        forms["ceiling"] = ceiling(case.weights)
    times: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds + 1):  # the first one compiles and fills caches
        for name, form in forms.items():
            took = seconds(form)
            if number:
                times[name].append(took)
    result: dict[str, Any] = {
        f"{name}_ms": round(1e3 * median(took), 3) for name, took in times.items()
    }
    result["speed_up"] = ratio(times["plain"], times["fused"])
    if case.weights:
        flops = sum(4 * n * m * rows for n, m, rows in case.weights)
        result["ceiling_gflops"] = round(flops / median(times["ceiling"]) / 1e9, 1)
        result["share_plain"] = ratio(times["ceiling"], times["plain"])
        result["share_fused"] = ratio(times["ceiling"], times["fused"])
    for name, function in (("plain", case.plain), ("fused", case.fused)):
        result[f"kept_{name}_bytes"] = round(kept(function) / tokens)
    return result


def ratio(above: list[float], below: list[float]) -> float:
    """The median of the rounds' ratios."""
    return round(median(a / b for a, b in zip(above, below, strict=True)), 3)


def show(results: dict[str, Any]) -> None:
    """The ops as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    columns = ("op", "plain ms", "fused ms", "x", "ceiling ms", "plain of it", "fused of it")
    title = f"size {results['size']}, {results['tokens']} tokens, forward and backward"
    table = Table(*columns, "kept plain", "kept fused", box=box.SIMPLE_HEAD, title=title)
    for name, one in results["ops"].items():
        keys = ("plain_ms", "fused_ms", "speed_up", "ceiling_ms", "share_plain", "share_fused")
        told = ["" if one.get(key) is None else f"{one[key]:,}" for key in keys]
        bytes_kept = (f"{one[f'kept_{form}_bytes']:,} B" for form in ("plain", "fused"))
        table.add_row(name, *told, *bytes_kept)
    Console(width=120).print(table)


def main() -> None:
    """Measure, show, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=workload.SIZES, default="S")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ops", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    size = workload.SIZES[arguments.size]
    torch.manual_seed(0)
    results: dict[str, Any] = {
        "size": arguments.size,
        "tokens": arguments.tokens,
        "rounds": arguments.rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "ops": {},
    }
    for name in arguments.ops:
        case = CASES[name](size, arguments.tokens)
        results["ops"][name] = measure(case, arguments.tokens, arguments.rounds)
    show(results)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    if arguments.picture is not None:
        rows = {name: one["speed_up"] for name, one in results["ops"].items()}
        pictures.bars(arguments.picture, {"fused against plain": {k: [v] for k, v in rows.items()}})


if __name__ == "__main__":
    main()
