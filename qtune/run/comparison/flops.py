"""FLOPs of the matrix products, as torch's formulas count them through plain kernels."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from qtune import evaluation
from qtune.oom import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from qtune.data.batch import Batch
    from qtune.losses import CausalLoss, ClassificationLoss, DistillationLoss, LessonsLoss
    from qtune.methods.base import Method

    Loss = CausalLoss | ClassificationLoss | DistillationLoss | LessonsLoss

QUANTIZED = (
    "bitsandbytes::gemm",
    "bitsandbytes::gemv",
    "bitsandbytes::int8_linear_matmul",
    "bitsandbytes::int8_mixed_scaled_mm",
)
"""Products that unfold the weight themselves; torch has no formula for them."""


class Counter(TorchDispatchMode):
    """Adds up the FLOPs of every matrix product inside, backward passes included.

    torch's own FlopCounterMode follows modules by hooks that a nested autograd.grad breaks.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count it where there is a formula."""
        del types
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        elif func.name().startswith(QUANTIZED):  # [.., M] times packed [N, M]
            product = out[0] if isinstance(out, tuple) else out
            self.total += 2 * product.numel() * args[0].shape[-1]
        return out


def flops_per_token(
    model: nn.Module, method: Method | None, batch: Batch, loss: Loss
) -> dict[str, float | None]:
    """FLOPs a token of a forward pass and, with a method, of forward and backward; None where the
    memory does not suffice."""
    forward, training = counted(model, method, batch, loss)
    return {
        "forward_flops_per_token": None if forward is None else forward / batch.tokens,
        "training_flops_per_token": None if training is None else training / batch.tokens,
    }


def counted(
    model: nn.Module, method: Method | None, batch: Batch, loss: Loss
) -> tuple[int | None, int | None]:
    """FLOPs of a forward pass, and of forward and backward; no gradient is left behind."""

    def forward() -> None:
        with evaluation.evaluating(model):
            loss(model, batch)

    def train() -> None:
        model.train()
        loss(model, batch).sum.backward()

    inside = _count(forward, batch)
    if method is None:
        return inside, None
    both = _count(train, batch)
    model.eval()
    for parameter in method.parameters().values():
        parameter.grad = None
    return inside, both


def _count(work: Callable[[], None], batch: Batch) -> int | None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    counter = Counter()
    try:
        with ExitStack() as stack:
            if batch.input_ids.device.type == "cpu":  # whose own kernel has no formula
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(counter)
            work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        torch.cuda.empty_cache()
        return None
    return counter.total
