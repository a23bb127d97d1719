"""Tensors in the number formats of GGUF, a bounded number of rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from qtune.errors import ModelError
from qtune.gguf.library import library

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Dtype = Literal["f32", "f16", "bf16", "q8_0"]
PLAIN = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
BLOCK = 32  # numbers that share a scale in q8_0
CHUNK = 2**22  # numbers that are quantised at a time, in fp32


def kind_of(shape: Sequence[int], dtype: Dtype) -> Dtype:
    """How a tensor of that shape is stored: vectors in f32 as llama.cpp wants them, and rows that
    q8_0 cannot cut into blocks in f16."""
    if len(shape) < 2:
        return "f32"
    return "f16" if dtype == "q8_0" and shape[-1] % BLOCK else dtype


def byte_count(shape: Sequence[int], kind: Dtype) -> int:
    """Bytes of a stored tensor."""
    count = 1
    for size in shape:
        count *= size
    return count // BLOCK * (BLOCK + 2) if kind == "q8_0" else count * PLAIN[kind].itemsize


def constant(kind: Dtype) -> Any:
    """gguf's own constant of a number format."""
    return library().GGMLQuantizationType[kind.upper()]


def encode(name: str, tensor: Tensor, kind: Dtype) -> Any:
    """The bytes of a tensor as a flat numpy array; `ModelError` for what f16 cannot hold."""
    if kind == "q8_0":
        return _quantized(tensor)
    found = tensor.to(PLAIN[kind]).contiguous()
    if kind == "f16" and not bool(torch.isfinite(found).all()):
        raise ModelError(
            f"{name} holds numbers that f16 cannot",
            place="--dtype",
            hint="export with --dtype bf16",
        )
    return found.reshape(-1).view(torch.uint8).numpy()


def decode(content: Any, kind: Dtype, shape: Sequence[int]) -> Tensor:
    """A stored tensor as `GGUFReader` gives its data, in fp32 and of transformers' shape."""
    numbers = library().quants.dequantize(content, constant(kind))
    return torch.from_numpy(numbers.astype("float32", copy=True)).reshape(tuple(shape))


def _quantized(tensor: Tensor) -> Any:
    quantize = library().quants.quantize
    rows = tensor.reshape(-1, tensor.shape[-1])
    step = max(1, CHUNK // rows.shape[1])
    parts = [
        torch.from_numpy(quantize(part.float().numpy(), constant("q8_0")).reshape(-1))
        for part in rows.split(step)
    ]
    return torch.cat(parts).numpy()
