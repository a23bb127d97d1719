"""One gate judged: what was asked, what was reached."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from qtune.plan import human

Unit = Literal["", "bytes", "seconds", "tokens/s"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A gate with its limit and what was measured; None: nothing finite was."""

    gate: str
    limit: float
    actual: float | None
    unit: Unit = ""

    @property
    def passed(self) -> bool:
        """Whether the limit was kept: an upper one for max_, a lower one for min_."""
        if self.actual is None:
            return False
        upper = self.gate.startswith("max_")
        return self.actual <= self.limit if upper else self.actual >= self.limit

    def __str__(self) -> str:
        bound = "at most" if self.gate.startswith("max_") else "at least"
        return f"gates.{self.gate}: {self.shown_actual}, {bound} {self.shown_limit} is asked"

    @property
    def shown_limit(self) -> str:
        """The limit for people."""
        return _shown(self.limit, self.unit)

    @property
    def shown_actual(self) -> str:
        """What was reached, for people."""
        return "not measured" if self.actual is None else _shown(self.actual, self.unit)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "gate": self.gate,
            "limit": self.limit,
            "actual": self.actual,
            "unit": self.unit,
            "passed": self.passed,
        }


def _shown(value: float, unit: Unit) -> str:
    if unit == "bytes":
        return human(round(value))
    if unit == "seconds":
        return f"{value:,.1f} s"
    if unit == "tokens/s":
        return f"{value:,.1f} tokens/s"
    return f"{value:.6g}"


def kept_verdicts(told: Any) -> list[Verdict]:
    """The verdicts of a report read from a file; what is none is left out."""
    found = []
    for one in told if isinstance(told, list) else ():
        with suppress(KeyError, TypeError, ValueError):
            actual = None if one["actual"] is None else float(one["actual"])
            limit, gate = float(one["limit"]), str(one["gate"])
            found.append(Verdict(gate=gate, limit=limit, actual=actual, unit=one["unit"]))
    return found
