"""Methods that cannot be parts of one combination: what each computes would not be defined."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

from qtune.errors import UsageError
from qtune.plan.targets import is_within
from qtune.recipe.methods import LongLoraConfig, LoraConfig, PrefixConfig, SoftPromptConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.recipe.methods import SingleMethod


def refuse_clashes(
    parts: Sequence[SingleMethod], whole: Sequence[Sequence[str]], adapted: Sequence[Sequence[str]]
) -> None:
    """`UsageError` for parts that cannot be together; `whole` and `adapted` give the modules that
    each part trains whole, and those it puts an adapter on."""
    before = [number for number, part in enumerate(parts) if _stands_before(part)]
    if len(before) > 1:
        raise _refusal(
            before[1], f"stands before the row, as part {before[0]} does: one of them is enough"
        )
    long = [number for number, part in enumerate(parts) if isinstance(part, LongLoraConfig)]
    prefixes = [number for number, part in enumerate(parts) if isinstance(part, PrefixConfig)]
    if len(long) > 1 or (long and prefixes):
        raise _refusal([*prefixes, *long][0], "changes the attention, as another part does")
    for first, second in permutations(range(len(parts)), 2):
        for module in whole[first]:
            if first < second and module in whole[second]:
                raise _refusal(second, f"trains {module} whole, as part {first} does")
            if clash := next((name for name in adapted[second] if _touch(name, module)), None):
                raise _refusal(second, f"adapts {clash}, which part {first} trains whole")
        if _is_dora(parts[first]) and (shared := _shared(adapted[first], adapted[second])):
            told = f"DoRA's norm of {shared} would not know what part {second} adds"
            if _is_low_rank(parts[second]):
                raise _refusal(first, told)


def _stands_before(part: SingleMethod) -> bool:
    return isinstance(part, SoftPromptConfig | PrefixConfig)


def _is_dora(part: SingleMethod) -> bool:
    return isinstance(part, LoraConfig) and part.use_dora


def _is_low_rank(part: SingleMethod) -> bool:
    return hasattr(part, "rank")


def _touch(name: str, module: str) -> bool:
    return is_within(name, module) or is_within(module, name)


def _shared(first: Sequence[str], second: Sequence[str]) -> str | None:
    return next((name for name in first if name in set(second)), None)


def _refusal(number: int, message: str) -> UsageError:
    return UsageError(
        message,
        place=f"method.parts.{number}",
        hint="choose other modules, or leave one of the parts out",
    )
