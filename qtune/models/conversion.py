"""Families whose checkpoint tensors must be fused or split: loaded by transformers itself.

Mixture-of-experts checkpoints hold one tensor an expert, their modules one for all. transformers
knows how to convert; its loader needs more memory than ours, and is held to the same strictness.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import ModelError, first_few
from qtune.models.placing import check_finite
from qtune.models.skeleton import INT8_THRESHOLD, disarm_repacking
from qtune.ops.linears import linear_modules, output_head
from qtune.ops.nf4 import bits_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtune.recipe.inputs import QuantizationSection

log = logging.getLogger(__name__)


def load_converted(
    folder: Path,
    quantization: QuantizationSection,
    *,
    skeleton: Any,
    names: Sequence[str],
    device: torch.device,
) -> Any:
    """The model through transformers' own loader, with only the named linears quantised."""
    from transformers import AutoModelForCausalLM

    log.warning(
        "%s: checkpoint tensors are fused or split on loading, so transformers loads it "
        "(more host memory than qtune's own loader)",
        skeleton.config.model_type,
    )
    config = _config(skeleton, quantization, names)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, quantization.compute_dtype),
        attn_implementation=skeleton.config._attn_implementation,
        device_map={"": device},
        output_loading_info=True,
        trust_remote_code=False,
        use_safetensors=True,
        **({"quantization_config": config} if config else {}),
    )
    _strict(info)
    for module in model.modules():
        disarm_repacking(module)
    for name, parameter in model.named_parameters():
        check_finite(name, parameter.detach())
    return model.train()


def _config(skeleton: Any, quantization: QuantizationSection, names: Sequence[str]) -> Any:
    """transformers' bitsandbytes config that leaves the head and all but the named linears."""
    from transformers import BitsAndBytesConfig

    if quantization.bits == 16:
        return None
    head = output_head(skeleton)
    leave = [name for name in linear_modules(skeleton) if name not in set(names)]
    leave += [name for name, module in skeleton.named_modules() if module is head]
    if quantization.bits == 8:
        return BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_threshold=INT8_THRESHOLD, llm_int8_skip_modules=leave
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.quant_type,
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=getattr(torch, quantization.compute_dtype),
        llm_int8_skip_modules=leave,
    )


def _strict(info: dict[str, Any]) -> None:
    for key, what in (
        ("missing_keys", "missing in the checkpoint"),
        ("unexpected_keys", "in the checkpoint, but not in the model"),
        ("mismatched_keys", "of another shape than the model's"),
        ("error_msgs", "not convertible"),
    ):
        if info.get(key):
            raise ModelError(
                f"{first_few(sorted(map(str, info[key])))}: {what}",
                hint="the checkpoint is not whole, or config.json belongs to another",
            )


def count_quantised(model: Any, bits: int) -> int:
    """How many layers hold a weight of so many bits."""
    return sum(bits_of(module) == bits for module in model.modules())
