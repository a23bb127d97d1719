"""What a check found, and what makes any failure of a check one too."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One line of the table: `advice` is what to do, empty where nothing is to be done."""

    name: str
    state: State
    said: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def guarded(name: str, check: Callable[[], Finding], *, advice: str = "") -> Finding:
    """What a check finds; whatever it raises is a fault with `advice`."""
    try:
        return check()
    except Exception as error:  # a broken machine raises anything
        return Finding(name, "fault", told(error), advice)


def told(error: BaseException) -> str:
    """An exception in one short line."""
    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}" if lines[0] else type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


def worst(findings: list[Finding]) -> State:
    """The state of all together."""
    states: list[State] = [finding.state for finding in findings]
    order: tuple[State, ...] = ("fault", "warning", "ok")
    return next((state for state in order if state in states), "ok")
