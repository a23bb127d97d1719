"""What to change in a recipe that does not fit, as YAML lines to paste into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qtune.plan.plan import Plan, Remedy

# What costs time alone is suggested before what the model may learn less with.
_SAFE = ("memory", "distributed", "optim", "model", "quantization.double_quant", "method.dtype")


@dataclass(frozen=True)
class Suggestion:
    """Settings that make a recipe fit, and others that would."""

    settings: tuple[str, ...]
    others: tuple[tuple[str, ...], ...]

    def yaml(self) -> str:
        """The settings as sections of a recipe."""
        sections: dict[str, list[str]] = {}
        for setting in self.settings:
            key, _, value = setting.partition("=")
            section, _, name = key.partition(".")
            sections.setdefault(section, []).append(f"  {name}: {value}")
        return "".join(
            f"{section}:\n" + "".join(f"{line}\n" for line in lines)
            for section, lines in sections.items()
        )


def suggestion(plan: Plan) -> Suggestion | None:
    """The mildest remedy that is enough: one that costs only time, one setting before several."""
    enough = [remedy for remedy in plan.remedies if remedy.fits]
    if not enough:
        return None
    best = min(enough, key=_harm)
    return Suggestion(best.settings, tuple(each.settings for each in enough if each is not best))


def _harm(remedy: Remedy) -> tuple[int, int]:
    return (sum(not _is_safe(each) for each in remedy.settings), len(remedy.settings))


def _is_safe(setting: str) -> bool:
    key = setting.partition("=")[0]
    return key in _SAFE or key.partition(".")[0] in _SAFE
