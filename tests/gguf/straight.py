"""A forward pass in plain numpy from a GGUF file's own tensors and fields, by llama.cpp's rules.

It knows nothing of qtune or transformers: `llama` turns neighbouring channels together, the Qwens
turn channel i with i + d/2; a LoRA adds alpha / r B (A x).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np


class Straight:
    """One opened model file, perhaps with a LoRA's file on it."""

    def __init__(self, path: Path, lora: Path | None = None) -> None:
        self.field, self.tensor = _open(path)
        self.arch = self.field["general.architecture"]
        self.lora: dict[str, np.ndarray] = {}
        self.alpha = 0.0
        if lora is not None:
            told, self.lora = _open(lora)
            assert told["general.type"] == "adapter"
            assert told["adapter.type"] == "lora"
            assert told["general.architecture"] == self.arch
            self.alpha = told["adapter.lora.alpha"]

    def own(self, key: str, default: Any = None) -> Any:
        return self.field.get(f"{self.arch}.{key}", default)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        y = x @ self.tensor[f"{name}.weight"].T
        if f"{name}.weight.lora_a" in self.lora:
            down = self.lora[f"{name}.weight.lora_a"]
            up = self.lora[f"{name}.weight.lora_b"]
            y = y + self.alpha / len(down) * (x @ down.T @ up.T)
        if f"{name}.bias" in self.tensor:
            y = y + self.tensor[f"{name}.bias"]
        return y

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        scale = np.sqrt(
            (x * x).mean(-1, keepdims=True) + self.own("attention.layer_norm_rms_epsilon")
        )
        return x / scale * self.tensor[f"{name}.weight"]

    def logits(self, ids: list[int]) -> np.ndarray:
        x = self.tensor["token_embd.weight"][ids]
        for layer in range(self.own("block_count")):
            at = f"blk.{layer}."
            x = x + self.attention(at, self.norm(at + "attn_norm", x))
            h = self.norm(at + "ffn_norm", x)
            gate = self.linear(at + "ffn_gate", h)
            inner = gate / (1 + np.exp(-gate)) * self.linear(at + "ffn_up", h)
            x = x + self.linear(at + "ffn_down", inner)
        x = self.norm("output_norm", x)
        if "output.weight" in self.tensor:
            return self.linear("output", x)
        return x @ self.tensor["token_embd.weight"].T

    def attention(self, at: str, h: np.ndarray) -> np.ndarray:
        heads, groups = self.own("attention.head_count"), self.own("attention.head_count_kv")
        width = self.own("attention.key_length")
        q = self.linear(at + "attn_q", h).reshape(len(h), heads, width)
        k = self.linear(at + "attn_k", h).reshape(len(h), groups, width)
        v = self.linear(at + "attn_v", h).reshape(len(h), groups, width)
        if at + "attn_q_norm.weight" in self.tensor:
            q, k = self.norm(at + "attn_q_norm", q), self.norm(at + "attn_k_norm", k)
        q, k = self.rotate(q), self.rotate(k)
        out = np.zeros_like(q)
        masked = np.triu(np.full((len(h), len(h)), -np.inf), 1)
        for head in range(heads):
            shared = head // (heads // groups)
            scores = q[:, head] @ k[:, shared].T / math.sqrt(width) + masked
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, shared]
        return self.linear(at + "attn_output", out.reshape(len(h), -1))

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """[T, heads, d]; positions from 0."""
        angles, size = self.angles(len(x), x.shape[-1])
        cos, sin = size * np.cos(angles)[:, None], size * np.sin(angles)[:, None]
        y = np.empty_like(x)
        if self.arch == "llama":
            a, b = x[..., 0::2], x[..., 1::2]
            y[..., 0::2], y[..., 1::2] = a * cos - b * sin, a * sin + b * cos
        else:
            half = x.shape[-1] // 2
            a, b = x[..., :half], x[..., half:]
            y[..., :half], y[..., half:] = a * cos - b * sin, a * sin + b * cos
        return y

    def angles(self, length: int, width: int) -> tuple[np.ndarray, float]:
        """Angles [T, d/2] and the factor of cosine and sine, as ggml_rope_ext computes them."""
        base = self.own("rope.freq_base")
        theta = np.arange(length)[:, None] * base ** (-np.arange(0, width, 2) / width)
        theta = theta / self.tensor.get("rope_freqs.weight", 1.0)
        kind, factor = self.own("rope.scaling.type"), self.own("rope.scaling.factor", 1.0)
        if kind != "yarn":
            return theta / factor, 1.0
        original = self.own("rope.scaling.original_context_length")

        def corner(turns: float) -> float:
            return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

        low, high = max(0, math.floor(corner(32))), min(width - 1, math.ceil(corner(1)))
        ramp = (np.arange(width // 2) - low) / max(0.001, high - low)
        mix = 1 - np.clip(ramp, 0, 1)
        return theta / factor * (1 - mix) + theta * mix, 1 + 0.1 * math.log(factor)


def _open(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
        for tensor in reader.tensors
    }
    return fields, tensors
