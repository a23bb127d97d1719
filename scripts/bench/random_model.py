"""A random Llama of any size as a 4-bit checkpoint on disk, with a tokenizer and rows.

One decoder layer is drawn and quantised, and stored under every layer's names: memory and time are
those of a real model, and 34 GB for 65B parameters are written as fast as the disk takes them.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qtune.models import writing
from qtune.ops.nf4 import quantize

if TYPE_CHECKING:
    from pathlib import Path

SEED = 1
SHARD_BYTES = 5_000_000_000
SPECIAL_TOKENS = ("<s>", "</s>", "<pad>")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A Llama by its sizes."""

    hidden: int
    width: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of the linears of one layer, by name."""
        keys = self.hidden // self.heads * self.key_value_heads
        attention = {"q": self.hidden, "k": keys, "v": keys, "o": self.hidden}
        named = {f"self_attn.{name}_proj": (out, self.hidden) for name, out in attention.items()}
        for name in ("gate", "up"):
            named[f"mlp.{name}_proj"] = (self.width, self.hidden)
        return {**named, "mlp.down_proj": (self.hidden, self.width)}

    @property
    def linear_parameters(self) -> int:
        """N of the 4N limit: quantised weights."""
        return self.layers * sum(out * inner for out, inner in self.linears.values())


SHAPES = {
    "tiny": Shape(hidden=64, width=192, layers=3, heads=4, key_value_heads=2, vocabulary=512),
    "small": Shape(hidden=512, width=1536, layers=6, heads=8, key_value_heads=4, vocabulary=4096),
    "1b": Shape(hidden=2048, width=5632, layers=22, heads=32, key_value_heads=4, vocabulary=32_000),
    "8b": Shape(
        hidden=4096, width=14_336, layers=32, heads=32, key_value_heads=8, vocabulary=128_256
    ),
    "65b": Shape(
        hidden=8192, width=22_016, layers=80, heads=64, key_value_heads=64, vocabulary=32_000
    ),
}


def write(folder: Path, shape: Shape, device: torch.device) -> None:
    """Weights, config and tokenizer, unless the folder holds them whole already."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(shape, device)
    specs = [
        writing.TensorSpec(name, tuple(tensor.shape), tensor.dtype)
        for name, tensor in tensors.items()
    ]
    files = writing.split(specs, max_bytes=SHARD_BYTES)
    writing.write(folder, files, lambda spec: tensors[spec.name])
    (folder / "config.json").write_text(json.dumps(_config(shape), indent=2))
    _write_tokenizer(folder, shape.vocabulary)
    (folder / "done").touch()


def write_rows(path: Path, shape: Shape, *, count: int, length: int) -> None:
    """Rows of exactly `length` random ids, the first quarter of each a prompt."""
    draw = random.Random(SEED)
    lines = []
    for _ in range(count):
        ids = [draw.randrange(3, shape.vocabulary) for _ in range(length)]
        prompt = length // 4
        lines.append(json.dumps({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}))
    path.write_text("\n".join(lines) + "\n")


def _tensors(shape: Shape, device: torch.device) -> dict[str, torch.Tensor]:
    """Every tensor of the checkpoint by name; the layers share theirs."""
    generator = torch.Generator(device).manual_seed(SEED)
    layer: dict[str, torch.Tensor] = {}
    for name, (out, inner) in shape.linears.items():
        weight = torch.randn(out, inner, generator=generator, device=device, dtype=torch.bfloat16)
        packed, state = quantize(weight.mul_(0.02), quant_type="nf4", double_quant=True)
        layer[f"{name}.weight"] = packed.cpu()
        for key, part in state.as_dict(packed=True).items():
            layer[f"{name}.weight.{key}"] = part.cpu()
    norm = torch.ones(shape.hidden, dtype=torch.bfloat16)
    for name in ("input_layernorm", "post_attention_layernorm"):
        layer[f"{name}.weight"] = norm
    size = (shape.vocabulary, shape.hidden)
    table = torch.randn(size, generator=generator, device=device).mul_(0.02).bfloat16().cpu()
    named = {"model.embed_tokens.weight": table, "model.norm.weight": norm, "lm_head.weight": table}
    for number in range(shape.layers):
        named |= {f"model.layers.{number}.{name}": tensor for name, tensor in layer.items()}
    return named


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 16_384,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "dtype": "bfloat16",
        "quantization_config": {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8",
        },
    }


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    """A tokenizer with a word for every id; the rows are ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIAL_TOKENS, *(f"word{number}" for number in range(3, vocabulary))]
    words = {name: number for number, name in enumerate(names)}
    begin, end, pad = SPECIAL_TOKENS
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token=pad)),
        bos_token=begin,
        eos_token=end,
        pad_token=pad,
    ).save_pretrained(folder)
