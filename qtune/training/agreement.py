"""What the processes of a run agree on between two steps, so that all of them do the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtune.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtune.ranks import Ranks
    from qtune.training.signals import StopRequest


@dataclass
class Agreement:
    """The wishes of all, as of the last `settle`: one signal on one of them is enough.

    `time_is_up`, `saves`: what each process asks its own clock. `code`: of the signal to stop for;
    `save`: USR1 came. `told`: what each process says of itself beside, by rank; nothing where
    there is but one.
    """

    ranks: Ranks
    stop: StopRequest
    time_is_up: Callable[[], bool]
    saves: Callable[[], bool]
    tell: Callable[[], Standing]
    code: ExitCode | None = field(default=None, init=False)
    save: bool = field(default=False, init=False)
    over: bool = field(default=False, init=False)
    save_due: bool = field(default=False, init=False)
    told: list[Standing] = field(default_factory=list, init=False)

    def settle(self) -> None:
        """Hear all processes; each must be between the same two steps."""
        wishes = (self.stop.code or 0, self.stop.save, self.time_is_up(), self.saves())
        said = [*map(float, wishes)]
        if not self.ranks.alone:  # nobody hears it otherwise, and this comes at every step
            standing = self.tell()
            said += [standing.peak_bytes, standing.joining, standing.micro_batch_size]
        table = self.ranks.table(said)
        code, save, over, save_due, *_ = (max(column) for column in zip(*table, strict=True))
        self.code = ExitCode(int(code)) if code else None
        self.save, self.over, self.save_due = bool(save), bool(over), bool(save_due)
        if not self.ranks.alone:
            self.told = [
                Standing(peak_bytes=int(peak), joining=joining, micro_batch_size=int(rows))
                for *_, peak, joining, rows in table
            ]

    def take_save(self) -> bool:
        """Whether a checkpoint was asked for, which is granted now."""
        asked, self.save = self.save, False
        self.stop.take_save()
        return asked


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a process is doing: the most memory it held, the seconds since its start in which it
    waited for the others' gradients or sent its own, and the rows of its micro-batches."""

    peak_bytes: int
    joining: float
    micro_batch_size: int
