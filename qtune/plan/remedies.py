"""What would make a recipe fit: each setting planned anew, then together, mildest first."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from qtune.plan.plan import Remedy
from qtune.recipe.methods import BridgeConfig, LoraConfig, parts_of
from qtune.sizes import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qtune.plan.machine import Machine
    from qtune.recipe.sections import Recipe

SHORTEST_ROW = 128
SMALLEST_RANK = 4
SMALL_CHUNK = 128
# Policies that keep less than one, mildest first; moving to the host is for CUDA devices alone.
LIGHTER = {
    "auto": (),
    "none": ("selective", "layer"),
    "selective": ("layer",),
    "layer": (),
    "offload": (),
}
_DEAR = (
    *("quantization.bits", "method.rank", "method.modules_to_save", "data.max_length"),
    "memory.base",
    "distributed.offload",
)


@dataclass(frozen=True)
class Setting:
    """One key of the recipe with another value."""

    section: str
    key: str
    value: Any

    def __str__(self) -> str:
        shown = str(self.value).lower() if isinstance(self.value, bool) else self.value
        return f"{self.section}.{self.key}={shown}"

    @property
    def is_dear(self) -> bool:
        """The model may learn less with it, or much slower."""
        return f"{self.section}.{self.key}" in _DEAR

    def over(self, recipe: Recipe) -> Recipe:
        """The recipe with this setting; the value is valid by construction."""
        value = () if self.value == "[]" else self.value
        section = getattr(recipe, self.section).model_copy(update={self.key: value})
        return recipe.model_copy(update={self.section: section})


def remedies(
    recipe: Recipe, machine: Machine, *, least: Callable[[Recipe], int]
) -> tuple[Remedy, ...]:
    """Settings with what each saves, sufficient ones first; `least` plans a recipe's minimum.

    When no single setting is enough, or only a dear one, several together follow;
    they are all of them when even that is too large.
    """
    needed = least(recipe)
    budget = machine.device_memory
    if recipe.memory.budget is not None:
        budget = min(budget, parse_size(recipe.memory.budget))
    groups = [*_groups(recipe, machine)]

    def remedy(settings: list[Setting]) -> Remedy:
        changed = recipe
        for setting in settings:
            changed = setting.over(changed)
        size = least(changed)
        return Remedy(tuple(map(str, settings)), size, needed - size, size <= budget)

    found = [(group[0].is_dear, _mildest(group, remedy)) for group in groups]
    alone = [each for _, each in found if each.saving > 0]
    if budget < needed <= machine.device_memory:
        alone.append(Remedy(("memory.budget=null",), needed, 0, True))
    alone.sort(key=lambda each: not each.fits)
    if any(each.fits and not costly for costly, each in found):
        return tuple(alone)
    together = remedy(_together(groups, remedy)) if alone else None
    if together is None or len(together.settings) < 2:
        return tuple(alone)
    return (*alone, together)


def _mildest(group: list[Setting], remedy: Callable[[list[Setting]], Remedy]) -> Remedy:
    """The first of a key's values that is enough, else the last."""
    tried = remedy([group[0]])
    for setting in group[1:]:
        if tried.fits:
            break
        tried = remedy([setting])
    return tried


def _together(
    groups: list[list[Setting]], remedy: Callable[[list[Setting]], Remedy]
) -> list[Setting]:
    """Settings added until they are enough, less those that turn out not to be needed."""
    chosen: list[Setting] = []
    for group in groups:
        for setting in group:
            if remedy([*chosen, setting]).fits:
                break
        if remedy([*chosen, setting]).saving > (remedy(chosen).saving if chosen else 0):
            chosen.append(setting)
        if chosen and remedy(chosen).fits:
            break
    for setting in list(chosen):
        fewer = [each for each in chosen if each is not setting]
        if fewer and remedy(fewer).fits:
            chosen = fewer
    return chosen


def _groups(recipe: Recipe, machine: Machine) -> Iterator[list[Setting]]:
    """The values of each key that need less memory; mildest first, the dear ones last."""
    yield from _free_groups(recipe)
    if lighter := lighter_optimizer(recipe.optim.name, machine):
        yield [Setting("optim", "name", lighter)]
    if recipe.quantization.compute_dtype == "float32":
        yield [Setting("quantization", "compute_dtype", "bfloat16")]
    if recipe.quantization.bits > 4:
        yield [Setting("quantization", "bits", 4)]
    if isinstance(recipe.method, LoraConfig):
        yield from _lora_groups(recipe.method)
    if lengths := _halved(recipe.data.max_length, SHORTEST_ROW):
        yield [Setting("data", "max_length", length) for length in lengths]
    yield from _linked_groups(recipe)


def _linked_groups(recipe: Recipe) -> Iterator[list[Setting]]:
    """Last: who asks for layers on the device does not want to wait for the link."""
    shared = recipe.distributed
    if recipe.quantization.bits != 4:
        return
    if shared.strategy != "fsdp" and recipe.memory.base == "resident":
        yield [Setting("memory", "base", "stream")]
    stays = shared.offload == "auto" and recipe.memory.base == "resident"
    bridged = any(isinstance(part, BridgeConfig) for part in parts_of(recipe.method))
    if shared.strategy != "ddp" and not bridged and (stays or shared.offload is False):
        yield [Setting("distributed", "offload", True)]


def _free_groups(recipe: Recipe) -> Iterator[list[Setting]]:
    """Keys that cost time at most."""
    memory, quantization = recipe.memory, recipe.quantization
    if recipe.distributed.strategy == "ddp":
        yield [Setting("distributed", "strategy", "auto")]
    if lighter := LIGHTER[memory.activations]:
        yield [Setting("memory", "activations", policy) for policy in lighter]
    if memory.dequantized_layers not in ("auto", 0):
        yield [Setting("memory", "dequantized_layers", 0)]
    if memory.micro_batch_size not in ("auto", 1):
        yield [Setting("memory", "micro_batch_size", 1)]
    if recipe.model.attn_implementation == "eager":
        yield [Setting("model", "attn_implementation", "sdpa")]
    chunked = recipe.model.task == "causal"
    if chunked and (memory.loss_chunk_size == "auto" or memory.loss_chunk_size > SMALL_CHUNK):
        yield [Setting("memory", "loss_chunk_size", SMALL_CHUNK)]
    if quantization.bits == 4 and not quantization.double_quant:
        yield [Setting("quantization", "double_quant", True)]


def _lora_groups(method: LoraConfig) -> Iterator[list[Setting]]:
    if method.dtype == "float32":
        yield [Setting("method", "dtype", "bfloat16")]
    if ranks := _halved(method.rank, SMALLEST_RANK):
        yield [Setting("method", "rank", rank) for rank in ranks]
    if method.modules_to_save:
        yield [Setting("method", "modules_to_save", "[]")]


def lighter_optimizer(name: str, machine: Machine) -> str | None:
    """The optimizer of the same family with 8-bit states, paged where that is possible."""
    if name in ("paged_adamw_32bit", "adamw"):
        return "paged_adamw_8bit" if machine.device == "cuda" else "adamw_8bit"
    if machine.device == "cpu":
        return None
    return {"adamw_8bit": "paged_adamw_8bit", "lion_8bit": "paged_lion_8bit"}.get(name)


def _halved(value: int, smallest: int) -> list[int]:
    """Halves of a number down to a smallest."""
    halves = (value >> power for power in range(1, value.bit_length()))
    return [*takewhile(lambda half: half >= smallest, halves)]
