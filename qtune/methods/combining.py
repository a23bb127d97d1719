"""Several LoRAs of one base as one: linear, cat, svd (Hu et al. 2021's update, PEFT's names), TIES
(Yadav et al. 2023) and DARE (Yu et al. 2024).

With weights w, scales s: cat and svd compute sum w s B A, svd its best approximation of lower rank.
The others combine A and B apart, each times sqrt(w s), as PEFT does: products of one adapter's B
with another's A come with it, which makes them rougher.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

import qtune
from qtune.errors import ModelError, UsageError, first_few
from qtune.methods.adapter_file import digest
from qtune.methods.delta_lora import as_lora
from qtune.methods.exporting import write_files
from qtune.methods.lora_format import SAME
from qtune.methods.lora_merge import DOWN, UP
from qtune.methods.lora_scale import scale_of
from qtune.methods.peft_format import header, module_of
from qtune.recipe.methods import DeltaLoraConfig, LoraConfig
from qtune.recipe.results import Combination

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qtune.methods.files import AdapterFile

SPARSE = ("ties", "dare")


class Pair:
    """A and B of one module in one adapter, its weight and scale in the sum."""

    def __init__(self, down: Tensor, up: Tensor, factor: float) -> None:
        self.down, self.up, self.factor = down.float(), up.float(), factor

    def halves(self) -> tuple[float, float]:
        """What A and B are multiplied with: the root of the factor, its sign at A alone."""
        root = math.sqrt(abs(self.factor))
        return math.copysign(root, self.factor), root


def combine(
    adapters: Sequence[AdapterFile],
    weights: Sequence[float],
    *,
    how: Combination,
    density: float | None = None,
    seed: int = 0,
) -> AdapterFile:
    """One LoRA of several, in memory; `ModelError` or `UsageError` where they cannot be joined.

    `density` is the share of values that TIES and DARE keep; `seed` draws DARE's.
    """
    _check_asked(how, adapters, weights, density)
    _check_bases(adapters)
    plain = [_as_lora(adapter) for adapter in adapters]
    rank = _rank(plain, how)
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for module in dict.fromkeys(_modules(plain)):
        pairs = [
            Pair(
                adapter.tensors[module + DOWN],
                adapter.tensors[module + UP],
                weight * scale_of(_config(adapter), module_of(module)),
            )
            for adapter, weight in zip(plain, weights, strict=True)
            if module + DOWN in adapter.tensors
        ]
        down, up = _joined(pairs, how, rank=rank, density=density, random=random)
        tensors[module + DOWN], tensors[module + UP] = down.contiguous(), up.contiguous()
    facts = {
        "combined": {
            "how": how,
            "weights": list(weights),
            "density": density,
            "adapters": [digest(adapter.tensors) for adapter in adapters],
        }
    }
    return _made(plain[0], tensors, rank=rank, facts=facts)


def save(adapter: AdapterFile, folder: Path) -> None:
    """Write a combined adapter into an existing folder, as PEFT reads it."""
    write_files(folder, adapter)


def _joined(
    pairs: Sequence[Pair],
    how: Combination,
    *,
    rank: int,
    density: float | None,
    random: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A [rank, m] and B [n, rank] of one module."""
    if how == "cat":
        down = torch.cat([pair.down * pair.factor for pair in pairs])
        up = torch.cat([pair.up for pair in pairs], dim=1)
        missing = rank - len(down)
        return (
            torch.cat([down, down.new_zeros(missing, down.shape[1])]),
            torch.cat([up, up.new_zeros(len(up), missing)], dim=1),
        )
    if how == "svd":
        return _nearest(pairs, rank)
    sums: dict[str, Callable[[list[Tensor], Tensor], Tensor]] = {
        "linear": _sum,
        "ties": lambda each, factors: _ties(each, factors, density or 1.0),
        "dare": lambda each, factors: _dare(each, factors, density or 1.0, random),
    }
    first, second = zip(*(pair.halves() for pair in pairs), strict=True)
    return (
        sums[how]([pair.down for pair in pairs], torch.tensor(first)),
        sums[how]([pair.up for pair in pairs], torch.tensor(second)),
    )


def _nearest(pairs: Sequence[Pair], rank: int) -> tuple[Tensor, Tensor]:
    """The best approximation of rank `rank` of sum f B A, from factors alone: with B = Q R and
    A^T = P T the singular values of B A are those of R T^T."""
    down = torch.cat([pair.down * pair.factor for pair in pairs])
    up = torch.cat([pair.up for pair in pairs], dim=1)
    left, upper = torch.linalg.qr(up)
    right, lower = torch.linalg.qr(down.t())
    outer, values, inner = torch.linalg.svd(upper @ lower.t(), full_matrices=False)
    kept = min(rank, len(values))
    found_up = left @ (outer[:, :kept] * values[:kept])
    found_down = inner[:kept] @ right.t()
    missing = rank - kept
    return (
        torch.cat([found_down, found_down.new_zeros(missing, found_down.shape[1])]),
        torch.cat([found_up, found_up.new_zeros(len(found_up), missing)], dim=1),
    )


def _sum(each: list[Tensor], factors: Tensor) -> Tensor:
    return (torch.stack(each) * factors.view(-1, 1, 1)).sum(dim=0)


def _ties(each: list[Tensor], factors: Tensor, density: float) -> Tensor:
    """The largest values of each; of those the mean of the ones that have the majority's sign."""
    kept = torch.stack([_largest(one, density) for one in each])
    majority = torch.where(kept.sum(dim=0) >= 0, 1.0, -1.0)
    agrees = kept.sign() == majority
    total = (kept * factors.view(-1, 1, 1) * agrees).sum(dim=0)
    return total / agrees.sum(dim=0).clamp(min=1.0)


def _dare(each: list[Tensor], factors: Tensor, density: float, random: torch.Generator) -> Tensor:
    """Each with a random share of its values left, and these as much larger."""
    kept = [
        one * torch.bernoulli(torch.full_like(one, density), generator=random) / density
        for one in each
    ]
    return _sum(kept, factors)


def _largest(values: Tensor, density: float) -> Tensor:
    count = int(density * values.numel())
    if count >= values.numel():
        return values
    flat = torch.zeros_like(values).reshape(-1)
    places = values.abs().reshape(-1).topk(count).indices
    flat[places] = values.reshape(-1)[places]
    return flat.view_as(values)


def _check_asked(
    how: str, adapters: Sequence[AdapterFile], weights: Sequence[float], density: float | None
) -> None:
    if how not in get_args(Combination):
        known = ", ".join(get_args(Combination))
        raise UsageError(f"{how!r} is no way to combine adapters: {known}", place="--combine")
    if len(weights) != len(adapters):
        raise UsageError(
            f"{len(weights)} weights for {len(adapters)} adapters",
            place="--weights",
            hint="one number for each, as in --weights 0.7,0.3",
        )
    if how in SPARSE and (density is None or not 0.0 < density <= 1.0):
        raise UsageError(
            f"{how} keeps a share of the values, above 0 and at most 1", place="--density"
        )
    if how not in SPARSE and density is not None:
        raise UsageError(f"{how} keeps all values", place="--density")


def _check_bases(adapters: Sequence[AdapterFile]) -> None:
    """`ModelError` unless all say the same base, or do not say it."""
    first, *others = adapters
    for other in others:
        prints = {first.base_fingerprint, other.base_fingerprint} - {None}
        names = {first.base_model, other.base_model} - {""}
        if len(prints) > 1 or (not prints and len(names) > 1):
            raise ModelError(
                f"trained on another base ({other.base_model or 'unnamed'}) than "
                f"{first.folder} ({first.base_model or 'unnamed'})",
                place=str(other.folder),
                hint="only adapters of one base can be combined",
            )
        if bool(first.raw.get("fan_in_fan_out")) != bool(other.raw.get("fan_in_fan_out")):
            raise ModelError("fan_in_fan_out differs", place=str(other.folder))


def _as_lora(adapter: AdapterFile) -> AdapterFile:
    """An adapter as the plain LoRA that it is; `ModelError` where it is none."""
    config, place = adapter.config, str(adapter.folder)
    if isinstance(config, DeltaLoraConfig):
        plain, tensors = as_lora(config, adapter.tensors)
        adapter = replace(adapter, config=plain, tensors=tensors)
    elif not isinstance(config, LoraConfig):
        raise ModelError(f"{config.name} is no LoRA, and only LoRAs can be combined", place=place)
    if _config(adapter).use_dora:
        raise ModelError("DoRA's norms cannot be added", place=place, hint="merge it alone")
    others = [name for name in adapter.tensors if not name.endswith((DOWN, UP))]
    if others:
        raise ModelError(
            f"holds whole trained tensors, which cannot be added: {first_few(others)}",
            place=place,
            hint="only adapters without modules_to_save can be combined",
        )
    return adapter


def _config(adapter: AdapterFile) -> LoraConfig:
    assert isinstance(adapter.config, LoraConfig)
    return adapter.config


def _modules(adapters: Sequence[AdapterFile]) -> list[str]:
    names = [name for adapter in adapters for name in adapter.tensors]
    return [name.removesuffix(DOWN) for name in names if name.endswith(DOWN)]


def _rank(adapters: Sequence[AdapterFile], how: str) -> int:
    """The rank of the result; `UsageError` where A and B are added and differ in theirs."""
    ranks = [
        max(len(t) for name, t in adapter.tensors.items() if name.endswith(DOWN))
        for adapter in adapters
    ]
    if how == "cat":
        return sum(ranks)
    if (
        how != "svd"
        and len({len(t) for a in adapters for n, t in a.tensors.items() if n.endswith(DOWN)}) > 1
    ):
        raise UsageError(
            f"{how} adds matrices of one rank, these are of {', '.join(map(str, ranks))}",
            place="--combine",
            hint="take cat or svd",
        )
    return max(ranks)


def _made(
    first: AdapterFile, tensors: dict[str, Tensor], *, rank: int, facts: dict[str, Any]
) -> AdapterFile:
    """The combined adapter, with the config and the facts of its file."""
    targets = sorted({module_of(name.removesuffix(DOWN)) for name in tensors if DOWN in name})
    config = LoraConfig(rank=rank, alpha=float(rank), dropout=0.0, target_modules=tuple(targets))
    raw = {
        **header("LORA"),
        **{theirs: getattr(config, ours) for ours, theirs in SAME.items()},
        "target_modules": targets,
        "base_model_name_or_path": first.base_model or None,
        "fan_in_fan_out": bool(first.raw.get("fan_in_fan_out")),
        "bias": "none",
        "init_lora_weights": True,
    }
    kept = {key: value for key, value in first.facts.items() if key in ("recipe", "base_model")}
    own = {
        **kept,
        "version": qtune.__version__,
        "method": "lora",
        "own": {},
        "dtype": "float32",
        "base_fingerprint": first.base_fingerprint,
        "tensors": digest(tensors),
        "config": raw,
        **facts,
    }
    return replace(first, config=config, tensors=tensors, raw=raw, facts=own)
