"""The GGUF file of a LoRA alone, which llama.cpp and Ollama put on a GGUF of its base.

llama.cpp computes W x + alpha / r B (A x) with one alpha and each pair's own rank r; other scales
(rsLoRA, alpha_pattern) are multiplied into B.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import CheckError, ModelError
from qtune.gguf import architecture
from qtune.gguf.encoding import decode, encode
from qtune.gguf.library import library
from qtune.gguf.model import general
from qtune.gguf.names import Names
from qtune.gguf.writing import Stored, new_writer, write
from qtune.methods.lora_merge import DOWN, UP
from qtune.methods.lora_scale import scale_of
from qtune.methods.peft_format import module_of
from qtune.recipe.methods import LoraConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from qtune.gguf.architecture import Shape
    from qtune.gguf.encoding import Dtype
    from qtune.gguf.reading import File
    from qtune.methods import AdapterFile


@dataclass(frozen=True)
class Low:
    """The two factors of one weight, named as GGUF names the weight, scaled for `alpha`."""

    weight: str
    down: Tensor
    up: Tensor


def factors(adapter: AdapterFile, shape: Shape) -> tuple[list[Low], float]:
    """(factors of each adapted weight, alpha); `ModelError` for what a GGUF LoRA cannot carry."""
    config = adapter.config
    _refuse(adapter)
    assert isinstance(config, LoraConfig)
    names = Names(shape)
    found = []
    for name, down in sorted(adapter.tensors.items()):
        if not name.endswith(DOWN):
            continue
        whole = name.removesuffix(DOWN)
        module = module_of(whole)
        if module == "lm_head" and shape.tied:
            raise ModelError(
                "the adapter changes a head that is tied to the embedding: llama.cpp has no tensor "
                "of its own for it",
                place=str(adapter.folder),
                hint="export the merged model: --to gguf",
            )
        own = scale_of(config, module) * down.shape[0] / config.alpha  # 1 but for other scales
        up = adapter.tensors[whole + UP].float()
        up = up if abs(own - 1) < 1e-9 else up * own
        up = names.reorder(f"{module}.weight", up)
        found.append(Low(names.to_gguf(f"{module}.weight"), down.float(), up))
    return found, float(config.alpha)


def _refuse(adapter: AdapterFile) -> None:
    config = adapter.config
    way = "merge it and export the model: --to gguf"
    if not isinstance(config, LoraConfig):
        raise ModelError(
            f"{adapter.facts.get('method') or config.name} is no LoRA, and GGUF carries no other "
            "adapter",
            place=str(adapter.folder),
            hint=way,
        )
    if config.use_dora:
        raise ModelError(
            "DoRA's magnitudes have no place in GGUF", place=str(adapter.folder), hint=way
        )
    others = [name for name in adapter.tensors if not name.endswith((DOWN, UP))]
    if others:
        raise ModelError(
            f"{module_of(others[0])} is trained whole (modules_to_save), and GGUF carries factors "
            "only",
            place=str(adapter.folder),
            hint=way,
        )
    if adapter.raw.get("fan_in_fan_out"):
        raise ModelError("weights stored transposed", place=str(adapter.folder), hint=way)


def write_lora(
    lows: list[Low],
    alpha: float,
    shape: Shape,
    path: Path,
    *,
    dtype: Dtype,
    about: Mapping[str, str],
) -> list[Stored]:
    """Write the new file `path`."""
    tensors = [stored for low in lows for stored in _stored(low, dtype)]
    with new_writer(shape.architecture.name) as writer:
        general(writer, about, kind="adapter", dtype=dtype)
        keys = library().Keys.Adapter
        writer.add_string(keys.TYPE, "lora")
        writer.add_float32(keys.LORA_ALPHA, alpha)
        write(writer, path, tensors)
    return tensors


def compare(lows: list[Low], file: File, *, dtype: Dtype) -> None:
    """`CheckError` unless every factor reads back as it was written, and there are no others."""
    wanted = {
        f"{low.weight}.{suffix}": tensor
        for low in lows
        for suffix, tensor in (("lora_a", low.down), ("lora_b", low.up))
    }
    odd = sorted(wanted.keys() ^ file.names)
    for name, tensor in wanted.items():
        if not odd and not torch.equal(file.tensor(name), _rounded(name, tensor, dtype)):
            odd = [name]
    if odd:
        raise CheckError(f"{odd[0]} is another one in the file", place=str(file.path))


@torch.no_grad()
def fold(model: Any, file: File, shape: Shape) -> None:
    """Add what a file's factors say to the weights of a dense model, by the file alone."""
    names = Names(shape)
    alpha = file.fields["adapter.lora.alpha"]
    pending = set(file.names)
    for name, parameter in model.named_parameters():
        weight = names.to_gguf(name) if name.endswith("proj.weight") or "lm_head" in name else ""
        if f"{weight}.lora_a" not in pending:
            continue
        pending -= {f"{weight}.lora_a", f"{weight}.lora_b"}
        down, up = file.tensor(f"{weight}.lora_a"), file.tensor(f"{weight}.lora_b")
        up = names.restore(name, up)
        parameter.add_((up @ down) * (alpha / down.shape[0]))
    if pending:
        raise CheckError(f"{min(pending)} belongs to no weight", place=str(file.path))


def _stored(low: Low, dtype: Dtype) -> list[Stored]:
    pairs = (("lora_a", low.down), ("lora_b", low.up))
    return [
        Stored(f"{low.weight}.{suffix}", tuple(tensor.shape), dtype, partial(_same, tensor))
        for suffix, tensor in pairs
    ]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _rounded(name: str, tensor: Tensor, dtype: Dtype) -> Tensor:
    raw: Any = encode(name, tensor, dtype)
    kinds = {"f32": "float32", "f16": "float16"}
    typed = raw.view(kinds[dtype]) if dtype in kinds else raw
    return decode(typed.reshape(tensor.shape[0], -1), dtype, tensor.shape)


def shape_of_base(folder: Path, *, place: str) -> Shape:
    """The shape of the base that an adapter belongs to; its config.json alone is read."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return architecture.shape_of(config, place=place)
