"""Small bases, hand-made edits and the whole merge in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from qtune.merging import Merge, MergeReport, prepare, write
from qtune.methods.base import Edit
from qtune.recipe.inputs import ModelSection, QuantizationSection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from qtune.merging import Fidelity

NF4 = QuantizationSection(compute_dtype="float32")
UP = "model.layers.0.mlp.up_proj.weight"
QUERY = "model.layers.1.self_attn.q_proj.weight"


def low_rank(out_features: int, in_features: int, *, seed: int = 0, size: float = 0.05) -> Tensor:
    """A change of rank 4."""
    random = torch.Generator().manual_seed(seed)
    left = torch.randn(out_features, 4, generator=random)
    return size * left @ torch.randn(4, in_features, generator=random)


def adding(change: Tensor) -> Edit:
    """W + change."""

    def apply(base: Tensor | None) -> Tensor:
        assert base is not None
        assert base.dtype == torch.float32
        return base + change

    return Edit(needs_base=True, apply=apply)


def replacing(value: Tensor) -> Edit:
    """W := value."""
    return Edit(needs_base=False, apply=lambda _: value)


def usual_edits() -> dict[str, Edit]:
    """Changes of one MLP and one attention weight of the tiny Llama."""
    return {
        UP: adding(low_rank(128, 64, seed=1)),
        QUERY: adding(low_rank(64, 64, seed=2)),
    }


def prepared(
    base: Path,
    edits: Mapping[str, Edit],
    *,
    quantization: QuantizationSection = NF4,
    onto: str = "dequantized",
    dtype: torch.dtype | None = None,
) -> Merge:
    """A merge of hand-made edits."""
    return prepare(
        base,
        ModelSection(name_or_path=str(base)),
        quantization,
        edits,
        base=onto,
        dtype=dtype,
        tokenizer_folder=base,
    )


def merged(
    base: Path,
    target: Path,
    edits: Mapping[str, Edit],
    *,
    max_shard_bytes: int = 10**9,
    verify: Callable[[Path], Fidelity | None] = lambda _: None,
    **settings: Any,
) -> MergeReport:
    """Prepare and write in one go."""
    return write(
        prepared(base, edits, **settings),
        target,
        max_shard_bytes=max_shard_bytes,
        verify=verify,
        card=lambda report: f"{report.edits} edits\n",
    )


def tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of every file of a folder."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118
                assert name not in found
                found[name] = shard.get_tensor(name)
    return found
