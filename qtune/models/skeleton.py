"""The model without weights: transformers' own class on the meta device, linears exchanged."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from qtune.errors import ModelError, UsageError
from qtune.models.heads import classifier_class, label, widen_heads
from qtune.ops.linears import linear_modules
from qtune.ops.nf4 import library
from qtune.plan import read_config, sees_images
from qtune.plan.targets import find_modules

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtune.recipe.inputs import ModelSection, QuantizationSection

log = logging.getLogger(__name__)
INT8_THRESHOLD = 6.0  # LLM.int8's outlier threshold on activations


def build(folder: Path, section: ModelSection, *, dtype: torch.dtype) -> Any:
    """The model of a folder's config.json for the recipe's task, on the meta device, in train mode;
    a classifier's heads are in fp32."""
    config = model_config(folder)
    place = str(folder / "config.json")
    network_class = network_class_of(config, section, place=place)
    attention = section.attn_implementation
    if attention == "sdpa" and not getattr(network_class, "_supports_sdpa", True):
        log.warning("%s has no sdpa attention in transformers: eager instead", config.model_type)
        attention = "eager"
    try:
        with torch.device("meta"):
            network = network_class._from_config(config, attn_implementation=attention, dtype=dtype)
        widen_heads(network)
        return network
    except (ImportError, ValueError) as error:
        message = str(error).strip().splitlines()[0]
        if isinstance(error, ImportError) or attention in message:
            raise UsageError(
                message, place="model.attn_implementation", hint="set it to sdpa or eager"
            ) from error
        raise ModelError(f"no model can be built from it: {message}", place=place) from error
    except (TypeError, AttributeError, KeyError, RuntimeError, ZeroDivisionError) as error:
        raise ModelError(f"no model can be built from it: {error}", place=place) from error


def network_class_of(config: Any, section: ModelSection, *, place: str) -> Any:
    """transformers' class for a config and a task; a classification's config gets its labels."""
    if section.task == "causal":
        return causal_class(config, place=place)
    label(config, section.labels)
    return classifier_class(config, place=place)


def causal_class(config: Any, *, place: str) -> Any:
    """transformers' own causal language model class for a config."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    found = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if found is None:
        raise ModelError(
            f"{config.model_type} is no causal language model that transformers has",
            place=place,
            hint="set task: classification" if sees_images(config.to_dict()) else "",
        )
    return found[0] if isinstance(found, tuple) else found


def model_config(folder: Path) -> Any:
    """transformers' config object; code from the folder is never run."""
    from transformers import AutoConfig

    content = read_config(folder)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # each config class raises what it likes
        if "auto_map" in content:
            raise ModelError(
                f"{content.get('model_type')} needs code from its folder, and qtune runs none",
                place=str(folder),
            ) from error
        raise ModelError(
            f"transformers cannot read it: {' '.join(str(error).split())[:200]}",
            place=str(folder / "config.json"),
        ) from error


def skipped(model: nn.Module, skip_modules: Sequence[str]) -> set[str]:
    """Names of linears that a skip list matches: whole names or their last parts, all known."""
    return set(find_modules(linear_modules(model), skip_modules, key="quantization.skip_modules"))


def quantizable(model: Any, quantization: QuantizationSection) -> list[str]:
    """Names of the linears to quantise: all nn.Linear but the head, fp32 parts and the skip list.

    GPT-2's Conv1D stays in 16 bit: its weight lies transposed, so its blocks would run across.
    """
    if quantization.bits == 16:
        return []
    keep = skipped(model, quantization.skip_modules)
    fp32 = {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}
    return [
        name
        for name, module in linear_modules(model).items()
        if isinstance(module, nn.Linear) and name not in keep and not fp32 & set(name.split("."))
    ]


def exchange(model: nn.Module, names: Sequence[str], quantization: QuantizationSection) -> None:
    """Put an empty quantised layer in the place of each named nn.Linear, instance by instance."""
    for name in names:
        parent, _, leaf = name.rpartition(".")
        old = model.get_submodule(name)
        new = _four_bit(old, quantization) if quantization.bits == 4 else _eight_bit(old)
        setattr(model.get_submodule(parent), leaf, new)


def keeps_fp32(model: Any, name: str) -> bool:
    """Whether the model class insists on float32 for a parameter."""
    parts = model._keep_in_fp32_modules_strict or ()
    return any(re.search(part.replace("*", r"[^.]+"), name) for part in parts)


def _four_bit(linear: Any, quantization: QuantizationSection) -> nn.Module:
    layer = library().nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=getattr(torch, quantization.compute_dtype),
        compress_statistics=quantization.double_quant,
        quant_type=quantization.quant_type,
        device="meta",
    )
    return _like(layer, linear)


def _eight_bit(linear: Any) -> nn.Module:
    layer = library().nn.Linear8bitLt(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        has_fp16_weights=False,
        threshold=INT8_THRESHOLD,
        device="meta",
    )
    return _like(layer, linear)


def _like(layer: Any, linear: Any) -> nn.Module:
    """Keep the mode and the bias dtype of the layer that is replaced; disarm CPU repacking."""
    if linear.bias is not None:
        layer.bias = nn.Parameter(linear.bias.data, requires_grad=False)
    disarm_repacking(layer)
    layer.train(linear.training)
    return layer  # type: ignore[no-any-return]


def disarm_repacking(layer: Any) -> None:
    """Forbid bitsandbytes to rewrite a 4-bit weight at the first evaluation on an AVX512-BF16 CPU.

    The rewritten layout has no autograd: later training would run on wrong gradients, and
    dequantising gives noise.
    """
    if hasattr(layer, "support_avx512bf16_for_cpu"):
        layer.support_avx512bf16_for_cpu = False
