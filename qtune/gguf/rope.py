"""Rotary embeddings and their stretching, in transformers' words and in GGUF's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What each kind may set beside its base; another value than these defaults is refused.
SILENT = {"mscale": None, "mscale_all_dim": None, "attention_factor": None, "truncate": True}
READ = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"}
YARN = {"beta_fast": 32.0, "beta_slow": 1.0}
LLAMA3 = {"low_freq_factor", "high_freq_factor"}


@dataclass(frozen=True)
class Rope:
    """A base and a kind of stretching; `divisors` divide each frequency (llama3 only)."""

    base: float
    kind: str = "default"
    factor: float = 1.0
    original: int | None = None
    divisors: tuple[float, ...] = ()


def of_config(config: Any, *, place: str) -> Rope:
    """The embedding of a transformers config; `ModelError` for one that llama.cpp has not."""
    found = dict(getattr(config, "rope_parameters", None) or {})
    kind = str(found.get("rope_type") or found.get("type") or "default")
    base = float(found.get("rope_theta", 10_000.0))
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    _refuse(found, kind, place=place)
    if kind == "default":
        return Rope(base)
    factor = float(found["factor"])
    original = found.get("original_max_position_embeddings")
    if kind == "linear":
        return Rope(base, "linear", factor)
    longest = int(original or config.max_position_embeddings)
    if kind == "yarn":
        return Rope(base, "yarn", factor, longest)
    return Rope(base, "llama3", factor, longest, tuple(_divisors(found, base, int(width), longest)))


def _refuse(found: Mapping[str, Any], kind: str, *, place: str) -> None:
    """`ModelError` for kinds and settings that GGUF has no key for."""
    if kind not in ("default", "linear", "yarn", "llama3"):
        raise ModelError(f"llama.cpp knows no rope_type {kind!r} for this family", place=place)
    fixed = {**SILENT, **(YARN if kind == "yarn" else {}), "partial_rotary_factor": 1.0}
    known = READ | (LLAMA3 if kind == "llama3" else set())
    for key, value in found.items():
        if key in known or value is None or fixed.get(key, ...) == value:
            continue
        raise ModelError(f"rope_parameters.{key} = {value!r} has no place in GGUF", place=place)


def _divisors(found: Mapping[str, Any], base: float, width: int, original: int) -> list[float]:
    """By what Llama 3.1 divides the frequency of each pair of channels: short waves stay, long ones
    are stretched by the factor, those between go over smoothly."""
    factor, low, high = (
        float(found[key]) for key in ("factor", "low_freq_factor", "high_freq_factor")
    )
    divisors = []
    for channel in range(0, width, 2):
        turns = original * base ** (-channel / width) / (2 * math.pi)  # in the first context
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        divisors.append(1.0 / ((1 - share) / factor + share))
    return divisors


def describe(writer: Any, rope: Rope) -> None:
    """Tell a `GGUFWriter` the embedding; llama3's divisors are a tensor, not a field."""
    from qtune.gguf.library import library

    writer.add_rope_freq_base(rope.base)
    if rope.kind in ("linear", "yarn"):
        kinds = library().RopeScalingType
        writer.add_rope_scaling_type(kinds.LINEAR if rope.kind == "linear" else kinds.YARN)
        writer.add_rope_scaling_factor(rope.factor)
    if rope.kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope.original)


def read(own: Mapping[str, Any], *, plain: bool) -> dict[str, Any]:
    """transformers' rope_parameters of a file's fields without their architecture.

    A file with `rope_freqs.weight` (not plain) says nothing of how its divisors came about: the
    reader puts them in.
    """
    found: dict[str, Any] = {"rope_type": "default", "rope_theta": own["rope.freq_base"]}
    kind = own.get("rope.scaling.type")
    if kind is not None and plain:
        found |= {"rope_type": kind, "factor": own["rope.scaling.factor"]}
    if kind == "yarn":
        found["original_max_position_embeddings"] = own["rope.scaling.original_context_length"]
    return found
