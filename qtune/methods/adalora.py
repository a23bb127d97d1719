"""AdaLoRA (Zhang et al. 2023): y = Wx + (alpha/r) B (E . A) x, an SVD whose ranks are budgeted.

E starts at zero, A and B as small normal numbers that a penalty keeps orthogonal. While training
goes on the least important triplets over all matrices are set to zero (E_i = 0), until target_rank
a matrix are left on average. They keep their gradients and may come back before the final phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from qtune.errors import ModelError, UsageError
from qtune.methods import peft_format
from qtune.methods.adalora_budget import Importance, Schedule, kept
from qtune.methods.adapter import DTYPES, Standin, generator_for, refuse_attached
from qtune.methods.base import Edit
from qtune.methods.peft_format import PREFIX, module_of
from qtune.methods.selection import chosen_linears, file_targets
from qtune.methods.standins import StandinMethod
from qtune.methods.strict import refuse_differences
from qtune.ops.linears import features
from qtune.ops.nf4 import is_transposed
from qtune.recipe.methods import AdaloraConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

SPREAD = 0.02
_TINY = 1e-5  # PEFT's, beside the rank that alpha is divided by
_PARTS = ("lora_A", "lora_B", "lora_E")


class SvdLinear(Standin):
    """y = base(x) + scale * B (E . A dropout(x)); A [r, m], B [n, r], E [r, 1]."""

    def __init__(
        self,
        base: nn.Module,
        *,
        rank: int,
        alpha: float,
        dropout: float,
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> None:
        super().__init__(base)
        inputs, outputs = features(base)
        device = self.device
        sizes = ((rank, inputs), (outputs, rank))
        right, left = (torch.empty(s).normal_(0.0, SPREAD, generator=generator) for s in sizes)
        self.right = nn.Parameter(right.to(device, dtype))
        self.left = nn.Parameter(left.to(device, dtype))
        self.singular = nn.Parameter(torch.zeros(rank, 1, device=device, dtype=dtype))
        self.scale = alpha / (rank + _TINY)
        self.dropout = dropout

    def tensors(self) -> dict[str, nn.Parameter]:
        """A, B and E under PEFT's names."""
        return dict(zip(_PARTS, (self.right, self.left, self.singular), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """[..., m] -> [..., n] in the base's dtype."""
        output: Tensor = self.base(x)
        if not self.enabled:
            return output
        x = functional.dropout(x.to(self.right.dtype), self.dropout, self.training)
        inner = functional.linear(x, self.right) * self.singular.flatten()
        return output + (functional.linear(inner, self.left) * self.scale).to(output.dtype)

    def unevenness(self) -> Tensor:
        """||A A^T - I|| + ||B^T B - I||, Frobenius norms."""
        right, left = self.right.float(), self.left.float()
        one = torch.eye(len(right), device=right.device)
        grams = torch.stack([right @ right.t(), left.t() @ left])
        distances: Tensor = torch.linalg.norm(grams - one, dim=(1, 2))
        return distances.sum()


class Adalora(StandinMethod):
    """Low-rank adapters whose ranks are shared out while they train."""

    name: ClassVar[str] = "adalora"
    peft_type: ClassVar[str] = "ADALORA"
    config: AdaloraConfig

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:  # noqa: ARG002
        """Swap the chosen layers for adapters; `UsageError` for a name that fits nothing."""
        refuse_attached(model)
        config = self.config
        if config.target_rank >= config.rank:
            raise UsageError(
                f"{config.target_rank} is not below method.rank, {config.rank}",
                place="method.target_rank",
            )
        chosen = chosen_linears(model, config)
        self._targets = file_targets(model, chosen, config)
        standins = {
            name: SvdLinear(
                module,
                rank=config.rank,
                alpha=config.alpha,
                dropout=config.dropout,
                dtype=DTYPES[config.dtype],
                generator=generator_for(self.seed, name),
            )
            for name, module in chosen.items()
        }
        self.put_in(model, standins)
        self._layers = standins
        smoothing = (config.importance_smoothing, config.uncertainty_smoothing)
        self._importance = Importance(self.parameters(), smoothing=smoothing)
        self._schedule: Schedule | None = None

    def will_train(self, total_steps: int, *, longest_row: int) -> None:  # noqa: ARG002
        """Lay the budget over the run; `UsageError` when its phases are longer than that."""
        config, layers = self.config, len(self._layers)
        begins = total_steps // 10 if config.initial_steps is None else config.initial_steps
        final = 3 * total_steps // 10 if config.final_steps is None else config.final_steps
        if begins + final >= total_steps:
            raise UsageError(
                f"{begins} + {final} steps without pruning leave none of {total_steps} for it",
                place="method.initial_steps",
                hint="lower initial_steps or final_steps, or train longer",
            )
        self._schedule = Schedule(
            first=config.rank * layers,
            last=config.target_rank * layers,
            begins=begins,
            final=final,
            total=total_steps,
            interval=config.interval,
        )

    def extra_loss(self) -> Tensor | None:
        """The mean distance of all A and B from orthogonality, times its weight."""
        weight = self.config.orthogonality
        if not weight:
            return None
        parts = [layer.unevenness() for layer in self._layers.values()]
        return weight * torch.stack(parts).sum() / (2 * len(parts))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Take in the step's importance until the final phase, and prune where the schedule says
        so: in that phase what stays is chosen no more."""
        schedule = self._schedule
        if schedule is None or step + 1 < schedule.total - schedule.final:
            self._importance.update(self.parameters())
        budget = schedule.at(step + 1) if schedule else None
        if budget is None:
            return
        masks = kept([self.scores(name) for name in self._layers], budget)
        for layer, stays in zip(self._layers.values(), masks, strict=True):
            layer.singular.masked_fill_(~stays.unsqueeze(1), 0.0)

    def scores(self, name: str) -> Tensor:
        """Importance of each triplet of a layer, [r]."""
        right, left, singular = (
            self._importance.score(f"{PREFIX}{name}.{part}") for part in _PARTS
        )
        return singular.flatten() + right.mean(dim=1) + left.mean(dim=0)

    def state(self) -> dict[str, Tensor]:
        """The averages of importance, by number."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._averages().items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the averages back."""
        own = self._averages()
        refuse_differences(own, tensors, what="method state")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])

    def _averages(self) -> dict[str, Tensor]:
        return self._importance.state()

    def peft_config(self) -> dict[str, Any]:
        """An AdaLoraConfig of PEFT; triplets that were pruned stay in the file as zeros."""
        config = self.config
        return {
            **peft_format.header(self.peft_type),
            **self._targets,
            "exclude_modules": None,
            "init_r": config.rank,
            "target_r": config.target_rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "beta1": config.importance_smoothing,
            "beta2": config.uncertainty_smoothing,
            "orth_reg_weight": config.orthogonality,
            # PEFT asks for a length when it makes the model; nothing is trained any more
            "total_step": 3,
            "tinit": 0,
            "tfinal": 0,
            "deltaT": config.interval,
            "rank_pattern": None,
            "modules_to_save": None,
            "bias": "none",
            "fan_in_fan_out": any(is_transposed(each.base) for each in self._layers.values()),
        }

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> AdaloraConfig:
        """Read an AdaLoraConfig of PEFT."""
        same = {"rank": "init_r", "target_rank": "target_r", "alpha": "lora_alpha"}
        same |= {"dropout": "lora_dropout", "orthogonality": "orth_reg_weight"}
        same |= {"importance_smoothing": "beta1", "uncertainty_smoothing": "beta2"}
        same |= {"interval": "deltaT"}
        silent = {"total_step", "tinit", "tfinal", "r", "init_lora_weights", "alpha_pattern"}
        understood = {*same.values(), *silent, "target_modules", "layers_to_transform", "bias"}
        understood |= {"rank_pattern", "layers_pattern", "megatron_core", "qalora_group_size"}
        understood.add("fan_in_fan_out")
        peft_format.refuse_active({**config, "bias": None}, understood=understood, reasons={})
        values: dict[str, Any] = {
            ours: config[theirs] for ours, theirs in same.items() if config.get(theirs) is not None
        }
        values["target_modules"] = peft_format.targets(config.get("target_modules"))
        values["layers_to_transform"] = peft_format.indices(config.get("layers_to_transform"))
        return peft_format.section(AdaloraConfig, values)

    @classmethod
    def tensors_from_file(
        cls, config: dict[str, Any], tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """PEFT leaves out the triplets that were pruned, and says which; here they are zeros."""
        found = dict(tensors)
        for name, stayed in (config.get("rank_pattern") or {}).items():
            module = name.partition(".lora_E")[0]
            for part in _PARTS:
                key = f"{peft_format.PREFIX}{module}.{part}"
                found[key] = _filled_up(found.get(key), stayed, key, rows=part != "lora_B")
        return found

    @classmethod
    def merge_edits(
        cls, config: AdaloraConfig, tensors: Mapping[str, Tensor], *, fan_in_fan_out: bool = False
    ) -> dict[str, Edit]:
        """W + scale B (E . A)."""
        names = [n.removesuffix(".lora_E") for n in tensors if n.endswith(".lora_E")]
        missing = {f"{n}.{part}" for n in names for part in _PARTS} ^ set(tensors)
        if missing:
            raise ModelError(f"the adapter file lacks or adds {min(missing)}")
        scale = config.alpha / (config.rank + _TINY)

        def edit(name: str) -> Edit:
            right, up, singular = (tensors[f"{name}.{part}"].float() for part in _PARTS)
            down = singular * right
            first, second = (down.t(), up.t()) if fan_in_fan_out else (up, down)

            def apply(base: Tensor | None) -> Tensor:
                assert base is not None, "needs_base"
                return by_rows(base, 0, len(base))

            def by_rows(base: Tensor | None, start: int, stop: int) -> Tensor:
                assert base is not None, "needs_base"
                return torch.addmm(base.float(), first[start:stop], second, alpha=scale)

            return Edit(True, apply, by_rows=by_rows, shape=(first.shape[0], second.shape[1]))

        return {f"{module_of(name)}.weight": edit(name) for name in names}


def _filled_up(tensor: Tensor | None, stayed: list[bool], name: str, *, rows: bool) -> Tensor:
    """What stayed of rows or columns in its places among all; `ModelError` where it is no such."""
    places = torch.tensor(stayed, dtype=torch.bool).nonzero()[:, 0]
    dim = 0 if rows else 1
    if tensor is None or tensor.ndim != 2 or tensor.shape[dim] not in (len(places), len(stayed)):
        raise ModelError(f"rank_pattern does not fit {name}", place=peft_format.CONFIG_FILE)
    if tensor.shape[dim] == len(stayed):
        return tensor
    shape = [len(stayed) if each == dim else size for each, size in enumerate(tensor.shape)]
    return tensor.new_zeros(shape).index_copy(dim, places, tensor)
