"""Quantum-PEFT (Koike-Akino et al. 2025): y = Wx + alpha U diag(l) V^T x.

U [n, K] and V [m, K] have orthonormal columns by construction: those of a quantum circuit, whose
angles grow with the logarithm of n, or of exp(S) of a skew S. l [K] starts at zero. The file holds
what generates the columns; its type is known to qtune alone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from qtune.errors import ModelError
from qtune.methods import peft_format
from qtune.methods.adapter import Standin, generator_for, refuse_attached
from qtune.methods.base import Edit
from qtune.methods.orthonormal import (
    circuit_columns,
    exponential_columns,
    start_angles,
    start_triangle,
)
from qtune.methods.peft_format import module_of
from qtune.methods.selection import chosen_linears, file_targets
from qtune.methods.standins import StandinMethod
from qtune.ops.linears import features
from qtune.ops.nf4 import is_transposed
from qtune.plan.quantum import filled_columns, generators, refuse_rank
from qtune.recipe.methods import QuantumConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

OUT, IN, VALUES = "quantum_out", "quantum_in", "quantum_values"
KEYS = ("rank", "alpha", "form", "circuit_layers", "intrinsic_rank")


def columns(config: QuantumConfig, numbers: Tensor, size: int) -> Tensor:
    """Orthonormal columns [size, K] of what generates them."""
    if config.form == "taylor":
        filled = filled_columns(config)
        return exponential_columns(numbers, size=size, rank=config.rank, filled=filled)
    return circuit_columns(numbers, size=size, rank=config.rank, layers=config.circuit_layers)


class QuantumLinear(Standin):
    """y = base(x) + alpha U (l . V^T x); what generates U and V trains, and l."""

    def __init__(
        self, base: nn.Module, config: QuantumConfig, *, generator: torch.Generator
    ) -> None:
        super().__init__(base)
        self.config = config
        self.inputs, self.outputs = features(base)
        for size in (self.outputs, self.inputs):
            refuse_rank(config, size)
        device = self.device
        self.out = nn.Parameter(_start(config, self.outputs, generator).to(device))
        self.inward = nn.Parameter(_start(config, self.inputs, generator).to(device))
        self.values = nn.Parameter(torch.zeros(config.rank, device=device))
        self._made: tuple[tuple[int, int], tuple[Tensor, Tensor]] | None = None

    def tensors(self) -> dict[str, nn.Parameter]:
        """What generates U and V, and l."""
        return {OUT: self.out, IN: self.inward, VALUES: self.values}

    def train(self, mode: bool = True) -> QuantumLinear:
        """As nn.Module's; what evaluation made of the numbers is made again."""
        self._made = None
        super().train(mode)
        return self

    def sides(self) -> tuple[Tensor, Tensor]:
        """(U [n, K], V [m, K]); in evaluation made once, and again when the numbers change."""
        if self.training or torch.is_grad_enabled():
            return self._sides()
        versions = (self.out._version, self.inward._version)
        if self._made is None or self._made[0] != versions:
            self._made = (versions, self._sides())
        return self._made[1]

    def _sides(self) -> tuple[Tensor, Tensor]:
        return (
            columns(self.config, self.out, self.outputs),
            columns(self.config, self.inward, self.inputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., m] -> [..., n] in the base's dtype."""
        output: Tensor = self.base(x)
        if not self.enabled:
            return output
        left, right = self.sides()
        inner = functional.linear(x.to(right.dtype), right.t()) * (self.config.alpha * self.values)
        return output + functional.linear(inner, left).to(output.dtype)


def _start(config: QuantumConfig, size: int, generator: torch.Generator) -> Tensor:
    if config.form == "taylor":
        return start_triangle(generators(config, size), size=size, generator=generator)
    return start_angles(
        size=size, rank=config.rank, layers=config.circuit_layers, generator=generator
    )


class Quantum(StandinMethod):
    """Updates U diag(l) V^T of few numbers on chosen linear layers."""

    name: ClassVar[str] = "quantum"
    peft_type: ClassVar[str] = "QUANTUM"
    config: QuantumConfig

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:  # noqa: ARG002
        """Swap the chosen layers for adapters; `UsageError` for a name that fits nothing."""
        refuse_attached(model)
        chosen = chosen_linears(model, self.config)
        self._facts = {
            **file_targets(model, chosen, self.config),
            "exclude_modules": None,
            "fan_in_fan_out": any(is_transposed(module) for module in chosen.values()),
        }
        standins = {
            name: QuantumLinear(module, self.config, generator=generator_for(self.seed, name))
            for name, module in chosen.items()
        }
        self.put_in(model, standins)

    def peft_config(self) -> dict[str, Any]:
        """adapter_config.json in PEFT's layout, of a type that only qtune knows."""
        return {**peft_format.own_file(self.peft_type, self.config, KEYS), **self._facts}

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> QuantumConfig:
        """Read our own adapter_config.json."""
        understood = {*KEYS, "target_modules", "layers_to_transform", "fan_in_fan_out"}
        peft_format.refuse_active(config, understood=understood, reasons={})
        values = {key: config[key] for key in KEYS if key in config}
        values["target_modules"] = peft_format.targets(config.get("target_modules"))
        values["layers_to_transform"] = peft_format.indices(config.get("layers_to_transform"))
        return peft_format.section(QuantumConfig, values)

    @classmethod
    def merge_edits(
        cls, config: QuantumConfig, tensors: Mapping[str, Tensor], *, fan_in_fan_out: bool = False
    ) -> dict[str, Edit]:
        """W + alpha U diag(l) V^T."""
        end = f".{VALUES}"
        names = [name.removesuffix(end) for name in tensors if name.endswith(end)]
        missing = {f"{n}.{part}" for n in names for part in (OUT, IN, VALUES)} ^ set(tensors)
        if missing:
            raise ModelError(f"the adapter file lacks or adds {min(missing)}")
        fold = partial(_fold, config, transposed=fan_in_fan_out)
        edits = {}
        for name in names:
            parts = tuple(tensors[f"{name}.{part}"].float() for part in (OUT, IN, VALUES))
            edits[f"{module_of(name)}.weight"] = Edit(True, partial(fold, parts))
        return edits


def _fold(
    config: QuantumConfig,
    parts: tuple[Tensor, Tensor, Tensor],
    base: Tensor | None,
    *,
    transposed: bool,
) -> Tensor:
    """The base weight [n, m] (transposed: [m, n]) in fp32 with the update."""
    assert base is not None, "needs_base"
    weight = base.t() if transposed else base
    out, inward, values = parts
    for numbers, size in zip((out, inward), weight.shape, strict=True):
        if numbers.shape != (generators(config, size),):
            raise ModelError(
                f"{len(numbers)} numbers generate no columns of {size}",
                hint="the adapter belongs to another base model",
            )
    left = columns(config, out, weight.shape[0]) * (config.alpha * values)
    merged = torch.addmm(weight.float(), left, columns(config, inward, weight.shape[1]).t())
    return merged.t().contiguous() if transposed else merged
