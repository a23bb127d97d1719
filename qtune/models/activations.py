"""What a layer keeps for its backward pass: everything, its products, or only its input.

  none       everything is kept, nothing recomputed
  selective  products of matrices and the attention's output are kept; what lies between them
             (norms, rotations, activation functions, dropout) is recomputed
  layer      each layer's input is kept, the layer is recomputed (Chen et al. 2016)
  offload    as `layer`, and the inputs wait in host memory

All four give the same gradients, bit for bit on one device: the recomputation draws the same
dropout and runs the same kernels.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from qtune.models.offload import HostInputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from qtune.recipe.steps import ActivationPolicy

# Operators whose results `selective` keeps, by name: not every build of torch has every one.
_KEPT = frozenset(
    (
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "aten::_flash_attention_forward",
        "bitsandbytes::gemm_4bit",
        "bitsandbytes::int8_scaled_mm",
        "bitsandbytes::int8_mixed_scaled_mm",
    )
)


_MATRIX_PRODUCTS = frozenset(("aten::mm", "aten::addmm"))
_LOW_RANK = 8  # how many times wider than deep a product is that is made again


def use(model: Any, policy: ActivationPolicy) -> None:
    """Make a frozen transformers model follow a policy, from its next forward pass on."""
    if policy == "none":
        return
    model.config.use_cache = False
    # transformers 5.23 renames the switch; v6 drops the old name.
    enable = getattr(model, "activation_checkpointing_enable", None)
    enable = enable or model.gradient_checkpointing_enable
    settings: dict[str, Any] = {"use_reentrant": False}
    if policy == "selective":
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _decide)
    enable(settings)
    # Asking the embedding's output for gradients is for the reentrant form; it costs a backward.
    model.disable_input_require_grads()
    if policy == "offload":
        _offload(model)


def _decide(_: Any, operator: Any, *arguments: Any, **__: Any) -> CheckpointPolicy:
    """Whether the result of an operator is kept: products are, but for those of a low rank, which
    take more memory than time (an adapter's B is [n, r] and its product [tokens, n] in fp32)."""
    name = getattr(operator, "name", lambda: "")().partition(".")[0]
    keep = name in _KEPT and not (name in _MATRIX_PRODUCTS and _is_low_rank(*arguments[-2:]))
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE


def _is_low_rank(left: Tensor, right: Tensor) -> bool:
    """[t, r] x [r, n] with r far smaller than n."""
    return left.shape[-1] * _LOW_RANK <= right.shape[-1]


def _offload(model: Any) -> None:
    """Let every checkpointed module keep its input through `HostInputs`."""
    inputs = HostInputs()
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False) and hasattr(
            module, "_gradient_checkpointing_func"
        ):
            module._gradient_checkpointing_func = partial(_checkpointed, inputs)


def _checkpointed(
    inputs: HostInputs, function: Callable[..., Any], *arguments: Any, **keywords: Any
) -> Any:
    """One checkpointed call whose saved inputs go to host memory.

    The hooks hold for the inputs alone: inside, the checkpoint has hooks of its own.
    """
    with torch.autograd.graph.saved_tensors_hooks(inputs.pack, inputs.unpack):
        return checkpoint(function, *arguments, use_reentrant=False, **keywords)
