"""Faulty rows, collected so that one run reports them together."""

from __future__ import annotations

from qtune.errors import DataError, Fault

SHOWN = 10


class Faults:
    """The first few faults in full and the number of the rest; memory stays bounded.

    `cut_off`: whether rows behind a fault cannot be read, however many there are.
    """

    def __init__(self, *, shown: int = SHOWN) -> None:
        self.count = 0
        self.cut_off = False
        self._shown = shown
        self._first: list[Fault] = []

    def add(self, message: str, *, place: str, hint: str = "") -> None:
        """Record one fault."""
        self.count += 1
        if len(self._first) < self._shown:
            self._first.append(Fault(message=message, place=place, hint=hint))

    def add_error(self, error: DataError, *, place: str = "") -> None:
        """Record what an error says; `place` fills in where it names none."""
        for fault in error.faults:
            self.add(fault.message, place=fault.place or place, hint=fault.hint)

    @property
    def first(self) -> list[Fault]:
        """The first faults."""
        return list(self._first)

    def absorb(self, other: Faults) -> None:
        """Take over another's faults."""
        self._first += other.first[: self._shown - len(self._first)]
        self.count += other.count

    def raise_if_any(self) -> None:
        """`DataError` with the first faults and the count of the rest."""
        if not self.count:
            return
        rest = self.count - len(self._first)
        tail = [Fault(message=f"and {rest} more faulty rows")] if rest else []
        raise DataError.of([*self._first, *tail])
