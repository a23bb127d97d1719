"""RoSA (Nikdan et al. 2024): y = Wx + s B A x + S x, S sparse with places chosen by gradient.

After warmup_steps of the low-rank part alone each weight's gradient is looked at once, in the
backward pass, a block of rows at a time; its largest entries are the places of S, whose values
start at zero and train beside A and B. `mask_from` takes the places of an earlier run from the
first step on, which is the paper's best. The file is a LoRA's with values, columns and row
pointers beside; its type is known to qtune alone.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qtune.errors import ModelError
from qtune.methods import lora_format, lora_merge
from qtune.methods.adapter_file import read_config, read_tensors
from qtune.methods.base import Edit, groups_by_decay
from qtune.methods.low_rank import LowRank
from qtune.methods.peft_format import CONFIG_FILE, PREFIX, module_of
from qtune.methods.rosa_linear import (
    COLUMNS,
    POINTERS,
    VALUES,
    RosaLinear,
    flat_places,
    split,
)
from qtune.methods.strict import refuse_differences
from qtune.methods.warm_up import end_of_warm_up
from qtune.ops.linears import features
from qtune.plan.sparse import place_count
from qtune.ranks import ALONE
from qtune.recipe.methods import RosaConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor, nn

    from qtune.methods.lora_linear import LoraLinear
    from qtune.ranks import Ranks
    from qtune.recipe.methods import LowRankConfig, MethodConfig

_KEYS = ("density",)
LONGEST_WARM_UP = 64  # steps


class Rosa(LowRank):
    """Low-rank and sparse adapters on chosen linear layers."""

    name: ClassVar[str] = "rosa"
    peft_type: ClassVar[str] = "ROSA"
    config: RosaConfig

    def __init__(self, config: MethodConfig, *, seed: int) -> None:
        super().__init__(config, seed=seed)
        assert isinstance(config, RosaConfig)
        self._ranks = ALONE
        self._begins = config.warmup_steps
        self._mask = _indices_of(Path(config.mask_from)) if config.mask_from else {}

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:
        """As LoRA; `ModelError` when the places of `mask_from` are those of other layers."""
        super().attach(model, tokenizer=tokenizer)
        if self._mask:
            try:
                self._load_indices(self._mask, what="mask_from")
            except ModelError:
                self.detach()
                raise

    def adapt(self, name: str, module: nn.Module) -> LoraLinear:
        """The layer for one linear, as it is drawn."""
        adapter = super().adapt(name, module)
        assert isinstance(adapter, RosaLinear)
        inputs, outputs = features(module)
        return adapter.make_room(place_count(self.config, outputs, inputs))

    def kind(self) -> type[LoraLinear]:
        """The layer that stands in for a chosen linear."""
        return RosaLinear

    def will_train(self, total_steps: int, *, longest_row: int) -> None:  # noqa: ARG002
        """Lay the warm-up into the run; `UsageError` when no step is left after it."""
        if not self._mask:
            asked = self.config.warmup_steps
            self._begins = end_of_warm_up(asked, total_steps, most=LONGEST_WARM_UP)

    def before_step(self, step: int) -> None:
        """Have the layers without places choose them in this step, once the warm-up is over."""
        warm = self._begins is not None and step >= self._begins
        for layer in self.layers().values():
            layer.look_out(choosing=layer.places is None and warm)

    def join(self, ranks: Ranks) -> None:
        """The first process chooses the places for all."""
        self._ranks = ranks

    def after_backward(self, step: int) -> None:  # noqa: ARG002
        """Take the places that were chosen; a layer that no token went through waits."""
        looking = [layer for layer in self.layers().values() if layer.choosing]
        if looking:
            chosen = self._ranks.of_first(lambda: [layer.chosen for layer in looking])
            for layer, places in zip(looking, chosen, strict=True):
                layer.settle(places)
                layer.look_out(choosing=False)

    def layers(self) -> dict[str, RosaLinear]:
        """The adapted linears by their names in the file."""
        found = self.adapters.items()
        return {f"{PREFIX}{name}": each for name, each in found if isinstance(each, RosaLinear)}

    def param_groups(self, *, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """The sparse values learn sparse_lr_ratio times as fast as the rest, without decay."""
        named = self.parameters().items()
        sparse = [tensor for name, tensor in named if name.endswith(f".{VALUES}")]
        others = [tensor for name, tensor in named if not name.endswith(f".{VALUES}")]
        rate = learning_rate * self.config.sparse_lr_ratio
        return [
            *groups_by_decay(others, learning_rate=learning_rate, weight_decay=weight_decay),
            {"params": sparse, "lr": rate, "weight_decay": 0.0},
        ]

    def adapter_state(self) -> dict[str, Tensor]:
        """Parameters and indices."""
        return super().adapter_state() | self._indices()

    def load_adapter(self, tensors: Mapping[str, Tensor]) -> None:
        """Take other weights and places; `ModelError` lists foreign, missing and misshapen ones."""
        own = self._indices()
        refuse_differences({**self.file_parameters(), **own}, tensors, what="adapter")
        self._load_indices({name: tensors[name] for name in own}, what="adapter")
        super().load_adapter({name: tensors[name] for name in tensors if name not in own})

    def _indices(self) -> dict[str, Tensor]:
        return {
            f"{name}.{end}": tensor
            for name, layer in self.layers().items()
            for end, tensor in layer.indices().items()
        }

    def _load_indices(self, tensors: Mapping[str, Tensor], *, what: str) -> None:
        refuse_differences(self._indices(), tensors, what=what)
        for name, layer in self.layers().items():
            layer.load_indices(tensors[f"{name}.{COLUMNS}"], tensors[f"{name}.{POINTERS}"])

    def peft_config(self) -> dict[str, Any]:
        """A LoraConfig of PEFT of a type that only qtune knows, with the density."""
        own = self.config.model_dump(mode="json", include=set(_KEYS))
        return {**super().peft_config(), "peft_type": self.peft_type, **own}

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> RosaConfig:
        """Read our own adapter_config.json."""
        return cls.config_from_file(config, ())

    @classmethod
    def config_from_file(cls, config: dict[str, Any], names: Collection[str]) -> RosaConfig:
        """With the modules_to_save that the names of the tensors say."""
        names = [name for name in names if ".rosa_" not in name]
        return lora_format.read_variant(RosaConfig, config, names, keys=_KEYS)

    @classmethod
    def merge_edits(
        cls, config: LowRankConfig, tensors: Mapping[str, Tensor], *, fan_in_fan_out: bool = False
    ) -> dict[str, Edit]:
        """W + s B A + S."""
        sparse, rest = split(tensors)
        edits = lora_merge.edits(config.plain(), rest, fan_in_fan_out=fan_in_fan_out)
        for name in sparse:
            if name.endswith(f".{VALUES}"):
                whole = name.removesuffix(f".{VALUES}")
                weight = f"{module_of(whole)}.weight"
                parts = _parts(sparse, whole)
                low_rank = edits[weight]
                fold = partial(_fold, low_rank, parts, transposed=fan_in_fan_out)
                rows = None if fan_in_fan_out else partial(_fold_rows, low_rank, parts)
                edits[weight] = Edit(True, fold, by_rows=rows, shape=low_rank.shape)
        return edits


def _parts(sparse: Mapping[str, Tensor], whole: str) -> tuple[Tensor, Tensor, Tensor]:
    """Values, columns and row pointers of one layer."""
    try:
        values, columns, pointers = (sparse[f"{whole}.{e}"] for e in (VALUES, COLUMNS, POINTERS))
    except KeyError as error:
        raise ModelError(f"the adapter file lacks {error.args[0]}") from None
    return values, columns, pointers


def _fold(
    low_rank: Edit,
    parts: tuple[Tensor, Tensor, Tensor],
    base: Tensor | None,
    *,
    transposed: bool,
) -> Tensor:
    """The low-rank edit's weight with the sparse values at their places."""
    values, columns, pointers = parts
    merged = low_rank.apply(base)
    if not pointers.any():
        return merged
    weight = merged.t() if transposed else merged
    if len(pointers) != len(weight) + 1:
        raise ModelError("the adapter belongs to another base model")
    flat = flat_places(columns, pointers, inputs=weight.shape[1])
    whole = weight.contiguous()
    whole.view(-1)[flat.to(whole.device)] += values.to(whole)
    return whole.t().contiguous() if transposed else whole


def _fold_rows(
    low_rank: Edit, parts: tuple[Tensor, Tensor, Tensor], base: Tensor | None, start: int, stop: int
) -> Tensor:
    """As `_fold`, rows [start, stop) alone."""
    values, columns, pointers = parts
    assert low_rank.by_rows is not None
    merged = low_rank.by_rows(base, start, stop)
    if not pointers.any():
        return merged
    first, last = int(pointers[start]), int(pointers[stop])
    here = pointers[start : stop + 1] - first
    flat = flat_places(columns[first:last], here, inputs=merged.shape[1])
    merged.view(-1)[flat] += values[first:last].to(merged)
    return merged


def _indices_of(folder: Path) -> dict[str, Tensor]:
    """The places of an adapter folder, or of a run's; `ModelError` if it has none."""
    adapter = folder / "adapter" if (folder / "adapter" / CONFIG_FILE).is_file() else folder
    if read_config(adapter).get("peft_type") != Rosa.peft_type:
        raise ModelError("no adapter of RoSA", place=str(folder), hint="see method.mask_from")
    sparse, _ = split(read_tensors(adapter)[0])
    found = {name: each for name, each in sparse.items() if not name.endswith(f".{VALUES}")}
    if not all(t.any() for name, t in found.items() if name.endswith(f".{POINTERS}")):
        raise ModelError(
            "the run ended before its places were chosen",
            place=str(folder),
            hint="train it beyond its method.warmup_steps",
        )
    return found
